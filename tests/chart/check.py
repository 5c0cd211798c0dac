"""Checks the Helm chart and compose.yaml; script/chart installs what this needs and calls it.

Usage: script/chart [--update]     (--update: rewrite the golden files and the README's table)
"""

import base64
import difflib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from worker import VARIABLES, Strict, check, finish  # noqa: E402: from the folder above

HERE = ROOT / "tests/chart"
CHART = ROOT / "helm/entitlement-sync"
UPDATE = "--update" in sys.argv[1:]
# The oldest that Chart.yaml allows and the newest that there are schemas for.
KUBERNETES = ("1.27.0", "1.37.0")
# Kinds that Kubernetes itself does not know.
CUSTOM = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PodMonitor", "PrometheusRule"}

WORKLOADS = ("Deployment", "StatefulSet")


def metrics():
    """Every series that /metrics can have."""
    text = (ROOT / "src/metrics.rs").read_text()
    fields = dict(re.findall(r"^    pub (\w+): (.+),$", text, re.M))
    names = set()
    for field, name, unit in re.findall(r'^ +(\w+) "(\w+)" "[^"]*"(?: Unit::(\w+))?;', text, re.M):
        kind = fields[field]
        name = f"entitlement_sync_{name}" + (f"_{unit.lower()}" if unit else "")
        if "Histogram" in kind:
            names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
        elif "Counter" in kind:
            names.add(f"{name}_total")
        else:
            names.add(name)
    # What is made only when someone asks has its whole name.
    scraped = re.findall(r'"(entitlement_sync_\w+)"', (ROOT / "src/metrics/scrape.rs").read_text())
    names |= set(scraped)
    if not names or not scraped:
        sys.exit("no metric could be read from src/metrics.rs or src/metrics/scrape.rs: adapt tests/chart/check.py")
    for name in re.findall(r'all\.register\(\s*"(\w+)",\s*"[^"]*",\s*Info::new', text):
        names.add(f"entitlement_sync_{name}_info")
    reads = (ROOT / "src/metrics/reads.rs").read_text()
    return names | registered_in(reads) | of_memory()


def of_memory():
    """The metrics of the state in memory, and of its snapshots."""
    snapshots, memory = (ROOT / "src/metrics/snapshots.rs").read_text().split("/// The metrics of the state in memory.")
    return registered_in(snapshots) | registered_in(memory)


def registered_in(text):
    """The same of metrics that are registered one by one."""
    prefix = re.search(r'sub_registry_with_prefix\("(\w+)"\)', text)[1]
    fields = dict(re.findall(r"^    (?:pub )?(\w+): ((?:Counter|Gauge|Histogram|Family<).*),$", text, re.M))
    registered = re.findall(r'all\.register(?:_with_unit)?\(\s*"(\w+)",\s*"[^"]*",\s*(?:Unit::(\w+),\s*)?self\.(\w+)\.clone\(\)', text)
    if len(registered) != text.count("all.register") or not registered:
        sys.exit("not every metric could be read from src/metrics/reads.rs or src/metrics/snapshots.rs: adapt tests/chart/check.py")
    names = set()
    for name, unit, field in registered:
        name = f"{prefix}_{name}" + (f"_{unit.lower()}" if unit else "")
        kind = "histogram" if "Histogram" in fields[field] else "counter" if "Counter" in fields[field] else "gauge"
        names |= {f"{name}{suffix}" for suffix in {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}[kind]}
    return names


def chart():
    return helm.Chart.load(str(CHART))


def render(values, name="demo", namespace="apps"):
    """The files of the chart that render to something, and the notes."""
    files = chart().render(values, name=name, namespace=namespace)
    files = {name.removeprefix("entitlement-sync/templates/"): text.strip() for name, text in files.items()}
    notes = files.pop("NOTES.txt", "")
    return {name: text for name, text in sorted(files.items()) if text.strip("-\n ")}, notes


def objects(files):
    return [document for text in files.values() for document in yaml.load_all(text, Loader=Strict) if document]


def values_files():
    for path in sorted((HERE / "values").glob("*.yaml")):
        yield path.stem, helm.values_from_yaml(path.read_text())


def check_lint():
    for name, values in values_files():
        report = helm.lint(str(CHART), values, strict=True)
        problems = report["errors"] + [m["error"] for m in report["messages"] if m["severity"] > 1]
        check(not problems, f"lint with {name}.yaml", *problems)
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    # A value that the schema does not know could not be overridden.
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    check(not list(jsonschema.Draft7Validator(schema).iter_errors(defaults)), "values.yaml fits values.schema.json")
    missing = set(schema["properties"]) ^ (set(defaults) | {"global"})
    check(not missing, "values.yaml and values.schema.json have the same keys", missing)


