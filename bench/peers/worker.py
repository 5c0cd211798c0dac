"""A plain worker: boto3 and redis-py, a bare SET for each message, no comparing."""

import json
import os
import threading

import boto3
import redis
from botocore.config import Config

QUEUE_URL = os.environ["QUEUE_URL"]
BATCH_SIZE = int(os.environ["BATCH_SIZE"])
CONSUMERS = int(os.environ["CONSUMERS"])

sqs = boto3.client(
    "sqs",
    region_name="us-east-1",
    endpoint_url=os.environ["AWS_ENDPOINT_URL_SQS"],
    config=Config(max_pool_connections=CONSUMERS),
)
store = redis.Redis(host="127.0.0.1", port=int(os.environ["REDIS_PORT"]))


def consume() -> None:
    while True:
        answer = sqs.receive_message(
            QueueUrl=QUEUE_URL, MaxNumberOfMessages=BATCH_SIZE, WaitTimeSeconds=20
        )
        messages = answer.get("Messages", [])
        for message in messages:
            payload = json.loads(message["Body"])["payload"]
            if "customerId" in payload:
                key = "production:c_" + payload["customerId"]
                if "featureId" in payload:
                    key += ":f_" + payload["featureId"]
                store.set(key, json.dumps(payload), ex=604800)
        if messages:
            sqs.delete_message_batch(
                QueueUrl=QUEUE_URL,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": message["ReceiptHandle"]}
                    for i, message in enumerate(messages)
                ],
            )


store.ping()
sqs.get_queue_attributes(QueueUrl=QUEUE_URL, AttributeNames=["QueueArn"])
threads = [threading.Thread(target=consume) for _ in range(CONSUMERS)]
for thread in threads:
    thread.start()
print("ready", flush=True)
