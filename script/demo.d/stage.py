"""Starts and stops the servers of the demo: Redis, a queue, the worker, a reader, and a stand-in for the Edge API."""

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import page
import send

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / ".tools"
PREFIX = "production"
READER_KEY = "demo-reader-key"
SDK_KEY = "server-test-key"  # what tests/sdk presents

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Stopped(Exception):
    """The user pressed Ctrl-C, or sent SIGTERM."""


class Failed(Exception):
    """The demo cannot continue; the text gives the reason."""


class Signals:
    """Records signals. The demo checks them where it waits, so that no server is left half started."""

    def __init__(self):
        self.number = None
        self.on_second = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number, _frame):
        if self.number is not None and self.on_second:
            self.on_second()
        self.number = number

    def check(self):
        if self.number is not None:
            raise Stopped

    def sleep(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            time.sleep(0.02)

    def wait_until(self, condition, seconds):
        """Whether the condition came true in time."""
        end = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


class EdgeApi:
    """Stands in for Stigg's Edge API: counts who asks, and answers 404 until it is given entitlements."""

    def __init__(self):
        self.requests = []
        self.entitlements = None
        edge = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                edge.requests.append(self.path)
                known = edge.entitlements is not None and "/entitlements.json" in self.path
                answer = {"data": {"entitlements": edge.entitlements}} if known else {}
                body = json.dumps(answer).encode()
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.handler = Handler
        self.port = 0
        self.start()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        """Listens, on the same port as before if it was stopped."""
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.05), daemon=True).start()

    def stop(self):
        """From now on nothing listens on its port."""
        self.server.shutdown()
        self.server.server_close()


