"""Sends webhooks as their senders do, signed by libraries that are not ours.

Reads a JSON list of messages from standard input and writes the list of answers. A message has the `url`, the `sender`, the
`secret`, the `body` in base64, and may have `headers` of its own, `age` in seconds, an `id`, and `sent` (a body in base64 that is
sent instead of the one that is signed). An answer is `{"status": ..., "headers": {...}, "body": "..."}`.
"""

import base64
import hashlib
import hmac
import json
import sys
import time
from datetime import datetime, timezone

import httpx


def standard(message, body, at):
    from standardwebhooks.webhooks import Webhook

    name = message.get("id", "msg_1")
    signed = Webhook(message["secret"]).sign(name, datetime.fromtimestamp(at, timezone.utc), body.decode())
    return {"webhook-id": name, "webhook-timestamp": str(at), "webhook-signature": signed}


def stripe(message, body, at):
    from stripe import WebhookSignature

    return {"stripe-signature": WebhookSignature.generate_signature_header(body.decode(), message["secret"], at)}


def slack(message, body, at):
    base = f"v0:{at}:".encode() + body
    made = "v0=" + hmac.new(message["secret"].encode(), base, hashlib.sha256).hexdigest()
    return {"x-slack-request-timestamp": str(at), "x-slack-signature": made}


def github(message, body, at):
    made = hmac.new(message["secret"].encode(), body, hashlib.sha256).hexdigest()
    name = {"x-github-delivery": message["id"]} if "id" in message else {}
    return {"x-hub-signature-256": f"sha256={made}", **name}


def gitea(message, body, at):
    return {"x-gitea-signature": hmac.new(message["secret"].encode(), body, hashlib.sha256).hexdigest()}


def shopify(message, body, at):
    made = hmac.new(message["secret"].encode(), body, hashlib.sha256).digest()
    return {"x-shopify-hmac-sha256": base64.b64encode(made).decode()}


def gitlab(message, body, at):
    return {"x-gitlab-token": message["secret"]}


def plain(message, body, at):
    return {}


SENDERS = {f.__name__: f for f in (standard, stripe, slack, github, gitea, shopify, gitlab, plain)}


def main():
    answers = []
    with httpx.Client(trust_env=False, timeout=30) as client:
        for message in json.load(sys.stdin):
            body = base64.b64decode(message["body"])
            at = int(time.time()) - message.get("age", 0)
            headers = {"content-type": "application/json", **SENDERS[message["sender"]](message, body, at)}
            headers.update(message.get("headers", {}))
            sent = base64.b64decode(message["sent"]) if "sent" in message else body
            answer = client.post(message["url"], content=sent, headers=headers)
            answers.append({"status": answer.status_code, "headers": dict(answer.headers), "body": answer.text})
    json.dump(answers, sys.stdout)


main()
