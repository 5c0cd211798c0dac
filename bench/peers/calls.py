#!/usr/bin/env python3
"""Times calls of apply.lua inside a Redis of its own that does nothing else.

usage: python3 bench/peers/calls.py
Each row is one call: the median and the longest, by SLOWLOG, of 40 calls whose keys Redis holds, and of calls whose keys
are new, until 200,000 keys or 500 MB are written. Redis then doubles its table of keys several times, which makes each key
slower.
"Arguments" and "kB" are what src/store/write/parts.rs counts: keys, times and values.
"""

import pathlib
import socket
import statistics
import subprocess
import tempfile
import time

SCRIPT = pathlib.Path(__file__).parents[2] / "src/store/apply.lua"
ROUNDS = 40
NEW_KEYS, NEW_BYTES = 200_000, 500_000_000
# Customers, keys of each, bytes of each value.
CALLS = [
    (10, 4, 150, "a usual batch"),
    (10, 25, 150, "ten customers of 40 features"),
    (200, 0, 0, "a purge of 200"),
    (4, 14, 150, "at the bound of arguments"),
    (2, 2, 65_000, "at the bound of bytes"),
    (4, 14, 4_300, "at both bounds"),
    (1, 110, 800, "a body of 100 kB, 180 features"),
    (1, 1_000, 150, "one customer, 1,000 metered features"),
    (1, 2_500, 150, "one customer, 2,500 metered features"),
    (1, 11_000, 60, "one customer, 11,000 metered features (a body of 1 MiB)"),
    (1, 2, 500_000, "one customer, a value of 500 kB"),
]


class Redis:
    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.01)
        self.answers = self.socket.makefile("rb")

    def call(self, *words):
        words = [str(word).encode() for word in words]
        text = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.socket.sendall(b"*%d\r\n%s" % (len(words), text))
        return self.answer()

    def answer(self):
        line = self.answers.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self.answers.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return rest


def words(customers, keys, size, at, first=0):
    """The keys and arguments of a call, and its bytes."""
    names, arguments, count = [], [604_800, 0, 1_209_600], 0
    for customer in range(first, first + customers):
        owner = f"production:c_customer-{customer:07}"
        own = [f"{owner}:f_feature-{key:05}" for key in range(keys)] or [owner]
        names += [f"{owner}#lock", f"{owner}#purged"]
        names += [f"{key}#timestamp" for key in own] + own
        arguments += ["S" if keys else "P", len(own), at]
        for key in own if keys else []:
            arguments += [at, "v" * size]
        count += sum(2 * len(key) + 10 + size for key in own)
    return names, arguments, count


def measure(redis, sha, customers, keys, size):
    figures = []
    # A call that writes nothing has one tombstone for each customer.
    fresh = min(NEW_KEYS // (customers * max(2 * keys, 1)), NEW_BYTES // (customers * max(keys * size, 100)))
    for rounds, step in [(ROUNDS, 0), (fresh, customers)]:
        redis.call("FLUSHALL")
        redis.call("SLOWLOG", "RESET")
        for round_ in range(rounds):
            names, arguments, count = words(customers, keys, size, 1_000_000 + round_, step * round_)
            redis.call("EVALSHA", sha, len(names), *names, *arguments)
        calls = redis.call("SLOWLOG", "GET", "100000")
        took = [int(call[2]) / 1e3 for call in calls if call[3][0] == b"EVALSHA"]
        # The first call of the same keys is one of new keys.
        took = took[:-1] if step == 0 else took
        figures += [statistics.median(took), max(took)]
    return customers * (6 + 4 * max(keys, 1)), count / 1e3, figures


def main():
    with tempfile.TemporaryDirectory() as folder:
        redis = Redis(folder)
        try:
            redis.call("CONFIG", "SET", "slowlog-log-slower-than", 0)
            redis.call("CONFIG", "SET", "slowlog-max-len", 100_000)
            sha = redis.call("SCRIPT", "LOAD", SCRIPT.read_text()).decode()
            print("| One call | Arguments | kB | Held keys: median, ms | Longest | New keys: median, ms | Longest |")
            print("|---|---:|---:|---:|---:|---:|---:|")
            for customers, keys, size, name in CALLS:
                arguments, kilobytes, figures = measure(redis, sha, customers, keys, size)
                times = " | ".join(f"{figure:.2f}" for figure in figures)
                print(f"| {name} | {arguments:,} | {kilobytes:.0f} | {times} |")
        finally:
            redis.process.terminate()
            redis.process.wait()


if __name__ == "__main__":
    main()
