{{- define "entitlement-sync.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "entitlement-sync.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "entitlement-sync.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "entitlement-sync.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "entitlement-sync.selectorLabels" -}}
app.kubernetes.io/name: {{ include "entitlement-sync.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "entitlement-sync.labels" -}}
{{- $labels := dict
      "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")
      "app.kubernetes.io/version" .Chart.AppVersion
      "app.kubernetes.io/managed-by" .Release.Service }}
{{- $labels = mergeOverwrite (deepCopy .Values.commonLabels) $labels (include "entitlement-sync.selectorLabels" . | fromYaml) }}
{{- toYaml $labels }}
{{- end }}

{{- define "entitlement-sync.metadata" -}}
name: {{ include "entitlement-sync.fullname" . }}
namespace: {{ include "entitlement-sync.namespace" . }}
labels:
  {{- include "entitlement-sync.labels" . | nindent 2 }}
{{- end }}

{{- /* The same of what only answers: never the labels of the worker, whose selectors would find its pods too. */ -}}
{{- define "entitlement-sync.readsName" -}}
{{- printf "%s-reads" (include "entitlement-sync.fullname" . | trunc 57 | trimSuffix "-") }}
{{- end }}

{{- define "entitlement-sync.readsSelectorLabels" -}}
app.kubernetes.io/name: {{ include "entitlement-sync.name" . }}-reads
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "entitlement-sync.readsLabels" -}}
{{- mergeOverwrite (include "entitlement-sync.labels" . | fromYaml) (include "entitlement-sync.readsSelectorLabels" . | fromYaml) | toYaml }}
{{- end }}

{{- define "entitlement-sync.readsMetadata" -}}
name: {{ include "entitlement-sync.readsName" . }}
namespace: {{ include "entitlement-sync.namespace" . }}
labels:
  {{- include "entitlement-sync.readsLabels" . | nindent 2 }}
{{- end }}