def check_golden():
    dashboard = (CHART / "files/dashboard.json").read_text().strip()
    seen = set()
    for name, values in values_files():
        files, notes = render(values)
        found = objects(files)
        for document in found:
            if document["metadata"]["name"].endswith("-dashboard"):
                text = document["data"]["entitlement-sync.json"]
                check(json.loads(text) == json.loads(dashboard), f"{name}: the dashboard arrives unchanged")
        text = "".join(f"# {line}".rstrip() + "\n" for line in notes.splitlines())
        for file, body in files.items():
            # The dashboard has a file of its own to be compared with.
            if file == "dashboard.yaml":
                body = body[: body.index("|-\n")] + "(files/dashboard.json)"
            text += f"---\n# {file}\n{body.removeprefix('---').strip()}\n"
        golden = HERE / f"golden/{name}.yaml"
        seen.add(golden)
        if UPDATE:
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(text)
        before = golden.read_text() if golden.exists() else ""
        diff = difflib.unified_diff(before.splitlines(), text.splitlines(), f"golden/{name}.yaml", "rendered", lineterm="")
        check(before == text, f"{name}: as in golden/{name}.yaml; if the change is meant: script/chart --update", "\n".join(diff))
        check_objects(name, found, values.get("openshift", False))
    stray = set((HERE / "golden").glob("*.yaml")) - seen
    check(not stray, "every golden file has its values", *stray)


EXAMPLE = """\
# Kubernetes without Helm: the chart, rendered from {} beside this file by `script/chart --update`.
# docs/install.md says what to change and how to apply it.
"""


def check_examples():
    """Compares examples/kubernetes with what the chart renders, without the labels that say that Helm made it."""
    for values, rendered, secrets in (("values.yaml", "entitlement-sync.yaml", {"stigg"}), ("values-memory.yaml", "memory.yaml", {"stigg"})):
        check_example(values, rendered, secrets)


def check_example(values, rendered, secrets):
    folder = ROOT / "examples/kubernetes"
    name = f"examples/kubernetes/{rendered}"
    files, _ = render(helm.values_from_yaml((folder / values).read_text()), "entitlement-sync", "entitlement-sync")
    head = EXAMPLE.format(values)
    text = head + "".join(f"---\n{body.removeprefix('---').strip()}\n" for body in files.values())
    text = re.sub(r"^ +(app\.kubernetes\.io/managed-by|helm\.sh/\S+): .*\n", "", text, flags=re.M)
    path = folder / rendered
    if UPDATE:
        path.write_text(text)
    before = path.read_text() if path.exists() else ""
    diff = difflib.unified_diff(before.splitlines(), text.splitlines(), name, "rendered", lineterm="")
    check(before == text, f"{name} is as the chart renders it; else: script/chart --update", "\n".join(diff))
    found = [document for document in yaml.load_all(before, Loader=Strict) if document]
    check_objects(name, found)
    check("helm" not in before.removeprefix(head).lower(), f"{name}: no trace of Helm")
    references = [reference["secretKeyRef"] for d in found if d["kind"] in WORKLOADS for reference in references_of(d)]
    check({reference["name"] for reference in references} == secrets, f"{name}: secrets are those of docs/install.md", references)
    install = (ROOT / "docs/install.md").read_text()
    for key in {reference["key"] for reference in references}:
        check(f"--from-literal={key}=" in install, f"{name}: docs/install.md creates the key {key} of the secret")
    check(f"{name}" in install, f"docs/install.md applies {name}")


def references_of(deployment):
    return [entry["valueFrom"] for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]]


def check_objects(name, found, openshift=False):
    for document in found:
        what = f"{name}: {document['kind']} {document['metadata']['name']}"
        if document["kind"] in CUSTOM:
            continue
        for version in KUBERNETES:
            # Since 1.30.
            if version == KUBERNETES[0] and "sleep" in json.dumps(document.get("spec", {})):
                continue
            try:
                kubernetes_validate.validate(document, version, strict=True)
                check(True, what)
            except kubernetes_validate.ValidationError as error:
                check(False, f"{what} is no {document['kind']} of Kubernetes {version}", error.message, list(error.path))
    identities = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in found]
    check(len(identities) == len(set(identities)), f"{name}: every object is there once", identities)
    stray = [i for i in identities if not i[1]]
    check(not stray, f"{name}: every object names its namespace", *stray)

    pods = [d for d in found if d["kind"] in (*WORKLOADS, "Pod")]
    for document in pods:
        spec = document["spec"]["template"]["spec"] if document["kind"] in WORKLOADS else document["spec"]
        restricted(f"{name}: {document['kind']} {document['metadata']['name']}", spec, openshift)
    deployments = [d for d in found if d["kind"] in WORKLOADS]
    deployment = next(d for d in deployments if d["spec"]["template"]["spec"]["containers"][0]["name"] == "worker")
    for other in deployments:
        for one in deployments:
            wanted = one["spec"]["selector"]["matchLabels"].items()
            finds = wanted <= other["spec"]["template"]["metadata"]["labels"].items()
            check(finds == (one is other), f"{name}: {one['metadata']['name']} selects its own pods only")
        if other is not deployment:
            check_readers(name, found, other, deployment)
    template = deployment["spec"]["template"]
    selector = deployment["spec"]["selector"]["matchLabels"].items()
    check(selector <= template["metadata"]["labels"].items(), f"{name}: the selector finds the pods")
    test = [d for d in found if d["kind"] == "Pod"]
    check(all(not selector <= d["metadata"]["labels"].items() for d in test), f"{name}: the selector leaves the test pod out")

    worker = template["spec"]["containers"][0]
    config = next(d for d in found if d["kind"] == "ConfigMap" and d["metadata"]["name"] == deployment["metadata"]["name"])["data"]
    names = list(config) + [entry["name"] for entry in worker.get("env", [])]
    check(len(names) == len(set(names)), f"{name}: every variable is there once", names)
    unknown = {n for n in names if not n.startswith("EXTRA_")} - set(VARIABLES)
    check(not unknown, f"{name}: every variable is one of the worker's", *unknown)
    secrets = {n for n in config if VARIABLES.get(n, {}).get("secret")}
    check(not secrets, f"{name}: no secret in the ConfigMap", *secrets)
    check(worker["ports"][0]["containerPort"] == int(config.get("PORT", 4000)), f"{name}: the port is PORT")
    timeout = int(config.get("SHUTDOWN_TIMEOUT_SECS", 8))
    check(template["spec"]["terminationGracePeriodSeconds"] > timeout, f"{name}: the grace period is long enough")


    if deployment["kind"] == "StatefulSet":
        check_memory(name, found, deployment, config, worker)


