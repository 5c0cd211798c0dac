"""The demo: seven chapters in the life of a customer, each compared with the expected result. See script/demo."""

import json
import os

import events
import page
import show
from events import at_ms, clock
from page import block, dim, green, item, label, note, red, room, say, yellow
from stage import PREFIX, READER_KEY, Stage

CUSTOMER = f"{PREFIX}:c_acme"
CALLS = f"{CUSTOMER}:f_calls"
TOMBSTONE = f"{CUSTOMER}#purged"
GONE = None


def stamped(key, ms):
    return {f"{key}#timestamp": str(ms)}


def usage(calls):
    return (f'{{"currentUsage":{calls},"usagePeriodStart":{events.PERIOD_START_MS},'
            f'"usagePeriodEnd":{events.PERIOD_END_MS}}}')


class Any:
    """Any existing value: the SDK's answers show whether it is correct."""


class Story:
    def __init__(self, stage):
        self.stage = stage
        self.right = self.wrong = 0
        self.chapters = 0

    # --- The seven chapters -----------------------------------------------------------------------------------------

    def tell(self):
        with self.chapter("Acme signs up", """
                Stigg sends one message: the customer "acme" may now use four features, one of each kind. Redis is empty.
                The worker writes the entitlements, the reason for a denial (none), and the usage of the one metered
                feature, each with the time at which it was true."""):
            self.deliver([events.signed_up(0)], {"applied": 1}, {
                CUSTOMER: Any, **stamped(CUSTOMER, at_ms(0)),
                f"{CUSTOMER}:metadata": '{"accessDeniedReason":null}', **stamped(f"{CUSTOMER}:metadata", at_ms(0)),
                CALLS: usage(4), **stamped(CALLS, at_ms(0)),
            })
            self.check("each key expires in 7 days, unless the worker writes it again",
                       all(604_700 < int(self.stage.redis("TTL", key)) <= 604_800 for key in self.stage.keys("acme")))
            self.ask([self.boolean(), self.numeric(3), self.metered(4, 10), self.enum("email", ["email"]),
                      self.enum("phone", ["email"], denied="RequestedValuesMismatch")])

        with self.chapter("Acme uses its calls", """
                A usage message: 7 of 10 calls are used. One small key changes, and the SDK denies usage over the limit."""):
            self.deliver([events.used(5, 7)], {"applied": 1}, {CALLS: usage(7), **stamped(CALLS, at_ms(5))})
            self.ask([self.metered(7, 10), self.metered(7, 10, asking=3),
                      self.metered(7, 10, asking=4, denied="RequestedUsageExceedingLimit")])

        with self.chapter("Acme upgrades", f"""
                New entitlements: 100 calls, 12 regions, support by phone. The message also has a usage of 6 as of
                {clock(4)}. Redis already has a usage of {clock(5)}, which is newer and stays: the worker compares each key."""):
            self.deliver([events.upgraded(10, 4)], {"applied": 1}, {
                CUSTOMER: Any, **stamped(CUSTOMER, at_ms(10)), **stamped(f"{CUSTOMER}:metadata", at_ms(10))})
            self.ask([self.boolean(), self.numeric(12), self.metered(7, 100), self.enum("phone", ["email", "phone"])])

        with self.chapter("A duplicate and two late messages arrive", f"""
                SQS delivers at least once and in no order. Three messages at once: the usage of {clock(5)} again, a usage
                of 5 as of {clock(3)}, and the sign-up of {clock(0)} again. None of them may replace newer state."""):
            self.deliver([events.used(5, 7), events.used(3, 5), events.signed_up(0)], {"applied": 1, "stale": 2}, {})
            self.ask([self.numeric(12), self.metered(7, 100), self.enum("phone", ["email", "phone"])])

        with self.chapter("Acme is purged, and state from before the purge arrives", f"""
                Acme's subscription is migrated as of {clock(20)}: the cached state is void. The worker deletes it and leaves a
                tombstone with the time of the purge. Then two late messages arrive:
                entitlements of {clock(15)} and a usage of {clock(16)}. They must not restore the purged state."""):
            self.deliver([events.purged(20)], {"applied": 1}, {
                CUSTOMER: GONE, f"{CUSTOMER}#timestamp": GONE,
                f"{CUSTOMER}:metadata": GONE, f"{CUSTOMER}:metadata#timestamp": GONE,
                TOMBSTONE: str(at_ms(20))})
            self.deliver([events.late_state(15), events.used(16, 8)], {"stale": 1, "skipped": 1}, {})
            self.ask([("getMeteredEntitlement", "calls", {}, {"hasAccess": False, "isFallback": True})], edge_requests=1,
                     remark="the Edge API is unreachable in this chapter, so the SDK falls back to \"no\"")

        with self.chapter("The SDK loads Acme again, and the worker continues from there", f"""
                The Edge API is back. The SDK asks it once, and writes the answer to Redis itself; the tombstone does
                not block it. Then a usage of 12 as of {clock(30)} arrives in the queue, and SDK and worker share the keys."""):
            self.stage.edge.entitlements = events.entitlements(25, 12, 200, 9, 25, ["email", "phone"])
            self.ask([self.metered(9, 200)], edge_requests=1)
            self.deliver([events.used(30, 12)], {"applied": 1}, {CALLS: usage(12), **stamped(CALLS, at_ms(30))})
            self.ask([self.boolean(), self.numeric(12), self.metered(12, 200), self.enum("phone", ["email", "phone"])])

        with self.chapter("Others ask without Redis, and then Redis and the Edge API are stopped", """
                `entitlement-sync serve` answers from these keys: to the SDK without a Redis, which uses it as its Edge
                API, and to OpenFeature in any language. Then the demo stops Redis, and after it the Edge API. The reader
                still answers for known customers and marks the answers as stale. For other customers it returns an
                error, and each client uses its fallback."""):
            self.answers()

    def answers(self):
        stage, edge = self.stage, self.stage.edge
        stage.start_reader()
        label("running")
        item(f"the reader on {stage.reader_port}; keys: READ_API_KEYS")
        granted = [("boolean", "sso", False, True), ("boolean", "calls", False, True), ("integer", "calls@remaining", 0, 188),
                   ("integer", "regions@limit", 0, 12), ("boolean", "no-such-feature", True, False)]
        known = [self.boolean(), self.numeric(12), self.metered(12, 200), self.enum("phone", ["email", "phone"])]
        self.ask_reader("acme", known, edge_requests=0, remark="the reader had all of it from Redis")
        self.ask_flags("acme", granted, "CACHED")

        # What Stigg knows by now.
        edge.entitlements = events.entitlements(25, 12, 200, 12, 30, ["email", "phone"])
        stage.pause("redis", True)
        self.wait("Redis is stopped (SIGSTOP)", {"redis": False, "upstream": True})
        self.ask_reader("acme", known)
        self.ask_flags("acme", granted, "STALE")
        item(dim("a customer without an earlier question: the reader asks the Edge API"))
        self.ask_flags("globex", granted[:1], "TARGETING_MATCH")

        edge.stop()
        label("then")
        item("the Edge API is stopped, too")
        self.ask_reader("acme", known)
        self.ask_flags("acme", granted, "STALE")
        item(dim("a customer without an earlier question: the reader cannot tell, so each client uses its own fallback"))
        self.ask_reader("initech", [("getBooleanEntitlement", "sso", {}, {"hasAccess": False, "isFallback": True})])
        self.ask_flags("initech", [("boolean", "sso", False, False), ("boolean", "calls", True, True)], "ERROR")

        edge.start()
        stage.pause("redis", False)
        self.wait("both run again", {"redis": True})
        self.ask_reader("acme", known)
        self.ask_flags("acme", granted, "CACHED")

    def wait(self, what, wanted):
        """Waits until the reader has noticed."""
        label("then")
        noticed = self.stage.signals.wait_until(lambda: wanted.items() <= self.stage.reader_knows().items(), 10)
        self.check(f"{what}, and the reader has noticed", noticed, wanted)

    # --- What a chapter does -----------------------------------------------------------------------------------------

    def chapter(self, title, prose):
        return Chapter(self, title, prose)

    def deliver(self, messages, outcomes, changes):
        """Publishes messages, waits until the worker has finished them, and shows the changes in Redis."""
        stage = self.stage
        before, counted = stage.keys("acme"), stage.metrics()
        for message in messages:
            label("sent")
            for line in block(stage.publish(message), 3 if len(messages) == 1 else 2, room()):
                item(line)
        acknowledged = "messages_acknowledged_total"
        done = stage.signals.wait_until(lambda: stage.metrics()[acknowledged] >= counted[acknowledged] + len(messages), 20)
        now, after = stage.metrics(), stage.keys("acme")

        found = {}
        for name, value in now.items():
            if name.startswith("messages_processed_total") and value > counted.get(name, 0):
                outcome = name.split('outcome="')[1].split('"')[0]
                found[outcome] = found.get(outcome, 0) + int(value - counted.get(name, 0))
        label("worker")
        deleted = "deleted from the queue" if done else "not yet deleted from the queue"
        self.check(f"{counts(found)}; {deleted}", done and found == outcomes, counts(outcomes))
        applied = now["lag_seconds_count"] - counted["lag_seconds_count"]
        if applied:
            lag = (now["lag_seconds_sum"] - counted["lag_seconds_sum"]) / applied
            item(f"    lag {lag * 1000:.0f} ms, from SendMessage until Redis had it (entitlement_sync_lag_seconds)")

        label("redis")
        item(dim(f"redis-cli -p {stage.redis_port} --scan --pattern '{CUSTOMER}*', and GET of each, before and after"))
        self.show_change(before, after)
        expected = {key: value for key, value in {**before, **changes}.items() if value is not GONE}
        surprising = sorted(
            key for key in expected.keys() | after.keys()
            if (after.get(key) == before.get(key) if expected.get(key) is Any else after.get(key) != expected.get(key)))
        self.check("exactly these keys changed" if changes else "nothing changed", not surprising,
                   "other values of " + ", ".join(surprising))

    def show_change(self, before, after):
        names = sorted(before.keys() | after.keys())
        changed = [name for name in names if before.get(name) != after.get(name)]
        width = max(map(len, changed), default=0)
        for name in changed:
            old, new = before.get(name), after.get(name)
            mark = green("+ ") if old is None else red("- ") if new is None else yellow("~ ")
            values = [dim(value) if value is old else value for value in (old, new) if value is not None]
            if sum(len(value or "") for value in (old, new)) + 3 <= room(width + 4):
                item(mark + name.ljust(width) + "  " + yellow(" → ").join(values))
                continue
            item(mark + name)
            if old and new and len(new) > room(6):
                item(f"      {len(old):,} → {len(new):,} characters of JSON; in them:")
                for path, was, now in differences(json.loads(old), json.loads(new)):
                    item(f"      {path}  {dim(was)}{yellow(' → ')}{now}")
                continue
            for number, value in enumerate(value for value in (old, new) if value is not None):
                for line in block(value, 1 if value is old else 3, room(6)):
                    item((yellow("    → ") if number else "      ") + (dim(line) if value is old else line))
        if same := len(names) - len(changed):
            item(dim(f"  {same} {'key' if same == 1 else 'keys'} as before"))

    def ask(self, questions, edge_requests=0, remark=""):
        """Asks the SDK, compares each answer with the expected one, and counts its requests to the Edge API."""
        stage = self.stage
        queries = [{"method": method, "args": {"customerId": "acme", "featureId": feature, "options": options}}
                   for method, feature, options, _ in questions]
        before = stage.keys("acme")
        answers, asked = stage.ask_sdk(queries)
        label("sdk")
        item(dim(f"@stigg/node-server-sdk {stage.sdk_version()}, configured with this Redis"))
        self.judge(questions, answers)
        times = "once" if asked == 1 else f"{asked} times"
        why = remark or ("all of it from Redis" if asked == 0 else "Redis had nothing to answer from")
        self.check(f"asked the Edge API {times}: {why}", asked == edge_requests, f"{edge_requests} requests")
        after = stage.keys("acme")
        if after != before:
            label("redis")
            item(dim("what the SDK wrote"))
            self.show_change(before, after)

    def ask_reader(self, customer, questions, edge_requests=None, remark=""):
        """Asks the SDK that has no Redis."""
        stage = self.stage
        queries = [{"method": method, "args": {"customerId": customer, "featureId": feature, "options": options}}
                   for method, feature, options, _ in questions]
        answers, asked = stage.ask_sdk(queries, of_reader=True)
        label("sdk")
        item(dim(f"@stigg/node-server-sdk {stage.sdk_version()} without a Redis, its baseEdgeUri at the reader, asks for {customer}"))
        self.judge(questions, answers)
        if edge_requests is not None:
            self.check(f"the Edge API was asked {asked} times: {remark}", asked == edge_requests, f"{edge_requests} requests")

    def ask_flags(self, customer, questions, reason):
        """Asks OpenFeature's Python client: type, flag, default, and the value expected."""
        label("flags")
        item(dim(f"openfeature-provider-ofrep in Python asks for {customer}"))
        answers = self.stage.ask_openfeature([
            {"type": kind, "flag": flag, "default": default, "context": {"targetingKey": customer}}
            for kind, flag, default, _ in questions])
        width = max(len(flag) for _, flag, _, _ in questions)
        for (_, flag, default, wanted), answer in zip(questions, answers):
            error = f" (the default; {answer['errorCode']})" if answer.get("errorCode") else ""
            denied = (answer.get("metadata") or {}).get("accessDeniedReason")
            why = f" ({denied})" if denied and answer["value"] is False else ""
            self.check(f"{flag:{width}}  {json.dumps(answer['value'])}{why}{error}, {answer['reason']}",
                       answer["value"] == wanted and answer["reason"] == reason, f"{json.dumps(wanted)}, {reason}")

    def judge(self, questions, answers):
        """Compares the SDK's answers with the expected ones."""
        width = max(len(question_text(*question[:3])) for question in questions)
        for (method, feature, options, wanted), answer in zip(questions, answers):
            other = {field: value for field, value in wanted.items() if answer.get(field) != value}
            self.check(f"{question_text(method, feature, options):{width}}  {answer_text(answer)}", not other, json.dumps(other))

    def check(self, text, right, wanted=""):
        if right:
            self.right += 1
            item(green("ok  ") + text)
            return
        self.wrong += 1
        item(red("WRONG  ") + text + (f", but expected: {wanted}" if wanted else ""))

    # --- Questions, and the answers expected -------------------------------------------------------------------------

    def boolean(self):
        return "getBooleanEntitlement", "sso", {}, {"hasAccess": True, "isFallback": False}

    def numeric(self, regions):
        return "getNumericEntitlement", "regions", {}, {"hasAccess": True, "isFallback": False, "value": regions}

    def metered(self, calls, limit, asking=None, denied=None):
        options = {} if asking is None else {"requestedUsage": asking}
        return "getMeteredEntitlement", "calls", options, {
            "hasAccess": denied is None, "accessDeniedReason": denied, "isFallback": False,
            "currentUsage": calls, "usageLimit": limit}

    def enum(self, asking, values, denied=None):
        return "getEnumEntitlement", "support", {"requestedValues": [asking]}, {
            "hasAccess": denied is None, "accessDeniedReason": denied, "isFallback": False, "enumValues": values}