{{- define "entitlement-sync.readsServiceAccountName" -}}
{{- if .Values.reads.serviceAccount.create }}
{{- default (include "entitlement-sync.readsName" .) .Values.reads.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.reads.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "entitlement-sync.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "entitlement-sync.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* On OpenShift the SCC of the namespace sets the ids, and rejects a pod that names others. */ -}}
{{- define "entitlement-sync.podSecurityContext" -}}
{{- $context := .Values.podSecurityContext }}
{{- if .Values.openshift }}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{- define "entitlement-sync.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag | toString) }}
{{- end }}
{{- end }}

{{- /* A value as the environment has it. Numbers of a values file are floats, and large ones would print as 6.7e+07. */ -}}
{{- define "entitlement-sync.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}
{{- int64 . }}
{{- else }}
{{- toString . }}
{{- end }}
{{- end }}

{{- /* What the worker is told, from `config` and `secrets`, else from the values of the vendor's chart:
       {"config": {NAME: text}, "values": {NAME: text}, "existing": {NAME: {name, key}}} */ -}}
{{- define "entitlement-sync.settings" -}}
{{- $config := dict }}
{{- $values := dict }}
{{- $existing := dict }}
{{- range $name, $value := .Values.config }}
{{- if not (has (toString $value) (list "" "<nil>")) }}
{{- if hasKey $.Values.secrets $name }}
{{- fail (printf "config.%s is a secret: set secrets.%s" $name $name) }}
{{- end }}
{{- $_ := set $config $name (include "entitlement-sync.text" $value) }}
{{- end }}
{{- end }}
{{- range $name, $secret := .Values.secrets }}
{{- $secret = default dict $secret }}
{{- $ref := default dict $secret.existingSecret }}
{{- $value := include "entitlement-sync.text" (default "" $secret.value) }}
{{- if and $ref.name $value }}
{{- fail (printf "secrets.%s.value and secrets.%s.existingSecret.name are both set: set one of them" $name $name) }}
{{- else if $ref.name }}
{{- $_ := set $existing $name (dict "name" $ref.name "key" (default $name $ref.key)) }}
{{- else if $value }}
{{- $_ := set $values $name $value }}
{{- end }}
{{- end }}
{{- /* The vendor's values, each only if no value above sets it. The vendor's chart uses TLS to Redis by default. */ -}}
{{- $vendor := default dict .Values.persistentCache }}
{{- $redis := default dict $vendor.redis }}
{{- if not (or (hasKey $values "SERVER_API_KEY") (hasKey $existing "SERVER_API_KEY")) }}
{{- if .Values.apiKeysSecretName }}
{{- $_ := set $existing "SERVER_API_KEY" (dict "name" .Values.apiKeysSecretName "key" "stigg_server_api_key") }}
{{- else if .Values.serverApiKey }}
{{- $_ := set $values "SERVER_API_KEY" .Values.serverApiKey }}
{{- end }}
{{- end }}
{{- $theirs := dict
      "AWS_REGION" $vendor.awsRegion
      "QUEUE_URL" $vendor.queueUrl
      "ENVIRONMENT_PREFIX" $redis.environmentPrefix
      "REDIS_HOST" $redis.host
      "REDIS_PORT" $redis.port
      "REDIS_DB" $redis.db
      "REDIS_USER" $redis.username
      "REDIS_TLS" (ternary (get $redis "tls") (ternary "true" "" (hasKey $redis "host")) (hasKey $redis "tls"))
      "REDIS_PASSWORD" $redis.password }}
{{- $same := dict "REDIS_USERNAME" "REDIS_USER" "REDIS_ENVIRONMENT_PREFIX" "ENVIRONMENT_PREFIX" }}
{{- range $from := list $theirs (default dict $vendor.extraEnv) }}
{{- range $name, $value := $from }}
{{- $name = get $same $name | default $name }}
{{- $text := include "entitlement-sync.text" $value }}
{{- if not (or (has $text (list "" "<nil>")) (hasKey $config $name) (hasKey $values $name) (hasKey $existing $name)) }}
{{- if not (regexMatch "^[A-Za-z_][A-Za-z0-9_]*$" $name) }}
{{- fail (printf "persistentCache.extraEnv.%s is no name of a variable" $name) }}
{{- end }}
{{- $_ := set (ternary $values $config (hasKey $.Values.secrets $name)) $name $text }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq .Values.store "memory" }}
{{- range $name, $text := dict "STORE" "memory" "READ_PORT" (include "entitlement-sync.text" .Values.memory.readPort) }}
{{- $_ := set $config $name $text }}
{{- end }}
{{- if .Values.memory.persistence.enabled }}
{{- $_ := set $config "SNAPSHOT_PATH" "/data" }}
{{- end }}
{{- end }}
{{- toJson (dict "config" $config "values" $values "existing" $existing) }}
{{- end }}

{{- /* Variables that differ for the pods of `reads`: {NAME: text}. */ -}}
{{- define "entitlement-sync.readsConfig" -}}
{{- $config := dict }}
{{- range $name, $value := .Values.reads.config }}
{{- if not (has (toString $value) (list "" "<nil>")) }}
{{- if hasKey $.Values.secrets $name }}
{{- fail (printf "reads.config.%s is a secret: set secrets.%s" $name $name) }}
{{- end }}
{{- $_ := set $config $name (include "entitlement-sync.text" $value) }}
{{- end }}
{{- end }}
{{- $_ := set $config "READ_PORT" (get $config "READ_PORT" | default "4001") }}
{{- toJson $config }}
{{- end }}

{{- /* Rejects values that would render and fail later, and names the value to set. */ -}}
{{- define "entitlement-sync.validate" -}}
{{- $settings := include "entitlement-sync.settings" . | fromJson }}
{{- $timeout := get $settings.config "SHUTDOWN_TIMEOUT_SECS" | default "8" | int }}
{{- $grace := .Values.terminationGracePeriodSeconds | int }}
{{- if ge $timeout $grace }}
{{- fail (printf "terminationGracePeriodSeconds (%d) must be more than config.SHUTDOWN_TIMEOUT_SECS (%d), or pods are killed before they have drained: set terminationGracePeriodSeconds to %d or more" $grace $timeout (add $timeout 5)) }}
{{- end }}
{{- $known := dict "PORT" "config" "SHUTDOWN_TIMEOUT_SECS" "config" }}
{{- range $kind, $names := dict "config" $settings.config "secrets" (merge dict $settings.values $settings.existing) }}
{{- range $name, $_ := $names }}{{ $_ := set $known $name $kind }}{{ end }}
{{- end }}
{{- range $index, $entry := .Values.extraEnv }}
{{- with get $known $entry.name }}
{{- if eq . "extraEnv" }}
{{- fail (printf "extraEnv[%d]: %s is there twice" $index $entry.name) }}
{{- end }}
{{- fail (printf "extraEnv[%d]: %s is set by %s.%s: set it there only" $index $entry.name . $entry.name) }}
{{- end }}
{{- $_ := set $known $entry.name "extraEnv" }}
{{- end }}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
{{- fail "autoscaling.enabled and keda.enabled are both set, and two scalers of one Deployment fight: set one of them" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled are both set, and every pod would count twice: set one of them" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "serviceMonitor.enabled needs service.enabled; or set podMonitor.enabled in its place" }}
{{- end }}
{{- if and .Values.keda.enabled (eq .Values.keda.trigger "prometheus") (not .Values.keda.prometheus.serverAddress) }}
{{- fail "keda.prometheus.serverAddress is empty: set the address of Prometheus, or keda.trigger to sqs" }}
{{- end }}
{{- if and .Values.keda.enabled (eq .Values.keda.trigger "sqs") (not (get $settings.config "QUEUE_URL")) }}
{{- fail "keda.trigger is sqs, which needs config.QUEUE_URL and config.AWS_REGION: set both, or keda.trigger to prometheus" }}
{{- end }}
{{- if .Values.reads.enabled }}
{{- $reads := merge (include "entitlement-sync.readsConfig" . | fromJson) $settings.config }}
{{- if eq (get $reads "READ_PORT") (get $reads "PORT" | default "4000") }}
{{- fail (printf "reads.config.READ_PORT is %s, as PORT is: give each a port of its own" (get $reads "READ_PORT")) }}
{{- end }}
{{- $timeout := get $reads "SHUTDOWN_TIMEOUT_SECS" | default "8" | int }}
{{- $grace := .Values.reads.terminationGracePeriodSeconds | int }}
{{- if ge (add $timeout 5) $grace }}
{{- fail (printf "reads.terminationGracePeriodSeconds (%d) must be more than SHUTDOWN_TIMEOUT_SECS (%d) and 5 s before it, in which the Service forgets the pod: set reads.terminationGracePeriodSeconds to %d or more" $grace $timeout (add $timeout 10)) }}
{{- end }}
{{- end }}
{{- include "entitlement-sync.validateStore" . }}
{{- if eq .Values.store "memory" }}
{{- include "entitlement-sync.validateMemory" (dict "root" . "settings" $settings) }}
{{- end }}
{{- if and .Values.keda.authentication .Values.keda.authenticationRef }}
{{- fail "keda.authentication and keda.authenticationRef are both set: set one of them" }}
{{- end }}
{{- end }}

{{- /* Rejects variables that choose another store than `store`, which decides what is deployed. */ -}}
{{- define "entitlement-sync.validateStore" -}}
{{- $given := dict }}
{{- range $name := list "STORE" "MEM_OR_EXTERNAL" }}
{{- $_ := set $given (print "config." $name) (get $.Values.config $name) }}
{{- $_ := set $given (print "secrets." $name ".value") (get (default dict (get $.Values.secrets $name)) "value") }}
{{- $_ := set $given (print "persistentCache.extraEnv." $name) (get (default dict (default dict $.Values.persistentCache).extraEnv) $name) }}
{{- range $index, $entry := $.Values.extraEnv }}
{{- if eq $entry.name $name }}{{ $_ := set $given (printf "extraEnv[%d], %s," $index $name) $entry.value }}{{ end }}
{{- end }}
{{- end }}
{{- range $where, $value := $given }}
{{- $chosen := get (dict "memory" "memory" "mem" "memory" "redis" "redis") (toString $value | trim | lower) }}
{{- if and $chosen (ne $chosen $.Values.store) }}
{{- fail (printf "%s is %s, and store is %s: set store to %s, and leave the variable out" $where $value $.Values.store $chosen) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Rejects what would run a second process beside the one that is the store, or is for Redis only. */ -}}
{{- define "entitlement-sync.validateMemory" -}}
{{- $settings := .settings }}
{{- $values := .root.Values }}
{{- if ne (int $values.replicas) 1 }}
{{- fail (printf "replicas is %d, and store is memory: each pod would see only its share of the queue; set replicas to 1" (int $values.replicas)) }}
{{- end }}
{{- range list "autoscaling" "keda" "reads" }}
{{- if (get $values .).enabled }}
{{- fail (printf "%s.enabled is set, and store is memory, which is one pod: unset one of them" .) }}
{{- end }}
{{- end }}
{{- range $kind, $names := dict "config" $settings.config "secrets" (merge dict $settings.values $settings.existing) }}
{{- range $name, $_ := $names }}
{{- if and (hasPrefix "REDIS_" $name) (ne $name "REDIS_ENVIRONMENT_PREFIX") }}
{{- fail (printf "%s.%s is set, and store is memory, which uses no Redis: unset one of them" $kind $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq (get $settings.config "READ_PORT") (get $settings.config "PORT" | default "4000") }}
{{- fail (printf "memory.readPort is %s, as PORT is: give each a port of its own" (get $settings.config "READ_PORT")) }}
{{- end }}
{{- $secrets := merge dict $settings.values $settings.existing }}
{{- $key := or (get $secrets "SNAPSHOT_KEY") (get $secrets "MEM_ENCRYPTION_KEY") (get $settings.config "SNAPSHOT_KEY_FILE") $values.envFrom $values.extraEnv }}
{{- if and $values.memory.persistence.enabled (not $key) }}
{{- fail "memory.persistence.enabled needs a key: set secrets.SNAPSHOT_KEY, or memory.persistence.enabled to false" }}
{{- end }}
{{- end }}

{{- define "entitlement-sync.port" -}}
{{- get (include "entitlement-sync.settings" . | fromJson).config "PORT" | default "4000" }}
{{- end }}

{{- /* A probe with its port; its argument is a list of the probe and the root. */ -}}
{{- define "entitlement-sync.probe" -}}
{{- $probe := deepCopy (first .) }}
{{- if $probe.httpGet }}
{{- $_ := set $probe.httpGet "port" (default "http" $probe.httpGet.port) }}
{{- end }}
{{- toYaml $probe }}
{{- end }}

{{- /* Destinations that the pods may reach, for the worker and the readers. */ -}}
{{- define "entitlement-sync.egress" -}}
{{- $settings := include "entitlement-sync.settings" . | fromJson }}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    {{- if .Values.openshift }}
    # Policies see the port of the DNS pods, which differs from the port of their Service.
    - {port: 5353, protocol: UDP}
    - {port: 5353, protocol: TCP}
    {{- end }}
- ports:
    - {port: 443, protocol: TCP}
  {{- with .Values.networkPolicy.httpsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if ne .Values.store "memory" }}
- ports:
    - {port: {{ get $settings.config "REDIS_PORT" | default "6379" }}, protocol: TCP}
  {{- with .Values.networkPolicy.redisTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- if .Values.networkPolicy.podIdentity }}
- ports:
    - {port: 80, protocol: TCP}
  to:
    - ipBlock: {cidr: 169.254.170.23/32}
    - ipBlock: {cidr: "fd00:ec2::23/128"}
{{- end }}
{{- if .Values.networkPolicy.instanceMetadata }}
- ports:
    - {port: 80, protocol: TCP}
  to:
    - ipBlock: {cidr: 169.254.169.254/32}
    - ipBlock: {cidr: "fd00:ec2::254/128"}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