def check_memory(name, found, workload, config, worker):
    """One pod at a time, a volume for its state, and a Service that finds it."""
    spec = workload["spec"]
    check(spec["replicas"] == 1 and spec["updateStrategy"] == {"type": "RollingUpdate"} and "strategy" not in spec, f"{name}: never two pods")
    rivals = [d for d in found if d["kind"] in ("HorizontalPodAutoscaler", "ScaledObject", "PodDisruptionBudget", "Deployment")]
    check(not rivals, f"{name}: nothing scales the pod or blocks its node", *rivals)
    check(config["STORE"] == "memory" and not [n for n in config if n.startswith("REDIS_")], f"{name}: no Redis", config)
    ports = {port["name"]: port["containerPort"] for port in worker["ports"]}
    check(ports["reads"] == int(config["READ_PORT"]), f"{name}: the port of the answers is READ_PORT", ports)
    claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    mounts = {mount["mountPath"] for mount in worker["volumeMounts"] if mount["name"] in claims}
    check(mounts == {config["SNAPSHOT_PATH"]}, f"{name}: SNAPSHOT_PATH is on the volume", mounts)
    check("SNAPSHOT_KEY" in {entry["name"] for entry in worker["env"]}, f"{name}: the key comes from a Secret")
    probe = worker["startupProbe"]
    check(probe["httpGet"]["path"] == "/livez" and probe["periodSeconds"] * probe["failureThreshold"] >= 600, f"{name}: a restore may take ten minutes", probe)
    for probe, port in (("startupProbe", "http"), ("livenessProbe", "http"), ("readinessProbe", "reads")):
        # PORT is not ready without the queue, while READ_PORT still answers: the only pod must stay in its Service.
        check(worker[probe]["httpGet"]["port"] == port, f"{name}: {probe} asks the port {port}", worker[probe])
    services = [d for d in found if d["kind"] == "Service"]
    check(spec["serviceName"] in {d["metadata"]["name"] for d in services}, f"{name}: the Service of the StatefulSet is there")
    answers = next(d for d in services if d["metadata"]["name"].endswith("-reads"))["spec"]
    labels = spec["template"]["metadata"]["labels"].items()
    check(answers["selector"].items() <= labels and answers["ports"][0]["targetPort"] == "reads", f"{name}: the Service finds the answers")
    for policy in (d["spec"] for d in found if d["kind"] == "NetworkPolicy"):
        check("reads" in json.dumps(policy["ingress"]) and "6379" not in json.dumps(policy), f"{name}: the policy allows readers, and no Redis")


