"""Checks examples/ and docs/install.md; script/examples installs what this needs and calls it.

examples/kubernetes is rendered from the chart, so script/chart checks it.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import botocore.session
import botocore.validate
import hcl2

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from worker import VARIABLES, check, finish  # noqa: E402: from the folder above

EXAMPLES = ROOT / "examples"
# Of 10. What is left: the network, which the worker needs, and the root folder of the host.
MAX_EXPOSURE = 1.1
MAX_LINES = 10
# Memory that Fargate has beside a quarter and a half of a CPU.
FARGATE = {"256": {"512", "1024", "2048"}, "512": {"1024", "2048", "3072", "4096"}}
ECS = botocore.session.get_session().get_service_model("ecs")


def shape_problems(value, shape):
    """What botocore's own validator says, and words that are in none of the service's lists, which it does not look at."""
    report = botocore.validate.ParamValidator().validate(value, shape)
    problems = [report.generate_report()] if report.has_errors() else []

    def walk(value, shape, path):
        if shape.type_name == "structure" and isinstance(value, dict):
            for name, inner in value.items():
                if name in shape.members:
                    walk(inner, shape.members[name], f"{path}.{name}")
                else:
                    problems.append(f"{path}.{name} is not known to ECS")
        elif shape.type_name == "list" and isinstance(value, list):
            for index, inner in enumerate(value):
                walk(inner, shape.member, f"{path}[{index}]")
        elif shape.type_name == "string" and shape.enum and value not in shape.enum:
            problems.append(f"{path}: {value} is none of {', '.join(shape.enum)}")

    walk(value, shape, shape.name)
    return problems


def check_container(what, container, secret):
    """Checks a container definition of ECS against the worker itself."""
    environment = {entry["name"]: entry["value"] for entry in container["environment"]}
    secrets = {entry["name"]: entry["valueFrom"] for entry in container["secrets"]}
    unknown = (set(environment) | set(secrets)) - set(VARIABLES)
    check(not unknown, f"{what}: every variable is one of the worker's", *unknown)
    check(not [n for n in environment if VARIABLES[n]["secret"]], f"{what}: no secret among the plain variables")
    check(all(VARIABLES[name]["secret"] for name in secrets), f"{what}: what comes from Secrets Manager is a secret", *secrets)
    required = {name for name, variable in VARIABLES.items() if variable["need"] == "Required"}
    if environment.get("STORE") == "memory":
        required.remove("REDIS_HOST")
    missing = required - set(environment) - set(secrets)
    check(not missing, f"{what}: the required variables are set", *missing)
    for name, reference in secrets.items():
        check(reference == f"{secret}:{name}::", f"{what}: {name} is a JSON key of the secret that the role may read", reference)
    timeout = int(environment["SHUTDOWN_TIMEOUT_SECS"])
    check(timeout < container["stopTimeout"] <= 120, f"{what}: stopTimeout leaves time to drain, and Fargate allows it")
    dockerfile = (ROOT / "Dockerfile").read_text()
    asked = json.loads(re.search(r"HEALTHCHECK[^[]*CMD (\[.*\])", dockerfile)[1])
    check(container["healthCheck"]["command"] == ["CMD", *asked], f"{what}: the health check is the image's own")
    check(container["user"] == re.search(r"^USER (.*)$", dockerfile, re.M)[1], f"{what}: the user is the image's own")
    check(container["readonlyRootFilesystem"] is True, f"{what}: a root file system that is read only")
    check(container["linuxParameters"] == {"capabilities": {"drop": ["ALL"]}}, f"{what}: no capabilities")
    ports = [int(environment.get("PORT", VARIABLES["PORT"]["default"]))]
    if "READ_PORT" in environment:
        ports.append(int(environment["READ_PORT"]))
    check([p["containerPort"] for p in container["portMappings"]] == ports, f"{what}: the ports are PORT and READ_PORT")


def queue_actions():
    """The actions on the queue that docs/operations.md lists."""
    block = re.search(r"```json\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.S)[1]
    return set(json.loads(block)["Statement"][0]["Action"])


def check_ecs():
    folder = EXAMPLES / "ecs"
    read = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    for kind in ("", "-memory"):
        check_ecs_service(read, f"task-definition{kind}.json", f"service{kind}.json")
    check_ecs_memory(read["task-definition-memory.json"], read["service-memory.json"])


def check_ecs_service(read, of_task, of_service):
    task, service = read[of_task], read[of_service]
    for name, operation in ((of_task, "RegisterTaskDefinition"), (of_service, "CreateService")):
        problems = shape_problems(read[name], ECS.operation_model(operation).input_shape)
        check(not problems, f"ecs/{name} is an input of {operation}", *problems)
    check(task["requiresCompatibilities"] == ["FARGATE"] and task["networkMode"] == "awsvpc", f"ecs/{of_task} is for Fargate")
    check(task["memory"] in FARGATE.get(task["cpu"], ()), f"ecs/{of_task}: Fargate has this memory beside this CPU", task["cpu"], task["memory"])
    check(service["taskDefinition"] == task["family"], f"ecs/{of_service} runs the task")
    readable = read["execution-role.json"]["Statement"][0]
    check(readable["Action"] == "secretsmanager:GetSecretValue", "ecs: the execution role reads the secret")
    container = task["containerDefinitions"][0]
    check_container(f"ecs/{of_task}", container, readable["Resource"])
    allowed = read["task-role.json"]["Statement"][0]
    check(set(allowed["Action"]) == queue_actions(), "ecs: the task role has the actions of docs/operations.md", allowed["Action"])
    environment = {entry["name"]: entry["value"] for entry in container["environment"]}
    queue = ":".join(["arn:aws:sqs", environment["AWS_REGION"], *environment["QUEUE_URL"].split("/")[-2:]])
    check(allowed["Resource"] == queue, f"ecs/{of_task}: the task role is for its queue", allowed["Resource"], queue)


def check_ecs_memory(task, service):
    """Checks that one task runs at a time, with its state on a volume that survives the task."""
    container = task["containerDefinitions"][0]
    environment = {entry["name"]: entry["value"] for entry in container["environment"]}
    check(environment["STORE"] == "memory" and not [n for n in environment if n.startswith("REDIS_")], "ecs: memory mode has no Redis", environment)
    check("SNAPSHOT_KEY" in {entry["name"] for entry in container["secrets"]}, "ecs: the key of memory mode comes from Secrets Manager")
    # Of a service, an EBS volume is new for each task.
    lasting = {volume["name"] for volume in task["volumes"] if "efsVolumeConfiguration" in volume}
    mounts = {mount["containerPath"] for mount in container["mountPoints"] if mount["sourceVolume"] in lasting}
    check(mounts == {environment["SNAPSHOT_PATH"]}, "ecs: SNAPSHOT_PATH is on EFS", mounts)
    deployment = service["deploymentConfiguration"]
    bounds = (service["desiredCount"], deployment["minimumHealthyPercent"], deployment["maximumPercent"])
    check(bounds == (1, 0, 100), "ecs: never two tasks in memory mode", bounds)
    probe = container["healthCheck"]
    check(probe["startPeriod"] + probe["interval"] * probe["retries"] >= 600, "ecs: a restore may take ten minutes", probe)


def encoded(expression):
    """What a jsonencode() of Terraform makes, with each reference as its own text."""
    text = re.fullmatch(r"\$\{jsonencode\((.*)\)\}", expression, re.S)[1]
    text = re.sub(r"([{,]\s*)([\w-]+) = ", r'\1"\2": ', text)
    text = re.sub(r"(: |[\[,] ?)((?:var|local|aws_\w+)\.[\w.]+)", r'\1"\2"', text)
    return json.loads(text)


def unquoted(text):
    return text.strip('"')


def check_terraform():
    folder = EXAMPLES / "terraform"
    parsed = {path.name: hcl2.loads(path.read_text()) for path in sorted(folder.glob("*.tf"))}
    resources, declared, local_names = {}, set(), set()
    for document in parsed.values():
        for block in document.get("resource", []):
            for kind, named in block.items():
                for name, body in named.items():
                    resources[f"{unquoted(kind)}.{unquoted(name)}"] = body
        declared |= {unquoted(name) for block in document.get("variable", []) for name in block}
        local_names |= {name for block in document.get("locals", []) for name in block if not name.startswith("__")}
    text = json.dumps([body for body in resources.values()])
    used = set(re.findall(r"\bvar\.(\w+)", text))
    check(used == declared, "terraform: every variable is declared and used", used ^ declared)
    used = set(re.findall(r"\blocal\.(\w+)", text))
    check(used == local_names, "terraform: every local is declared and used", used ^ local_names)
    references = set(re.findall(r"\b(aws_\w+\.\w+)\.\w+", text))
    check(references <= set(resources), "terraform: every reference leads to a resource", references - set(resources))

    redrive = encoded(resources["aws_sqs_queue.events"]["redrive_policy"])
    check(redrive["deadLetterTargetArn"] == "aws_sqs_queue.dead_letters.arn", "terraform: the queue has a dead-letter queue", redrive)
    limit = int(VARIABLES["MAX_RECEIVE_COUNT"]["default"])
    check(redrive["maxReceiveCount"] >= limit, "terraform: the redrive policy leaves the worker its deliveries", redrive)
    sending = encoded(resources["aws_sqs_queue_policy.events"]["policy"])["Statement"]
    check([s["Action"] for s in sending] == ["sqs:SendMessage"], "terraform: the queue policy allows sending only", sending)
    check(sending[0]["Principal"] == {"AWS": "var.sender_arns"}, "terraform: only the source sends", sending)
    allowed = encoded(resources["aws_iam_role_policy.queue"]["policy"])["Statement"][0]
    check(set(allowed["Action"]) == queue_actions(), "terraform: the role has the actions of docs/operations.md", allowed)

    task = resources["aws_ecs_task_definition.worker"]
    check(str(task["memory"]) in FARGATE.get(str(task["cpu"]), ()), "terraform: Fargate has this memory beside this CPU")
    containers = encoded(task["container_definitions"])
    shape = ECS.operation_model("RegisterTaskDefinition").input_shape.members["containerDefinitions"]
    problems = shape_problems(containers, shape)
    check(not problems, "terraform: container_definitions is known to ECS", *problems)
    check_container("terraform: container", containers[0], "${var.secret_arn}")


def settings_of(unit):
    """Every `Environment=` of a unit."""
    words = " ".join(re.findall(r"^Environment=(.*)$", unit, re.M)).split()
    return dict(word.split("=", 1) for word in words)


def check_systemd():
    folder = EXAMPLES / "systemd"
    unit = (folder / "entitlement-sync.service").read_text()
    lines = [line for line in (folder / "environment").read_text().splitlines() if not line.startswith("#")]
    environment = dict(line.split("=", 1) for line in lines) | settings_of(unit)
    unknown = set(environment) - set(VARIABLES)
    check(not unknown, "systemd: every variable is one of the worker's", *unknown)
    check(not [n for n in environment if VARIABLES.get(n, {}).get("secret")], "systemd: secrets are files")
    required = {name for name, variable in VARIABLES.items() if variable["need"] == "Required"}
    missing = {name for name in required if name not in environment and f"{name}_FILE" not in environment}
    check(not missing, "systemd: the required variables are set", *missing)
    credentials = {f"%d/{name}" for name in re.findall(r"^LoadCredential=([\w-]+):", unit, re.M)}
    files = {value for name, value in environment.items() if name.endswith("_FILE")}
    check(credentials == files, "systemd: every file of a secret is a credential of the unit", credentials ^ files)
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1])
    check(stop > int(environment["SHUTDOWN_TIMEOUT_SECS"]), "systemd: TimeoutStopSec leaves time to drain")
    wrong = re.search(r"^RestartPreventExitStatus=(\d+)$", unit, re.M)[1]
    table = (ROOT / "README.md").read_text()
    check(f"| {wrong} | wrong configuration |" in table, f"systemd: exit code {wrong} is that of a wrong configuration")

    if not shutil.which("systemd-analyze"):
        # Where nobody looks, what was not checked must not pass for good.
        if os.environ.get("CI"):
            check(False, "systemd-analyze is there: script/setup systemd")
        else:
            print("SKIP  systemd-analyze is not there: script/setup systemd")
        return
    with tempfile.TemporaryDirectory() as temporary:
        # A program has to stand where ExecStart says.
        copy = pathlib.Path(temporary) / "entitlement-sync.service"
        copy.write_text(unit.replace("/usr/local/bin/entitlement-sync", sys.executable))
        done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
        check(done.returncode == 0 and not done.stderr.strip(), "systemd-analyze verify", done.stdout, done.stderr)
        words = ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}", str(copy)]
        done = subprocess.run(words, capture_output=True, text=True)
        check(done.returncode == 0, f"systemd-analyze security: an exposure of {MAX_EXPOSURE} at most", done.stdout[-2000:], done.stderr)


def check_install():
    """Checks that docs/install.md leads to each example in a few lines, and that what it names is there."""
    path = ROOT / "docs/install.md"
    sections = re.split(r"^## ", path.read_text(), flags=re.M)[1:]
    for section in sections:
        title, _, body = section.partition("\n")
        count = len(body.strip().splitlines())
        check(count <= MAX_LINES, f"docs/install.md: {title} has {MAX_LINES} lines at most", f"it has {count}")
    text = path.read_text()
    for folder in sorted(EXAMPLES.iterdir()):
        check(f"](../examples/{folder.name})" in text, f"docs/install.md leads to examples/{folder.name}")
        for file in sorted(folder.iterdir()):
            check(file.stat().st_size, f"{file.relative_to(ROOT)} is not empty")
    for name in re.findall(r"examples/[\w./-]+\w", text):
        check((ROOT / name).exists(), f"docs/install.md: {name} is there")
    check("](docs/install.md)" in (ROOT / "README.md").read_text(), "README.md leads to docs/install.md")


if __name__ == "__main__":
    for part in (check_ecs, check_terraform, check_systemd, check_install):
        part()
    finish()
