#!/usr/bin/env python3
"""Sends one message to an SQS queue on this machine: send.py QUEUE_URL [BODY]; without BODY it is read from stdin."""

import json
import sys
import urllib.parse
import urllib.request

# Loopback is never asked for through a proxy, whatever the environment says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(endpoint, action, arguments):
    """One call of SQS's JSON protocol; the local server asks for no signature."""
    request = urllib.request.Request(
        endpoint,
        data=json.dumps(arguments).encode(),
        headers={"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{action}"},
    )
    with _opener.open(request, timeout=10) as answer:
        return json.load(answer)


def send(queue_url, body):
    """Returns the id of the message."""
    endpoint = urllib.parse.urljoin(queue_url, "/")
    return call(endpoint, "SendMessage", {"QueueUrl": queue_url, "MessageBody": body})["MessageId"]


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    print("sent", send(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else sys.stdin.read()))