class Stage:
    """All processes of the demo. Use it in a `with`, which always stops the started processes."""

    def __init__(self, signals, say):
        self.signals = signals
        self.say = say
        self.started = []  # (name, process), in order
        signals.on_second = self._kill
        self.folder = Path(tempfile.mkdtemp(prefix="entitlement-sync-demo-"))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None or issubclass(kind, Stopped):
                self.say("stopping what was started: " + (", ".join(name for name, _ in reversed(self.started)) or "nothing"))
        finally:
            ended = self._stop()
        if "worker" in ended:
            self.say("worker: {}".format(ended["worker"]))

    # --- Before the story ------------------------------------------------------------------------------------------

    def prepare(self):
        """Installs and builds what is missing."""
        self._in_own_group([str(ROOT / "script/setup"), "ministack", "sdk", "openfeature", "redis"], "script/setup")
        self.redis_server = shutil.which("redis-server") or shutil.which("valkey-server")
        self.redis_cli = shutil.which("redis-cli") or shutil.which("valkey-cli")
        if not (self.redis_server and self.redis_cli):
            raise Failed("there is no redis-server and redis-cli on PATH, even after script/setup")
        self.binary = self._build()

    def _build(self):
        metadata = subprocess.run(
            ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"],
            cwd=ROOT, capture_output=True, text=True,
        )
        if metadata.returncode != 0:
            raise Failed("cargo metadata failed:\n" + metadata.stderr.strip())
        target = Path(json.loads(metadata.stdout)["target_directory"])
        release = target / "release/entitlement-sync"
        sources = [ROOT / "Cargo.toml", ROOT / "Cargo.lock",
                   *(path for folder in ("src", "core") for path in (ROOT / folder).rglob("*") if path.is_file())]
        if release.exists() and release.stat().st_mtime > max(path.stat().st_mtime for path in sources):
            return release
        self.say("building the worker (cargo build: minutes the first time, seconds later)")
        self._in_own_group(["cargo", "build", "--locked", "--bin", "entitlement-sync"], "cargo build", quiet=not page.ON_TERMINAL)
        return target / "debug/entitlement-sync"

    def _in_own_group(self, command, name, quiet=False):
        """Runs a command, and ends it and its children when the demo stops. Shows output only if it fails."""
        log = open(self.log("preparation"), "w+") if quiet else None
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            while process.poll() is None:
                self.signals.sleep(0.1)
        except Stopped:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        if process.returncode != 0:
            said = ":\n" + self.tail("preparation", 60) if quiet else ""
            raise Failed(f"{name} failed with exit code {process.returncode}{said}")

    # --- The cast --------------------------------------------------------------------------------------------------

    def start(self):
        self.edge = EdgeApi()
        self.redis_port = self._listening(
            "redis",
            lambda port: [self.redis_server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                          "--dir", str(self.folder)],
            {},
            lambda port: self._pings(port),
        )
        self._start_queue()
        self.worker_environment = {
            **self._common_environment(),
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.redis_port),
        }
        self.worker_port = self._listening(
            "worker",
            lambda _: [str(self.binary)],
            {**self.worker_environment, "PORT": "{port}"},
            lambda port: self._get(port, "/readyz")[0] == 200,
        )
        self.worker_environment["PORT"] = str(self.worker_port)

    def _start_queue(self):
        queue_port = self._listening(
            "queue",
            lambda _: [str(TOOLS / "ministack/bin/ministack")],
            {"SERVICES": "sqs", "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": "{port}", "LOG_LEVEL": "WARNING"},
            lambda port: self._get(port, "/_ministack/health")[0] == 200,
        )
        endpoint = f"http://127.0.0.1:{queue_port}/"
        self.queue_url = send.call(endpoint, "CreateQueue", {"QueueName": "entitlements"})["QueueUrl"]

    def _common_environment(self):
        return {
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "QUEUE_URL": self.queue_url,
            "SERVER_API_KEY": "demo-key",
            "ENVIRONMENT_PREFIX": PREFIX,
            "EDGE_API_URL": self.edge.url,
            "DISABLE_SENTRY": "1",
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": "text",
        }

    def start_reader(self):
        """A process that only answers questions."""
        names = ("SERVER_API_KEY", "ENVIRONMENT_PREFIX", "REDIS_HOST", "REDIS_PORT", "EDGE_API_URL", "DISABLE_SENTRY",
                 "LOG_LEVEL", "LOG_FORMAT")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.probes_port = probe.getsockname()[1]
        environment = {name: self.worker_environment[name] for name in names}
        environment.update({"READ_API_KEYS": f"{READER_KEY},{SDK_KEY}", "PORT": str(self.probes_port)})
        self.reader_port = self._listening(
            "reader",
            lambda _: [str(self.binary), "serve"],
            {**environment, "READ_PORT": "{port}"},
            lambda port: self.reader_knows(port=port) == {"redis": True, "upstream": True},
        )
        self.reader_environment = {**environment, "READ_PORT": str(self.reader_port)}

    def reader_knows(self, port=None):
        """Which sources the reader can ask, from its /readyz."""
        status, body = self._get(port or self.reader_port, "/readyz")
        if status not in (200, 503):
            return {}
        answer = json.loads(body)
        return {name: answer[name] == "CONNECTED" for name in ("redis", "upstream")}

    def pause(self, name, is_paused):
        """Freezes a process, or resumes it."""
        os.kill(self.pid(name), signal.SIGSTOP if is_paused else signal.SIGCONT)

    def pid(self, name):
        return next(process.pid for known, process in self.started if known == name)

    def log(self, name):
        return self.folder / f"{name}.log"

    def ended(self, name):
        return next(process for known, process in self.started if known == name).poll() is not None

    def _listening(self, name, command, variables, is_up):
        """Starts a server on a free port; tries another port if a different process took it meanwhile."""
        for _ in range(3):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder), "LANG": "C.UTF-8"}
            environment.update({key: value.replace("{port}", str(port)) for key, value in variables.items()})
            with open(self.log(name), "wb") as log:
                process = subprocess.Popen(
                    command(port), env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    # Ctrl-C in the terminal is for the demo, which then ends everything in order.
                    start_new_session=True,
                )
            self.started.append((name, process))
            if self.signals.wait_until(lambda: process.poll() is not None or is_up(port), 30) and process.poll() is None:
                return port
            if process.poll() is None:
                break
            self.started.pop()
        raise Failed(f"{name} did not start:\n{self.tail(name)}")

    def tail(self, name, lines=15):
        text = self.log(name).read_text(errors="replace").splitlines()
        return "\n".join(text[-lines:])

    def _stop(self):
        """Ends all processes, the worker before Redis and the queue, and reports how each ended."""
        ended = {}
        worker = [entry for entry in self.started if entry[0] in ("worker", "reader")]
        for together in (worker, [entry for entry in self.started if entry not in worker]):
            began = time.monotonic()
            for _, process in together:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.send_signal(signal.SIGCONT)  # in case the user froze it
            for name, process in together:
                try:
                    process.wait(timeout=max(0.1, began + 10 - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                ended[name] = f"exit code {process.returncode}, {time.monotonic() - began:.1f} s after SIGTERM"
        shutil.rmtree(self.folder, ignore_errors=True)
        return ended

    def _kill(self):
        for _, process in self.started:
            if process.poll() is None:
                process.kill()

    # --- What there is to see --------------------------------------------------------------------------------------

    def publish(self, event):
        """Sends an event to the queue; returns the body that was sent."""
        body = json.dumps(event, separators=(",", ":"))
        send.send(self.queue_url, body)
        return body

    def redis(self, *arguments):
        """What redis-cli prints for a command, raw."""
        done = subprocess.run(
            [self.redis_cli, "-p", str(self.redis_port), "--raw", *arguments], capture_output=True, text=True, timeout=10,
        )
        self.signals.check()
        if done.returncode != 0:
            raise Failed(f"redis-cli {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.rstrip("\n")

    def keys(self, customer):
        """All keys of a customer and their values."""
        names = sorted(self.redis("--scan", "--pattern", f"{PREFIX}:c_{customer}*").split())
        return {name: self.redis("GET", name) for name in names}

    def ask_sdk(self, queries, of_reader=False):
        """The SDK's answers, and how often the Edge API was asked for them. Of the reader: without a Redis."""
        asked = len(self.edge.requests)
        question = {"edgeUrl": self.edge.url, "queries": queries,
                    "redis": {"host": "127.0.0.1", "port": self.redis_port, "db": 0, "environmentPrefix": PREFIX}}
        if of_reader:
            question = {"edgeUrl": self.reader_url(), "queries": queries}
        done = subprocess.run(
            ["node", str(ROOT / "tests/sdk/reader.mjs")],
            input=json.dumps(question), capture_output=True, text=True, timeout=60,
            env={**os.environ, "ENTITLEMENT_SYNC_SDK_DIR": str(TOOLS / "sdk")},
        )
        self.signals.check()
        if done.returncode != 0:
            raise Failed("the SDK could not be asked:\n" + done.stderr.strip())
        return json.loads(done.stdout)["answers"], len(self.edge.requests) - asked

    def reader_url(self):
        return f"http://127.0.0.1:{self.reader_port}"

    def ask_openfeature(self, questions):
        """The answers of OpenFeature's Python client, whose provider asks the reader."""
        done = subprocess.run(
            [str(TOOLS / "openfeature/py/bin/python"), str(ROOT / "tests/openfeature/client.py")],
            input=json.dumps({"url": self.reader_url(), "key": READER_KEY, "questions": questions}),
            capture_output=True, text=True, timeout=60,
        )
        self.signals.check()
        if done.returncode != 0:
            raise Failed("OpenFeature's client could not be asked:\n" + done.stderr.strip())
        return json.loads(done.stdout)["answers"]

    def sdk_version(self):
        package = TOOLS / "sdk/node_modules/@stigg/node-server-sdk/package.json"
        return json.loads(package.read_text())["version"]

    def readyz(self):
        return self._get(self.worker_port, "/readyz")

    def metrics(self):
        """All samples of /metrics, by name and labels as they are printed."""
        status, text = self._get(self.worker_port, "/metrics")
        if status != 200:
            raise Failed(f"the worker's /metrics does not answer; its last lines:\n{self.tail('worker')}")
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name.removeprefix("entitlement_sync_"): float(value) for name, value in samples}

    def _get(self, port, path):
        try:
            with _opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, "no answer"

    def _pings(self, port):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class MemoryStage(Stage):
    """The demo without Redis: a queue, the Edge API, and a worker with STORE=memory that can be killed."""

    def prepare(self):
        self._in_own_group([str(ROOT / "script/setup"), "ministack"], "script/setup")
        self.binary = self._build()

    def start(self):
        self.edge = EdgeApi()
        self._start_queue()
        self.snapshots = self.folder / "state"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.reader_port = probe.getsockname()[1]
        self.worker_environment = {
            **self._common_environment(), "STORE": "memory", "READ_PORT": str(self.reader_port),
            "SNAPSHOT_PATH": f"{self.snapshots}/", "SNAPSHOT_KEY": "a passphrase of the demo",
        }
        self.start_worker()
        self.signals.wait_until(self.is_proven, 30)

    def start_worker(self):
        self.worker_port = self._listening(
            "worker",
            lambda _: [str(self.binary)],
            {**self.worker_environment, "PORT": "{port}"},
            lambda port: self._get(port, "/livez")[0] == 200 and self._get(self.reader_port, "/livez")[0] == 200,
        )

    def kill_worker(self):
        """SIGKILL, so that nothing is saved."""
        entry = next(entry for entry in self.started if entry[0] == "worker")
        entry[1].kill()
        entry[1].wait()
        self.started.remove(entry)

    def is_proven(self):
        return self.metrics()["memory_proven"] == 1

    def left(self):
        """How many messages the queue has, those in flight included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        url = urllib.parse.urljoin(self.queue_url, "/")
        found = send.call(url, "GetQueueAttributes", {"QueueUrl": self.queue_url, "AttributeNames": names})["Attributes"]
        return sum(int(found[name]) for name in names)

    def _ask(self, path, body=None):
        request = urllib.request.Request(
            self.reader_url() + path, data=body and json.dumps(body).encode(),
            headers={"X-API-Key": self.worker_environment["SERVER_API_KEY"], "Content-Type": "application/json"})
        try:
            with _opener.open(request, timeout=30) as answer:
                return answer.status, answer.headers.get("Cache-Status", ""), json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Cache-Status", ""), {}

    def entitlements(self, customer):
        return self._ask(f"/v1/c/{customer}/entitlements.json")

    def flag(self, flag, customer):
        return self._ask(f"/ofrep/v1/evaluate/flags/{flag}", {"context": {"targetingKey": customer}})[2]
