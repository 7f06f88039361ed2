"""A WebSub subscriber, written from the W3C Recommendation of 23 January 2018 alone.

Usage: subscriber.py RELAY_URL SCENARIO. Ends with status 0 when everything was as the Recommendation says; tells what was
not otherwise. Nothing but the standard library; nothing of the relay's code.
"""

import hashlib
import hmac
import http.server
import json
import queue
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE_S = 30
RELAY = sys.argv[1].rstrip("/")
TOPIC = RELAY + "/v1/topics/orders.*"


class Callback(http.server.BaseHTTPRequestHandler):
    """Section 5.3 and 7: verification of intent by GET, content by POST."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, keep_blank_values=True)
        status, body = self.server.verify(query)
        self.server.verifications.put((self.path, query))
        self.reply(status, body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        status = self.server.deliver(body)
        self.server.contents.put((self.path, self.headers, body))
        self.reply(status, b"")

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Subscriber:
    def __init__(self, path="/callback?who=me%20too"):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Callback)
        self.server.daemon_threads = True
        self.server.verifications = queue.Queue()
        self.server.contents = queue.Queue()
        self.server.verify = self.confirm
        self.server.deliver = lambda body: 200
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d%s" % (self.server.server_address[1], path)

    @staticmethod
    def confirm(query):
        return 200, query["hub.challenge"][0].encode() if "hub.challenge" in query else b""

    def ask(self, mode, topic=TOPIC, **more):
        """Section 5.1: a form with the parameters; the answer's status."""
        form = {"hub.mode": mode, "hub.topic": topic, "hub.callback": self.url}
        form.update(("hub." + name, value) for name, value in more.items())
        return post_form({name: value for name, value in form.items() if value is not None})

    def verification(self):
        """The next verification of intent, or the word that there will be none."""
        path, query = self.server.verifications.get(timeout=PATIENCE_S)
        assert query.get("who") == ["me too"], "the callback's own query was not kept: " + path
        return {name: values[0] for name, values in query.items() if len(values) == 1}

    def content(self):
        return self.server.contents.get(timeout=PATIENCE_S)

    def subscribed(self, **more):
        """Subscribes, and waits until the hub has it."""
        assert self.ask("subscribe", **more) == 202
        query = self.verification()
        eventually("a subscription", lambda: self.find())
        return query

    def find(self):
        items = [item for item in subscriptions() if item["url"] == self.url]
        assert len(items) <= 1, items
        return items[0] if items else None


def post_form(form):
    request = urllib.request.Request(RELAY + "/websub", urllib.parse.urlencode(form).encode(), method="POST")
    assert request.get_header("Content-type") is None
    request.add_header("Content-Type", "application/x-www-form-urlencoded")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def subscriptions():
    with urllib.request.urlopen(RELAY + "/v1/subscriptions", timeout=PATIENCE_S) as answer:
        return json.load(answer)["items"]


def publish(body, content_type="application/json", topic="orders.created"):
    request = urllib.request.Request(RELAY + "/v1/topics/%s/events" % topic, body, {"Content-Type": content_type})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.status == 202


def eventually(what, check):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("never: " + what)


def links(headers):
    """Section 4: Link headers (RFC 8288), by relation."""
    found = {}
    for value in headers.get_all("link") or []:
        for url, relation in re.findall(r'<([^>]*)>\s*;\s*rel="([^"]*)"', value):
            found[relation] = url
    return found


def is_signed(headers, body, secret):
    """Section 7.1: method=signature, hexadecimal HMAC over the body."""
    given = headers.get("x-hub-signature")
    if given is None:
        return False
    method, _, digits = given.partition("=")
    assert method == "sha256", given
    return hmac.compare_digest(digits, hmac.new(secret.encode(), body, method).hexdigest())


def discovery_and_delivery():
    for path in ("/v1/topics/orders.*", "/v1/topics/orders.*/stream?max_duration=100ms"):
        with urllib.request.urlopen(RELAY + path, timeout=PATIENCE_S) as answer:
            found = links(answer.headers)
            assert found == {"hub": RELAY + "/websub", "self": TOPIC}, found
    subscriber = Subscriber()
    query = subscriber.subscribed(secret="a secret of 25 characters", lease_seconds="600")
    assert query["hub.mode"] == "subscribe" and query["hub.topic"] == TOPIC, query
    assert query["hub.lease_seconds"] == "600" and len(query["hub.challenge"]) >= 20, query
    for body, content_type in ((b'{"order": 1,  "x":2}', "application/json"), (b"\x00\xffraw", "application/octet-stream")):
        publish(body, content_type)
        _, headers, got = subscriber.content()
        assert got == body and headers["content-type"] == content_type, (got, headers.items())
        assert links(headers) == {"hub": RELAY + "/websub", "self": TOPIC}, links(headers)
        assert is_signed(headers, got, "a secret of 25 characters"), headers.items()
        assert not is_signed(headers, got, "another") and not is_signed(headers, got + b" ", "a secret of 25 characters")
    shown = subscriber.find()
    assert shown["websub"]["topic"] == TOPIC and shown["state"] == "active", shown
    assert "a secret of" not in json.dumps(subscriptions())


def without_a_secret():
    subscriber = Subscriber()
    query = subscriber.subscribed()
    assert query["hub.lease_seconds"] == str(10 * 24 * 3600), query
    publish(b"{}")
    _, headers, _ = subscriber.content()
    assert headers.get("x-hub-signature") is None and headers.get("x-hub-signature-256") is None


