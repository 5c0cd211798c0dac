{{- /* A Deployment below its metadata, or a StatefulSet (`serviceName` is given, and `claims`); the worker and the readers
       differ in what they are given:
       root, pod (the values of its pods), selectorLabels, labels, replicas (none: something scales it), checksums,
       serviceAccountName, container, args, envFrom, env, ports, lifecycle, volumes, volumeMounts */ -}}
{{- define "entitlement-sync.workload" -}}
{{- $root := .root }}
{{- $pod := .pod }}
{{- with .replicas }}
replicas: {{ . }}
{{- end }}
revisionHistoryLimit: {{ $pod.revisionHistoryLimit }}
minReadySeconds: {{ $pod.minReadySeconds }}
{{- with .serviceName }}
serviceName: {{ . }}
# Ends the old pod before it starts the new one.
updateStrategy:
  type: RollingUpdate
{{- else }}
strategy:
  {{- toYaml $pod.strategy | nindent 2 }}
{{- end }}
{{- with .claims }}
volumeClaimTemplates:
  {{- toYaml . | nindent 2 }}
{{- end }}
selector:
  matchLabels:
    {{- toYaml .selectorLabels | nindent 4 }}
template:
  metadata:
    annotations:
      # Starts new pods when the data that they read at start changes. The chart cannot see a Secret that it did not create.
      {{- toYaml .checksums | nindent 6 }}
      {{- with $pod.podAnnotations }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    labels:
      {{- mergeOverwrite (deepCopy $pod.podLabels) .labels | toYaml | nindent 6 }}
  spec:
    {{- with $root.Values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    serviceAccountName: {{ .serviceAccountName }}
    automountServiceAccountToken: false
    # A Service called `redis` would otherwise inject REDIS_PORT.
    enableServiceLinks: false
    terminationGracePeriodSeconds: {{ $pod.terminationGracePeriodSeconds }}
    securityContext:
      {{- include "entitlement-sync.podSecurityContext" $root | nindent 6 }}
    {{- with $pod.priorityClassName }}
    priorityClassName: {{ . }}
    {{- end }}
    {{- with $pod.initContainers }}
    initContainers:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: {{ .container }}
        image: {{ include "entitlement-sync.image" $root | quote }}
        imagePullPolicy: {{ $root.Values.image.pullPolicy }}
        {{- with .args }}
        args:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        securityContext:
          {{- toYaml $root.Values.securityContext | nindent 10 }}
        # If two sources set a variable, the later one wins; `env` wins over both.
        envFrom:
          {{- toYaml .envFrom | nindent 10 }}
        {{- with .env }}
        env:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        ports:
          {{- toYaml .ports | nindent 10 }}
        {{- range $name := list "startupProbe" "livenessProbe" "readinessProbe" }}
        {{- with get $pod $name }}
        {{ $name }}:
          {{- include "entitlement-sync.probe" (list .) | nindent 10 }}
        {{- end }}
        {{- end }}
        {{- with .lifecycle }}
        lifecycle:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        resources:
          {{- toYaml $pod.resources | nindent 10 }}
        {{- with .volumeMounts }}
        volumeMounts:
          {{- toYaml . | nindent 10 }}
        {{- end }}
      {{- with $pod.extraContainers }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with .volumes }}
    volumes:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $pod.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $pod.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $pod.affinity }}
    affinity:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- $spread := list }}
    {{- $selector := dict "matchLabels" .selectorLabels }}
    {{- range $pod.topologySpreadConstraints }}
    {{- $spread = append $spread (hasKey . "labelSelector" | ternary . (merge (dict "labelSelector" $selector) .)) }}
    {{- end }}
    {{- with $spread }}
    topologySpreadConstraints:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $pod.hostAliases }}
    hostAliases:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $pod.dnsPolicy }}
    dnsPolicy: {{ . }}
    {{- end }}
    {{- with $pod.dnsConfig }}
    dnsConfig:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}

{{- /* Variables from Secrets, as a list in YAML; its argument has root, values and existing. */ -}}
{{- define "entitlement-sync.secretEnv" -}}
{{- $env := list }}
{{- $own := include "entitlement-sync.fullname" .root }}
{{- range $name, $_ := .values }}
{{- $env = append $env (dict "name" $name "valueFrom" (dict "secretKeyRef" (dict "name" $own "key" $name))) }}
{{- end }}
{{- range $name, $ref := .existing }}
{{- $env = append $env (dict "name" $name "valueFrom" (dict "secretKeyRef" $ref)) }}
{{- end }}
{{- toYaml $env }}
{{- end }}

{{- /* A HorizontalPodAutoscaler below its metadata: the name of its Deployment, and its values. */ -}}
{{- define "entitlement-sync.scaling" -}}
scaleTargetRef:
  apiVersion: apps/v1
  kind: Deployment
  name: {{ .name }}
minReplicas: {{ .values.minReplicas }}
maxReplicas: {{ .values.maxReplicas }}
metrics:
  {{- with .values.targetCPUUtilizationPercentage }}
  - type: Resource
    resource:
      name: cpu
      target:
        type: Utilization
        averageUtilization: {{ . }}
  {{- end }}
  {{- with .values.metrics }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .values.behavior }}
behavior:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
