"""Runs a story on its stage, and ends with the right exit code."""

import os
import sys

from page import bold, dim, green, red, say
from stage import Failed, Signals, Stopped


def main(stage_of, story_of, introduce, suggest):
    """Exits with 0 if every check was right. `suggest`: what to try while everything keeps running."""
    try:
        sys.exit(_run("--once" in sys.argv[1:], stage_of, story_of, introduce, suggest))
    except BrokenPipeError:
        # The reader of the output has gone; everything has stopped by now.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(once, stage_of, story_of, introduce, suggest):
    signals = Signals()
    try:
        with stage_of(signals, lambda text: say(dim("demo: ") + text)) as stage:
            stage.prepare()
            stage.start()
            introduce(stage)
            story = story_of(stage)
            story.tell()
            say()
            total = story.right + story.wrong
            if story.wrong:
                say(red(f"{story.wrong} of {total} checks are WRONG."))
                say(dim("The worker's last lines:"))
                say(stage.tail("worker"))
            else:
                say(green(f"All {total} checks are right."))
            if not once:
                suggest(stage)
                say()
                say(bold("Ctrl-C ends everything."))
                try:
                    while not stage.ended("worker"):
                        signals.sleep(0.2)
                    say(red("the worker has exited"))
                    story.wrong += 1
                except Stopped:
                    say()
                    signals.number = None  # the user asked for the end of the demo, so this is not a failure
    except Stopped:
        say()
        return 128 + signals.number
    except Failed as failure:
        print(f"{red('demo failed:')} {failure}", file=sys.stderr)
        return 1
    return 1 if story.wrong else 0