def check_readers(name, found, deployment, worker):
    """What makes the pods of `reads` reachable, and what they must not have."""
    own = deployment["metadata"]["name"]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    pod = deployment["spec"]["template"]["spec"]
    reader = pod["containers"][0]
    data = {d["metadata"]["name"]: d["data"] for d in found if d["kind"] == "ConfigMap"}
    # Of two sources of a variable the later one wins.
    config = {k: v for source in reader["envFrom"] if "configMapRef" in source for k, v in data[source["configMapRef"]["name"]].items()}
    secrets = {entry["name"] for entry in reader.get("env", [])}
    unknown = (set(config) | secrets) - set(VARIABLES)
    check(not unknown, f"{name}: every variable of the readers is one of ours", *unknown)
    check(not {n for n in secrets if n.startswith(("AWS_", "OTEL_"))}, f"{name}: readers have no keys of the queue", secrets)
    check("READ_API_KEYS" not in secrets, f"{name}: the keys of readers come by a file, which changes without a restart")
    ports = {port["name"]: port["containerPort"] for port in reader["ports"]}
    check(reader["args"] == ["serve"] and ports == {"reads": int(config["READ_PORT"]), "http": int(config.get("PORT", 4000))}, f"{name}: serve, and its ports", ports)
    for probe in ("livenessProbe", "readinessProbe"):
        # On PORT: its /readyz is DOWN from SIGTERM on, while READ_PORT still answers what was asked.
        check(reader[probe]["httpGet"]["port"] == "http", f"{name}: {probe} of the readers asks PORT")
    check(reader["resources"]["limits"]["memory"] == "256Mi", f"{name}: readers have a memory limit")
    if path := config.get("READ_API_KEYS_FILE"):
        mount = next(m for m in reader["volumeMounts"] if path.startswith(m["mountPath"] + "/"))
        volume = next(v for v in pod["volumes"] if v["name"] == mount["name"])
        check(volume["secret"]["items"][0]["path"] == path.rsplit("/", 1)[1], f"{name}: READ_API_KEYS_FILE is mounted", volume)
        check("subPath" not in mount, f"{name}: the file follows its Secret")
    pause = reader.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    timeout = int(config.get("SHUTDOWN_TIMEOUT_SECS", 8))
    check(pod["terminationGracePeriodSeconds"] > timeout + pause, f"{name}: the grace period of the readers is long enough")
    check(pod["serviceAccountName"] != worker["spec"]["template"]["spec"]["serviceAccountName"], f"{name}: readers have no role of the queue")
    service = next(d for d in found if d["kind"] == "Service" and d["metadata"]["name"] == own)
    check(service["spec"]["selector"].items() <= labels, f"{name}: the Service finds the readers")
    for monitor in (d for d in found if d["kind"] in ("ServiceMonitor", "PodMonitor") and d["metadata"]["name"] == own):
        target = service["metadata"]["labels"] if monitor["kind"] == "ServiceMonitor" else dict(labels)
        check(monitor["spec"]["selector"]["matchLabels"].items() <= target.items(), f"{name}: the monitor finds the readers")
        if monitor["kind"] == "ServiceMonitor":
            check("http" in [port["name"] for port in service["spec"]["ports"]], f"{name}: the Service has the port of the metrics")
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for document in (d for d in found if d["kind"] == kind and d["metadata"]["name"] == own):
            spec = document["spec"]
            selector = spec["selector" if kind == "PodDisruptionBudget" else "podSelector"]["matchLabels"]
            check(selector.items() <= labels, f"{name}: the {kind} finds the readers")
    for document in (d for d in found if d["kind"] == "HorizontalPodAutoscaler" and d["metadata"]["name"] == own):
        check(document["spec"]["scaleTargetRef"]["name"] == own and "replicas" not in deployment["spec"], f"{name}: readers are scaled")
    spread = [constraint["labelSelector"]["matchLabels"].items() <= labels for constraint in pod.get("topologySpreadConstraints", [])]
    check(spread and all(spread), f"{name}: readers are spread")


def restricted(what, spec, openshift):
    """The restricted Pod Security Standard, for what the chart itself brings."""
    pod = spec["securityContext"]
    if openshift:
        # The SCC restricted-v2 allows these fields, and sets the ids from the namespace's own range.
        check(set(pod) == {"runAsNonRoot", "seccompProfile"} and pod["runAsNonRoot"], f"{what}: no id that restricted-v2 refuses", pod)
    else:
        check(pod["runAsNonRoot"] and pod["runAsUser"] > 0, f"{what}: a numeric user who is not root")
    check(pod["seccompProfile"]["type"] == "RuntimeDefault", f"{what}: seccomp")
    check(spec["automountServiceAccountToken"] is False, f"{what}: no token")
    check(spec["enableServiceLinks"] is False, f"{what}: no service links")
    context = spec["containers"][0]["securityContext"]
    check(
        context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        f"{what}: restricted container",
        context,
    )


