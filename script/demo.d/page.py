"""How the demo looks: headings, lines, marks. Colours only on a terminal, and not where NO_COLOR is set."""

import os
import shutil
import sys

ON_TERMINAL = sys.stdout.isatty()
_coloured = ON_TERMINAL and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
WIDTH = max(80, min(shutil.get_terminal_size((110, 24)).columns, 120)) if ON_TERMINAL else 110
_MARGIN = 8


def _colour(code):
    return lambda text: f"\x1b[{code}m{text}\x1b[0m" if _coloured else text


bold, dim, green, red, yellow, cyan = map(_colour, ("1", "2", "32", "1;31", "33", "36"))

_label = ""


def say(text=""):
    print(text, flush=True)


def heading(text):
    say()
    say(bold(text))
    say(dim("─" * len(text)))


def label(text):
    """Stands in the margin of the next item."""
    global _label
    _label = text


def item(text):
    global _label
    say(cyan(_label.ljust(_MARGIN)) + text)
    _label = ""


def note(text):
    """Prose, wrapped."""
    line = ""
    for word in text.split():
        if line and len(line) + len(word) + 1 > min(WIDTH, 110) - 4:
            say(line)
            line = ""
        line += (" " if line else "") + word
    say(line)


def room(indent=0):
    """How wide an item may be."""
    return WIDTH - _MARGIN - indent


def block(text, most_lines, width):
    """Lines of at most `width`, broken after a comma or a space where one is near; says so where not all of it fits."""
    lines = []
    rest = text
    while rest:
        if len(rest) > width and len(lines) == most_lines - 1:
            tail = f" … ({len(text):,} characters)"
            return [*lines, rest[: width - len(tail)] + tail]
        end = len(rest) if len(rest) <= width else width
        if end < len(rest):
            end = max(rest.rfind(mark, width // 2, width) + 1 for mark in ", ") or width
        lines.append(rest[:end])
        rest = rest[end:]
    return lines
