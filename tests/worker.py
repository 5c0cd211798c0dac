"""What the checks of the chart, the examples and the workflows share: a tally, strict YAML, and the worker's variables."""

import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]

results = {True: 0, False: 0}


def check(good, what, *details):
    """Counts an outcome, and prints a failed one with its details."""
    good = bool(good)
    results[good] += 1
    if not good:
        print(f"FAIL  {what}", *(f"      {line}" for detail in details for line in str(detail).splitlines()[:40]), sep="\n")
    return good


def finish():
    """Prints the tally and ends the process; exit code 1 if a check failed or none ran."""
    print(f"{results[True]} passed, {results[False]} failed")
    sys.exit(1 if results[False] or not results[True] else 0)


class Strict(yaml.SafeLoader):
    """Kubernetes refuses a key that is there twice; PyYAML alone would take the last one."""


def no_duplicates(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key} is there twice", node.start_mark)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, no_duplicates)


def variables():
    """The worker's own table: name -> (need, secret, example, about)."""
    text = (ROOT / "src/config/variables.rs").read_text()
    text = text[text.index("\nvariables! {") :]
    rows = re.findall(
        r'^ {4}\w+ "(\w+)" (\w+)(?:\("((?:[^"\\]|\\.)*)"\))? (secret|plain) "((?:[^"\\]|\\.)*)"\s+"((?:[^"\\]|\\.)*)";',
        text,
        re.M,
    )
    expected = len(re.findall(r'^ {4}\w+ "\w+" ', text, re.M))
    if len(rows) != expected or not rows:
        sys.exit(f"src/config/variables.rs has {expected} rows, of which {len(rows)} could be read: adapt tests/worker.py")
    return {
        name: {"need": need, "default": default, "secret": secret == "secret", "example": example, "about": about}
        for name, need, default, secret, example, about in rows
    }


VARIABLES = variables()