MEMORY = {"store": "memory", "replicas": 1, "secrets": {"SNAPSHOT_KEY": {"value": "a passphrase of some length"}}}
REFUSED = [
    # What is wrong, the values, what the message must hold.
    ("a timeout as long as the grace period", {"config": {"SHUTDOWN_TIMEOUT_SECS": 30}}, ["terminationGracePeriodSeconds", "config.SHUTDOWN_TIMEOUT_SECS (30)", "35 or more"]),
    ("the same as text", {"config": {"SHUTDOWN_TIMEOUT_SECS": "40"}}, ["set terminationGracePeriodSeconds to 45 or more"]),
    ("a short grace period", {"terminationGracePeriodSeconds": 20}, ["terminationGracePeriodSeconds (20)"]),
    ("a grace period below the worker's own default", {"terminationGracePeriodSeconds": 8, "config": {"SHUTDOWN_TIMEOUT_SECS": None}}, ["config.SHUTDOWN_TIMEOUT_SECS (8)"]),
    ("a secret among config", {"config": {"REDIS_PASSWORD": "x"}}, ["config.REDIS_PASSWORD is a secret", "secrets.REDIS_PASSWORD"]),
    ("a secret twice", {"secrets": {"SENTRY_DSN": {"value": "x", "existingSecret": {"name": "y"}}}}, ["secrets.SENTRY_DSN.value", "secrets.SENTRY_DSN.existingSecret.name"]),
    ("PORT in extraEnv", {"extraEnv": [{"name": "PORT", "value": "1"}]}, ["extraEnv[0]", "config.PORT"]),
    ("SHUTDOWN_TIMEOUT_SECS in extraEnv", {"config": {"SHUTDOWN_TIMEOUT_SECS": ""}, "extraEnv": [{"name": "SHUTDOWN_TIMEOUT_SECS", "value": "1"}]}, ["extraEnv[0]", "config.SHUTDOWN_TIMEOUT_SECS"]),
    ("a variable of config in extraEnv", {"config": {"REDIS_HOST": "a"}, "extraEnv": [{"name": "A", "value": "1"}, {"name": "REDIS_HOST", "value": "b"}]}, ["extraEnv[1]", "config.REDIS_HOST"]),
    ("a variable of secrets in extraEnv", {"secrets": {"SERVER_API_KEY": {"value": "a"}}, "extraEnv": [{"name": "SERVER_API_KEY", "value": "b"}]}, ["secrets.SERVER_API_KEY"]),
    ("a variable twice in extraEnv", {"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, ["extraEnv[1]", "A is there twice"]),
    ("two scalers", {"autoscaling": {"enabled": True}, "keda": {"enabled": True}}, ["autoscaling.enabled", "keda.enabled"]),
    ("two scrapers", {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}, ["serviceMonitor.enabled", "podMonitor.enabled"]),
    ("a ServiceMonitor without a Service", {"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}, ["service.enabled"]),
    ("KEDA without Prometheus", {"keda": {"enabled": True, "trigger": "prometheus"}}, ["keda.prometheus.serverAddress"]),
    ("KEDA without a queue", {"keda": {"enabled": True}}, ["config.QUEUE_URL"]),
    ("KEDA with two authentications", {"keda": {"enabled": True, "trigger": "prometheus", "prometheus": {"serverAddress": "http://p"}, "authentication": {"a": 1}, "authenticationRef": {"name": "a"}}}, ["keda.authentication", "keda.authenticationRef"]),
    ("two pods that are the store", {"store": "memory"}, ["replicas is 2", "store is memory", "set replicas to 1"]),
    ("a scaler of the store", {**MEMORY, "autoscaling": {"enabled": True}}, ["autoscaling.enabled", "store is memory"]),
    ("KEDA with the store in memory", {**MEMORY, "keda": {"enabled": True, "trigger": "prometheus", "prometheus": {"serverAddress": "http://p"}}}, ["keda.enabled", "store is memory"]),
    ("readers of a store in memory", {**MEMORY, "reads": {"enabled": True}}, ["reads.enabled", "store is memory"]),
    ("Redis with the store in memory", {**MEMORY, "config": {"REDIS_HOST": "a"}}, ["config.REDIS_HOST", "uses no Redis"]),
    ("a secret of Redis with the store in memory", {**MEMORY, "secrets": {"REDIS_URL": {"value": "redis://a"}}}, ["secrets.REDIS_URL", "uses no Redis"]),
    ("a port of answers that is PORT", {**MEMORY, "memory": {"readPort": 4000}}, ["memory.readPort is 4000"]),
    ("a volume without a key", {**MEMORY, "secrets": {"SNAPSHOT_KEY": {"value": ""}}}, ["secrets.SNAPSHOT_KEY", "memory.persistence.enabled"]),
    ("memory mode without its store", {"config": {"STORE": "memory", "READ_PORT": 4001}}, ["config.STORE is memory, and store is redis", "set store to memory"]),
    ("the same by the other name", {"config": {"MEM_OR_EXTERNAL": "MEM", "READ_PORT": 4001}}, ["config.MEM_OR_EXTERNAL is MEM, and store is redis", "set store to memory"]),
    ("the same in extraEnv", {"extraEnv": [{"name": "A", "value": "1"}, {"name": "MEM_OR_EXTERNAL", "value": "mem"}]}, ["extraEnv[1], MEM_OR_EXTERNAL, is mem", "set store to memory"]),
    ("the same in the vendor's extraEnv", {"persistentCache": {"extraEnv": {"STORE": "memory"}}}, ["persistentCache.extraEnv.STORE is memory", "set store to memory"]),
    ("the same as a secret", {"secrets": {"STORE": {"value": "memory"}}}, ["secrets.STORE.value is memory", "set store to memory"]),
    ("Redis as the store of memory mode", {**MEMORY, "config": {"STORE": "redis"}}, ["config.STORE is redis, and store is memory", "set store to redis"]),
    ("a store that is none", {"store": "disk"}, ["/store"]),
    ("a read port that is PORT", {"reads": {"enabled": True, "config": {"READ_PORT": 4000}}}, ["reads.config.READ_PORT", "4000"]),
    ("a secret among reads.config", {"reads": {"enabled": True, "config": {"READ_API_KEYS": "x"}}}, ["reads.config.READ_API_KEYS is a secret", "secrets.READ_API_KEYS"]),
    ("readers with a short grace period", {"reads": {"enabled": True, "terminationGracePeriodSeconds": 30}}, ["reads.terminationGracePeriodSeconds (30)", "35 or more"]),
    ("a pod setting of readers that is none", {"reads": {"pods": {"replicas": 2}}}, ["/reads/pods", "replicas"]),
    ("an alert that is none", {"prometheusRule": {"enabled": True, "disabled": ["Lag"]}}, ["prometheusRule.disabled", "Lag", "EntitlementSyncLagHigh"]),
    ("the vendor's extraEnv with a name that is none", {"persistentCache": {"extraEnv": {"a b": "1"}}}, ["persistentCache.extraEnv.a b"]),
    # By values.schema.json.
    ("a value that is none", {"replicaCount": 2}, ["replicaCount"]),
    ("a value that is none, further down", {"image": {"name": "x"}}, ["image", "name"]),
    ("scaling to zero", {"keda": {"minReplicas": 0}}, ["/keda/minReplicas"]),
    ("a digest that is none", {"image": {"digest": "latest"}}, ["/image/digest"]),
    ("a port out of range", {"config": {"PORT": 70000}}, ["/config/PORT"]),
    ("a shutdown of ten minutes", {"config": {"SHUTDOWN_TIMEOUT_SECS": 600}}, ["/config/SHUTDOWN_TIMEOUT_SECS"]),
    ("a URL that is none", {"config": {"QUEUE_URL": "entitlements"}}, ["/config/QUEUE_URL"]),
    ("a list as a variable", {"config": {"REDIS_HOST": ["a"]}}, ["/config/REDIS_HOST"]),
    ("a secret that is a number", {"secrets": {"SERVER_API_KEY": {"value": 1}}}, ["/secrets/SERVER_API_KEY/value"]),
    ("an eviction policy that is none", {"pdb": {"unhealthyPodEvictionPolicy": "Always"}}, ["/pdb/unhealthyPodEvictionPolicy"]),
    ("an extraEnv without a name", {"extraEnv": [{"value": "x"}]}, ["/extraEnv/0", "name"]),
]


def check_refused():
    for what, values, wanted in REFUSED:
        try:
            loaded = chart()
            loaded.validate_schema(values)
            loaded.render(values, name="demo", namespace="apps")
            check(False, f"{what} is refused")
        except helm.HelmError as error:
            missing = [text for text in wanted if text not in str(error)]
            check(not missing, f"{what} is refused, and the message names the value", f"missing {missing} in:", error)


def check_variables():
    listed = yaml.safe_load((CHART / "values.yaml").read_text())
    for name in list(listed["config"]) + list(listed["secrets"]):
        check(name in VARIABLES, f"values.yaml: {name} is a variable of the worker")
    for name, variable in VARIABLES.items():
        if variable["secret"]:
            check(name in listed["secrets"], f"values.yaml: the secret {name} is listed in secrets")
    # Every variable at once, each with a value that no other has.
    wanted = {name: f"value-of-{name}" for name in VARIABLES}
    wanted |= {"PORT": "4321", "SHUTDOWN_TIMEOUT_SECS": "9", "QUEUE_URL": "https://value-of-QUEUE_URL"}
    config = {name: value for name, value in wanted.items() if name not in listed["secrets"]}
    secrets = {name: {"value": wanted[name]} for name in listed["secrets"]}
    values = {"config": config, "secrets": secrets}
    chart().validate_schema(values)
    found = objects(render(values)[0])
    data = next(d for d in found if d["kind"] == "ConfigMap")["data"]
    worker = next(d for d in found if d["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
    references = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in worker["env"]}
    stored = next(d for d in found if d["kind"] == "Secret")
    check(worker["envFrom"] == [{"configMapRef": {"name": "demo-entitlement-sync"}}], "the worker reads the ConfigMap")
    for name, value in wanted.items():
        if name in listed["secrets"]:
            key = references[name]["key"]
            good = references[name]["name"] == stored["metadata"]["name"] and base64.b64decode(stored["data"][key]).decode() == value
        else:
            good = data.get(name) == value
        check(good, f"{name} can be set and arrives")


def check_metrics():
    known = metrics()
    rules = yaml.load((CHART / "files/alerts.yaml").read_text(), Loader=Strict)
    used = {("alert " + r["alert"], name) for g in rules["groups"] for r in g["rules"] for name in series(r["expr"])}
    dashboard = json.loads((CHART / "files/dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            names = series(target["expr"])
            check(names, f"dashboard, {panel['title']}: an expression with a metric")
            used |= {(f"dashboard, {panel['title']}", name) for name in names}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            used |= {(f"dashboard, variable {variable['name']}", name) for name in series(variable["query"]["query"])}
    used |= {("keda.yaml", name) for name in series((CHART / "templates/keda.yaml").read_text())}
    for where, name in sorted(used):
        check(name in known, f"{where}: {name} is a metric of src/metrics")
    shown = {name for where, name in used if where.startswith("dashboard")}
    hidden = {name for name in of_memory() if not name.endswith(("_written_total", "_duration_seconds"))} - shown
    check(not hidden, "dashboard: it shows the metrics of memory mode", *hidden)
    ids = [panel["id"] for panel in dashboard["panels"]]
    check(len(ids) == len(set(ids)), "dashboard: every panel has an id of its own")
    cells = [
        (x, y)
        for p in dashboard["panels"]
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    check(len(cells) == len(set(cells)) and max(cells)[0] < 24, "dashboard: no panel lies on another")
    names = [r["alert"] for g in rules["groups"] for r in g["rules"]]
    check(len(names) == len(set(names)), "every alert is there once")
    for group in rules["groups"]:
        for rule in group["rules"]:
            whole = rule["labels"].get("severity") in ("critical", "warning") and {"summary", "description"} <= set(rule["annotations"])
            check(whole, f"alert {rule['alert']}: severity, summary and description")
    tests = (HERE / "alerts_test.yaml").read_text()
    for name in names:
        check(f'alertname="{name}"' in tests, f"alert {name}: a case in alerts_test.yaml in which it fires")
    promtool(CHART / "files/alerts.yaml")


def series(expression):
    return set(re.findall(r"\bentitlement_sync_\w+", expression))


def promtool(alerts):
    if not shutil.which("promtool"):
        # Where nobody looks, what was not checked must not pass for good.
        if os.environ.get("CI"):
            check(False, "promtool is there: apt-get install prometheus")
        else:
            print("SKIP  promtool is not there: apt-get install prometheus")
        return
    for arguments in (["check", "rules", str(alerts)], ["test", "rules", str(HERE / "alerts_test.yaml")]):
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
        check(done.returncode == 0, "promtool " + " ".join(arguments[:2]), done.stdout, done.stderr)


BEGIN = "<!-- values: made from values.yaml by `script/chart --update` -->\n"
END = "<!-- values: end -->\n"


def table():
    """The rows of values.yaml: `## Title`, `# -- text`, and keys by their indentation."""
    source = (CHART / "values.yaml").read_text()
    lines = source.splitlines() + [""]
    out, text, reading, path = [], "", False, []
    # Deeper than this, a line belongs to a list, which is shown as a whole.
    depth_of_list = None
    for line, following in zip(lines, lines[1:]):
        depth = (len(line) - len(line.lstrip())) // 2
        if depth_of_list is not None and line.strip() and depth > depth_of_list:
            continue
        depth_of_list = None
        match = re.match(r'^ *"?([A-Za-z_][\w./-]*)"?:(?: (.*))?$', line)
        if line.startswith("## "):
            out += ["", f"### {line[3:]}", "", "| value | default | |", "|---|---|---|"]
        elif line.lstrip().startswith("# -- "):
            text, reading = line.lstrip()[5:], True
        elif line.lstrip().startswith("# ") and reading:
            text += " " + line.lstrip()[2:]
        elif match:
            path = path[:depth] + [match[1]]
            default = (match[2] or "").strip()
            if following.strip().startswith("- "):
                depth_of_list = depth
                value = yaml.safe_load(source)
                for part in path:
                    value = value[part]
                default = json.dumps(value)
            if not text and len(path) == 2 and path[0] in ("config", "secrets"):
                text = VARIABLES[path[1]]["about"]
            if text or default:
                shown = f" `{default}`" if default not in ("", '""') else ""
                out.append(f"| `{'.'.join(path)}` |{shown} |{' ' if text else ''}{text} |")
            text, reading = "", False
        else:
            text, reading = "", False
    return "\n".join(out).strip() + "\n"


def check_readme():
    path = CHART / "README.md"
    text = path.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    wanted = head + BEGIN + "\n" + table() + "\n" + END + tail
    if UPDATE:
        path.write_text(wanted)
        text = wanted
    check(text == wanted, "README.md of the chart is up to date; else: script/chart --update")
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    check(chart().metadata["appVersion"] == version, f"Chart.yaml: appVersion is Cargo.toml's {version}")
    # What the README says of the vendor's values is what happens.
    files, notes = render(dict(values_files())["vendor"])
    found = objects(files)
    data = next(d for d in found if d["kind"] == "ConfigMap" and d["metadata"]["name"] == "demo-entitlement-sync")["data"]
    wanted = {
        "AWS_REGION": "us-east-2", "QUEUE_URL": "https://sqs.us-east-2.amazonaws.com/123456789012/entitlements",
        "ENVIRONMENT_PREFIX": "production", "REDIS_HOST": "redis.example.com", "REDIS_PORT": "6379", "REDIS_DB": "1",
        "REDIS_USER": "default", "REDIS_TLS": "false", "BATCH_SIZE": "10", "KEYS_TTL_IN_SECS": "604800",
        "LOG_LEVEL": "debug", "PORT": "4000", "SHUTDOWN_TIMEOUT_SECS": "25",
    }
    check(data == wanted, "the vendor's values arrive", data)
    stored = next(d for d in found if d["kind"] == "Secret")["data"]
    check(set(stored) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "REDIS_PASSWORD"}, "the vendor's secrets arrive", stored)
    for unused in ("imageTag", "deploymentResources", "deploymentHPA", "enabled"):
        check(f"persistentCache.{unused}" in notes, f"the notes say that persistentCache.{unused} is not used")


def check_compose():
    text = (ROOT / "compose.yaml").read_text()
    compose = yaml.load(text, Loader=Strict)
    check(set(compose) <= {"name", "services", "configs", "volumes", "networks"}, "compose: known sections", list(compose))
    services = compose["services"]
    known = {
        "build", "image", "environment", "ports", "read_only", "cap_drop", "security_opt", "mem_limit", "stop_grace_period",
        "restart", "command", "entrypoint", "healthcheck", "configs", "depends_on",
    }
    built = {service.get("image") for service in services.values() if "build" in service}
    for name, service in services.items():
        check(set(service) <= known, f"compose: {name} has known keys", set(service) - known)
        check("build" in service or service["image"] in built or re.search(r":[^:/]*\d", service["image"]), f"compose: {name} has a version")
        for port in service.get("ports", []):
            check(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), f"compose: {name} is published on loopback only", port)
        values = service.get("environment", {})
        check(all(isinstance(v, str) for v in values.values()), f"compose: the variables of {name} are text", values)
        for other, condition in service.get("depends_on", {}).items():
            check(other in services, f"compose: {name} depends on {other}, which there is")
            if condition["condition"] == "service_healthy":
                check("healthcheck" in services[other], f"compose: {other} has a health check")
        for config in service.get("configs", []):
            check(config["source"] in compose["configs"], f"compose: the config {config['source']} is there")
    worker = services["worker"]
    unknown = set(worker["environment"]) - set(VARIABLES)
    check(not unknown, "compose: the worker's variables exist", unknown)
    required = {n for n, v in VARIABLES.items() if v["need"] == "Required"}
    check(required <= set(worker["environment"]), "compose: the worker's required variables are set", required)
    timeout = int(worker["environment"].get("SHUTDOWN_TIMEOUT_SECS", VARIABLES["SHUTDOWN_TIMEOUT_SECS"]["default"]))
    check(int(worker["stop_grace_period"].rstrip("s")) > timeout, "compose: the grace period is long enough")
    reader = services["reader"]
    unknown = set(reader["environment"]) - set(VARIABLES)
    check(not unknown, "compose: the reader's variables exist", unknown)
    check(reader["command"] == ["serve"] and reader["image"] == worker["image"], "compose: the reader is the worker's image as serve")
    for name in ("ENVIRONMENT_PREFIX", "REDIS_HOST"):
        check(reader["environment"][name] == worker["environment"][name], f"compose: reader and worker have one {name}")
    read_port = reader["environment"].get("READ_PORT", "4001")
    check(reader["ports"] == [f"127.0.0.1:{read_port}:{read_port}"], "compose: the reader is published")
    timeout = int(reader["environment"].get("SHUTDOWN_TIMEOUT_SECS", VARIABLES["SHUTDOWN_TIMEOUT_SECS"]["default"]))
    check(int(reader["stop_grace_period"].rstrip("s")) > timeout, "compose: the reader's grace period is long enough")
    check(worker["environment"]["QUEUE_URL"] == services["story"]["environment"]["QUEUE_URL"], "compose: one queue")
    check(worker["environment"]["ENVIRONMENT_PREFIX"] == services["story"]["environment"]["PREFIX"], "compose: one prefix")
    queue = worker["environment"]["QUEUE_URL"].rsplit("/", 1)[1]
    check(f"{queue} {{" in compose["configs"]["elasticmq"]["content"], "compose: ElasticMQ is told of the queue")
    # Compose replaces $NAME itself; what the shell is to see has two.
    script = services["story"]["command"][0]
    check("$" not in script.replace("$$", ""), "compose: no variable of the story is replaced by compose")
    done = subprocess.run(["sh", "-n", "-c", script.replace("$$", "$")], capture_output=True, text=True)
    check(done.returncode == 0, "compose: the story is a shell script", done.stderr)


if __name__ == "__main__":
    for part in (check_readme, check_lint, check_golden, check_examples, check_refused, check_variables, check_metrics, check_compose):
        part()
    finish()
