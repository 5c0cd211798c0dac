"""Asks flags by OpenFeature's Python SDK and its remote evaluation provider. Input and output: see client.mjs."""

import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

asked = json.load(sys.stdin)
api.set_provider(OFREPProvider(asked["url"], headers_factory=lambda: {"X-API-Key": asked["key"]}))
client = api.get_client()
answers = []
for question in asked["questions"]:
    context = dict(question["context"])
    details = getattr(client, f"get_{question['type']}_details")(
        question["flag"],
        question["default"],
        EvaluationContext(context.pop("targetingKey", None), context),
    )
    answers.append(
        {
            "value": details.value,
            "variant": details.variant,
            "reason": details.reason,
            "errorCode": details.error_code,
            "metadata": dict(details.flag_metadata),
        }
    )
print(json.dumps({"answers": answers}))