def denied():
    subscriber = Subscriber()
    for pattern in ("secrets.*", "**", "hookcast.ops", "orders.*,secrets.x"):
        topic = RELAY + "/v1/topics/" + pattern
        assert subscriber.ask("subscribe", topic=topic) == 202
        query = subscriber.verification()
        assert query["hub.mode"] == "denied" and query["hub.topic"] == topic and query["hub.reason"], query
        assert "hub.challenge" not in query
    assert subscriptions() == []


def wrong_echo():
    subscriber = Subscriber()
    for answer in (
        lambda query: (200, b""),
        lambda query: (200, query["hub.challenge"][0][:-1].encode()),
        lambda query: (200, query["hub.challenge"][0].encode() + b"x"),
        lambda query: (200, json.dumps({"challenge": query["hub.challenge"][0]}).encode()),
        lambda query: (404, query["hub.challenge"][0].encode()),
        lambda query: (302, query["hub.challenge"][0].encode()),
    ):
        subscriber.server.verify = answer
        assert subscriber.ask("subscribe") == 202
        subscriber.verification()
    # Whoever confirms later is there later; those before have left nothing, and were asked once each.
    subscriber.server.verify = subscriber.confirm
    assert subscriptions() == []
    publish(b'{"n":1}')
    subscriber.subscribed()
    publish(b'{"n":2}')
    assert subscriber.content()[2] == b'{"n":2}'
    assert subscriber.server.verifications.empty()


def lease():
    """With a longest lease of two seconds."""
    subscriber = Subscriber()
    query = subscriber.subscribed(lease_seconds="3600")
    assert query["hub.lease_seconds"] == "2", query
    publish(b'{"n":1}')
    assert subscriber.content()[2] == b'{"n":1}'
    eventually("the end of the lease", lambda: subscriber.find() is None)
    publish(b'{"n":2}')
    subscriber.subscribed()
    publish(b'{"n":3}')
    assert subscriber.content()[2] == b'{"n":3}'


def renewal():
    subscriber = Subscriber()
    subscriber.subscribed(secret="first", lease_seconds="600")
    before = subscriber.find()
    publish(b'{"n":1}')
    _, headers, body = subscriber.content()
    assert is_signed(headers, body, "first")
    # A renewal that is not confirmed changes nothing.
    subscriber.server.verify = lambda query: (404, b"")
    assert subscriber.ask("subscribe", secret="forged") == 202
    subscriber.verification()
    publish(b'{"n":2}')
    _, headers, body = subscriber.content()
    assert is_signed(headers, body, "first") and not is_signed(headers, body, "forged")
    subscriber.server.verify = subscriber.confirm
    # The host of the topic's URL may be another name of the same relay.
    other_name = TOPIC.replace("127.0.0.1", "localhost")
    assert subscriber.ask("subscribe", topic=other_name, secret="second", lease_seconds="6000") == 202
    assert subscriber.verification()["hub.topic"] == other_name
    later = lambda: subscriber.find()["websub"]["lease_ends_at"] > before["websub"]["lease_ends_at"]
    eventually("a longer lease", later)
    after = subscriber.find()
    assert after["id"] == before["id"]
    publish(b'{"n":3}')
    _, headers, body = subscriber.content()
    assert body == b'{"n":3}' and is_signed(headers, body, "second") and not is_signed(headers, body, "first")
    assert links(headers)["self"] == other_name


def unsubscribe():
    subscriber, other = Subscriber(), Subscriber()
    subscriber.subscribed()
    other.subscribed()
    subscriber.server.verify = lambda query: (404, b"")
    assert subscriber.ask("unsubscribe") == 202
    query = subscriber.verification()
    assert query["hub.mode"] == "unsubscribe" and query["hub.topic"] == TOPIC and query["hub.challenge"], query
    publish(b'{"n":1}')
    assert subscriber.content()[2] == other.content()[2] == b'{"n":1}'
    subscriber.server.verify = subscriber.confirm
    assert subscriber.ask("unsubscribe") == 202
    subscriber.verification()
    eventually("no subscription", lambda: subscriber.find() is None)
    publish(b'{"n":2}')
    assert other.content()[2] == b'{"n":2}'
    assert subscriber.server.contents.empty() and other.find() is not None
    # There is nothing to end any more, and nobody is asked about it.
    assert subscriber.ask("unsubscribe") == 202
    assert subscriber.server.verifications.empty()


def gone():
    subscriber = Subscriber()
    subscriber.subscribed()
    subscriber.server.deliver = lambda body: 410
    publish(b'{"n":1}')
    eventually("the end of the subscription", lambda: subscriber.find() is None)
    assert subscriber.server.contents.qsize() == 1
    subscriber.server.deliver = lambda body: 200
    subscriber.subscribed()
    publish(b'{"n":2}')
    subscriber.content()
    assert subscriber.content()[2] == b'{"n":2}'


def refused():
    subscriber = Subscriber()
    assert subscriber.ask(None) == 422
    assert subscriber.ask("publish") == 422
    assert subscriber.ask("subscribe", topic=None) == 422
    assert subscriber.ask("subscribe", topic=RELAY + "/elsewhere") == 422
    assert subscriber.ask("subscribe", secret="x" * 200) == 422
    assert subscriber.ask("subscribe", lease_seconds="soon") == 422
    for url in ("http://10.0.0.1/cb", "http://127.0.0.1:22/cb", "ftp://127.0.0.1/cb", "nothing", "http://u:p@127.0.0.1/cb"):
        subscriber.url = url
        assert subscriber.ask("subscribe") == 422, url
    assert subscriptions() == [] and subscriber.server.verifications.empty()


SCENARIOS = [discovery_and_delivery, without_a_secret, denied, wrong_echo, lease, renewal, unsubscribe, gone, refused]
{scenario.__name__: scenario for scenario in SCENARIOS}[sys.argv[2]]()
