"""The demo of memory mode: no Redis, a worker that is killed, and the answers after its restart. See script/demo."""

import json

import events
import page
import show
from page import block, dim, green, item, label, note, red, room, say
from stage import MemoryStage

PROVEN = "the queue, read to its end, proves the state"


class Story:
    def __init__(self, stage):
        self.stage = stage
        self.right = self.wrong = 0

    def tell(self):
        stage = self.stage
        self.chapter(1, "The queue in, answers out", """
            There is no Redis. Stigg sends the entitlements of the customer "acme", and a usage of 7 calls. The worker
            applies them to its memory and writes them to its journal. Only then it deletes them from the queue.""")
        self.check(PROVEN, stage.is_proven())
        self.send(events.signed_up(0))
        stage.signals.wait_until(lambda: stage.left() == 0, 20)
        self.send(events.used(5, 7))
        self.check("both messages are deleted from the queue", stage.signals.wait_until(lambda: stage.left() == 0, 20))
        self.ask("calls@usage", 7, "CACHED")
        self.ask("regions@limit", 3, "CACHED")
        status, cache, body = stage.entitlements("acme")
        found = sorted(one["feature"]["refId"] for one in body["data"]["entitlements"]) if status == 200 else []
        item(dim("curl -H 'X-API-Key: …' …/v1/c/acme/entitlements.json"))
        self.check(f"{status}, {cache}: {', '.join(found)}", found == ["calls", "regions", "sso", "support"] and "hit" in cache)

        self.chapter(2, "The worker is killed, and the queue is unreachable", """
            kill -9: no time for a snapshot. The queue is stopped and the Edge API is unreachable. The worker starts again and
            answers from its journal. Nobody can prove this state now, so each answer is marked and states its age.""")
        stage.kill_worker()
        stage.pause("queue", True)
        stage.edge.stop()
        stage.start_worker()
        self.check("the state is not proven", not stage.is_proven())
        self.ask("calls@usage", 7, "STALE")
        self.ask("regions@limit", 3, "STALE")
        status, cache, _ = stage.entitlements("acme")
        self.check(f"{status}, {cache}", status == 200 and "detail=unproven" in cache)

        self.chapter(3, "The queue answers again", """
            The worker reads the queue to its end. After a kill it also waits for the visibility timeout, 30 s, since messages
            may be in flight to the process that is gone. Then its state is proven, and the answers are fresh. A new message
            changes them.""")
        stage.pause("queue", False)
        self.check(PROVEN, stage.signals.wait_until(stage.is_proven, 90))
        self.ask("calls@usage", 7, "CACHED")
        self.send(events.used(30, 9))
        self.check("the message is deleted from the queue", stage.signals.wait_until(lambda: stage.left() == 0, 60))
        self.ask("calls@usage", 9, "CACHED")

    def chapter(self, number, title, prose):
        self.stage.signals.check()
        page.heading(f"{number}  {title}")
        note(prose)
        say()

    def send(self, event):
        label("sent")
        for line in block(self.stage.publish(event), 2, room()):
            item(line)

    def ask(self, flag, wanted, reason):
        """One question of OFREP, as curl would ask it."""
        answer = self.stage.flag(flag, "acme")
        text = f"{flag}  {json.dumps(answer.get('value'))}, {answer.get('reason')}"
        if reason == "STALE":
            text += f", {answer.get('metadata', {}).get('ageMs')} ms old"
        self.check(text, (answer.get("value"), answer.get("reason")) == (wanted, reason), f"{json.dumps(wanted)}, {reason}")

    def check(self, text, right, wanted=""):
        if right:
            self.right += 1
            item(green("ok  ") + text)
            return
        self.wrong += 1
        item(red("WRONG  ") + text + (f", but expected: {wanted}" if wanted else ""))


def introduce(stage):
    say()
    label("running")
    item("SQS and the worker, no Redis; the worker's environment, as for `docker run -e`:")
    for line in block(" ".join(f"{name}={value}" for name, value in stage.worker_environment.items()), 9, room()):
        item(dim(line))


def suggest(stage):
    ask = f"curl -si -H 'X-API-Key: {stage.worker_environment['SERVER_API_KEY']}' {stage.reader_url()}/v1/c/acme/entitlements.json"
    page.heading("Your turn: everything keeps running. From the root of this repository, in another terminal:")
    for what, command in [
        ("ask", ask),
        ("use 42 calls", f"script/demo.d/send.py {stage.queue_url} '{json.dumps(events.used(59, 42))}'"),
        ("write a snapshot, and look at the files", f"kill -USR1 {stage.pid('worker')}; ls -l {stage.snapshots}"),
    ]:
        say(dim(f"  # {what}"))
        say(f"  {command}")


if __name__ == "__main__":
    show.main(MemoryStage, Story, introduce, suggest)
