"""Judges deliveries with libraries that are not ours.

Reads a JSON list of questions from standard input and writes the list of answers. A question names the library, and holds the
headers, the body in base64 and what the receiver knows. An answer is `{"ok": true, ...}` or `{"ok": false, "error": "..."}`.
"""

import base64
import hashlib
import hmac
import json
import sys


def standardwebhooks(question, body):
    from standardwebhooks.webhooks import Webhook

    Webhook(question["secret"]).verify(body, question["headers"], json_parse=False)


def ed25519(question, body):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    headers = question["headers"]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(question["secret"].removeprefix("whpk_")))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    errors = []
    for part in headers["webhook-signature"].split(" "):
        version, _, signature = part.partition(",")
        if version != "v1a":
            continue
        try:
            return key.verify(base64.b64decode(signature), content)
        except Exception as error:
            errors.append(repr(error))
    raise ValueError(f"no fitting v1a signature: {errors}")


def stripe(question, body):
    from stripe import WebhookSignature

    WebhookSignature.verify_header(body.decode(), question["headers"]["stripe-signature"], question["secret"], 300)


def hub(question, body):
    made = "sha256=" + hmac.new(question["secret"].encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(made, question["headers"]["x-hub-signature-256"]):
        raise ValueError("another signature")


def shown(event):
    attributes = event.get_attributes()
    data = event.get_data()
    if isinstance(data, bytes):
        data = {"base64": base64.b64encode(data).decode()}
    return {"attributes": {name: str(value) for name, value in attributes.items()}, "data": data}


def cloudevents(question, body):
    from cloudevents.core.bindings import http

    return {"events": [shown(http.from_http_event(http.HTTPMessage(headers=question["headers"], body=body)))]}


def cloudevents_batch(question, body):
    # The library has no batches; each of them is an event in structured form.
    from cloudevents.core.bindings import http

    if not question["headers"]["content-type"].startswith("application/cloudevents-batch+json"):
        raise ValueError("not a batch")
    headers = {"content-type": "application/cloudevents+json"}
    parts = [json.dumps(part).encode() for part in json.loads(body)]
    return {"events": [shown(http.from_http_event(http.HTTPMessage(headers=headers, body=part))) for part in parts]}


LIBRARIES = {
    "standardwebhooks": standardwebhooks,
    "cryptography": ed25519,
    "stripe": stripe,
    "hmac": hub,
    "cloudevents": cloudevents,
    "cloudevents_batch": cloudevents_batch,
}


def answer(question):
    try:
        more = LIBRARIES[question["library"]](question, base64.b64decode(question["body"])) or {}
        return {"ok": True, **more}
    except Exception as error:
        return {"ok": False, "error": repr(error)}


json.dump([answer(question) for question in json.load(sys.stdin)], sys.stdout)