class Chapter:
    """Heading and prose before, lag and readiness after."""

    def __init__(self, story, title, prose):
        self.story, self.title, self.prose = story, title, prose

    def __enter__(self):
        self.story.stage.signals.check()
        self.story.chapters += 1
        page.heading(f"{self.story.chapters}  {self.title}")
        note(self.prose)
        say()

    def __exit__(self, kind, *_):
        if kind is not None:
            return
        stage, wanted = self.story.stage, (200, '{"status":"UP","consumers":10,"redis":"CONNECTED"}')
        # Just after the start not all consumers have had their first answer from the queue.
        stage.signals.wait_until(lambda: stage.readyz() == wanted, 5)
        status, body = stage.readyz()
        label("readyz")
        self.story.check(f"{status} {body}", (status, body) == wanted, "{} {}".format(*wanted))


def counts(outcomes):
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "nothing"


def differences(old, new, path=""):
    """The leaves in which two JSON values differ, with both values."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield path, json.dumps(old), json.dumps(new)
        return
    for name in [*old, *(name for name in new if name not in old)]:
        yield from differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)


def question_text(method, feature, options):
    asking = "".join(f", {name}: {value if isinstance(value, int) else ' '.join(value)}" for name, value in options.items())
    return f"{method}({feature}{asking})"


def answer_text(answer):
    if "error" in answer:
        return f"error: {answer['error']}"
    parts = ["access" if answer["hasAccess"] else "no access"]
    if answer.get("isFallback"):
        parts[0] += " (a fallback)"
    elif answer.get("accessDeniedReason"):
        parts[0] += f" ({answer['accessDeniedReason']})"
    if answer["type"] == "NUMERIC":
        parts.append(f"{answer['value']} {answer['feature']['unitsPlural']}")
    if answer["type"] == "METERED" and not answer.get("isFallback"):
        parts.append(f"{answer['currentUsage']} of {answer['usageLimit']} used")
    if answer["type"] == "ENUM":
        parts.append("granted: " + ", ".join(answer.get("enumValues") or []))
    return "; ".join(parts)


def introduce(stage):
    say()
    label("running")
    item(f"redis on {stage.redis_port}, SQS on {stage.queue_url.split('/')[2].split(':')[1]}, "
         f"the worker's HTTP on {stage.worker_port}, all on 127.0.0.1")
    item(dim("the worker's environment, as for `docker run -e`; all other variables have their defaults:"))
    variables = " ".join(f"{name}={value}" for name, value in stage.worker_environment.items())
    for line in block(variables, 9, room()):
        item(dim(line))


def suggest(stage):
    """Suggests commands to try while everything keeps running; every line can be pasted into another terminal."""
    redis = f"{os.path.basename(stage.redis_cli)} -p {stage.redis_port}"
    http = f"http://127.0.0.1:{stage.worker_port}"
    send = f"script/demo.d/send.py {stage.queue_url}"
    reader = ('{"redis":{"host":"127.0.0.1","port":%d,"db":0,"environmentPrefix":"%s"},"edgeUrl":"%s",'
              '"queries":[{"method":"getMeteredEntitlement","args":{"customerId":"acme","featureId":"calls"}}]}'
              % (stage.redis_port, PREFIX, stage.edge.url))
    page.heading("Your turn: everything keeps running. From the root of this repository, in another terminal:")
    for what, commands in [
        ("watch what the worker does, message by message", [f"tail -f {stage.log('worker')}"]),
        ("use 42 calls, and look", [
            f"{send} '{{\"type\":\"measurement.reported\",\"customer\":{{\"id\":\"acme\"}},\"feature\":{{\"id\":\"calls\"}},\"currentUsage\":42}}'",
            f"{redis} get {CALLS}"]),
        ("ask the SDK", [f"echo '{reader}' | node tests/sdk/reader.mjs"]),
        ("see every key, and every command that reaches Redis", [f"{redis} --scan --pattern '{PREFIX}:*'", f"{redis} monitor"]),
        ("send nonsense; after 5 tries, within half a minute, it is kept in a stream", [
            f"{send} nonsense", f"{redis} xrange {PREFIX}:dead-letter - +"]),
        ("freeze Redis, watch readiness go DOWN, and resume Redis", [
            f"kill -STOP {stage.pid('redis')}; sleep 3; curl -s '{http}/readyz?verbose'; kill -CONT {stage.pid('redis')}"]),
        ("ask the reader, which has READ_API_KEYS", [
            f"curl -si -H 'X-API-Key: {READER_KEY}' {stage.reader_url()}/v1/c/acme/entitlements.json",
            f"curl -s -H 'X-API-Key: {READER_KEY}' {stage.reader_url()}/ofrep/v1/evaluate/flags/calls "
            "-d '{\"context\": {\"targetingKey\": \"acme\", \"requestedUsage\": 200}}'"]),
        ("count", [f"curl -s {http}/metrics | grep processed | grep -v ' 0$'"]),
    ]:
        say(dim(f"  # {what}"))
        for command in commands:
            say(f"  {command}")


if __name__ == "__main__":
    show.main(Stage, Story, introduce, suggest)
