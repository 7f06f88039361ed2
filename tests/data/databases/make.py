#!/usr/bin/env python3
"""Makes the databases of this folder: `make.py HOOKCAST FOLDER`.

HOOKCAST is the program whose database is to be kept, FOLDER where the files go. Each database is `NAME.db.gz`; beside it stands
`NAME.json`: what that program answered about it last, which every later one must answer, too. What has something left to
deliver is paused, so that nothing happens at a start before a test has told it where its receiver is.
"""

import gzip
import http.client
import http.server
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ADMIN = "an-admin-token-of-the-tests-0123456789"
KEYS = ["MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="]
AGES = '[retention]\nmax_age = "36500d"\ndead_letters_max_age = "36500d"\n[history]\nmax_age = "36500d"\n[dedupe]\nmax_age = "36500d"\n'
GROUP = "[limit_groups.partners]\nper_second = 50\nmax_in_flight = 4\n"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers by the path: the word behind the last slash says how."""

    protocol_version = "HTTP/1.1"
    hanging = threading.Event()

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        how = self.path.rsplit("/", 1)[-1]
        if how == "token":
            return self.send(200, b'{"access_token":"t0ken","token_type":"Bearer","expires_in":3600}', "application/json")
        if how == "hang" and b"hang" in body:
            Receiver.hanging.set()
            time.sleep(600)
        words = {"fail": 500, "gone": 410, "never": 404}
        if how == "some" and b"bad" not in body:
            return self.send(204, b"")
        self.send(words.get(how, 500 if how == "some" else 200), b"no" if how in words or how == "some" else b"")

    do_GET = do_POST = do_OPTIONS = answer

    def send(self, status, body, kind="text/plain"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Upstream(http.server.BaseHTTPRequestHandler):
    """A stream of server-sent events with ids, then silence."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        after = int(self.headers.get("last-event-id") or 0)
        for n in range(after + 1, 6):
            self.wfile.write(f'id: {n}\nevent: tick\ndata: {{"n":{n}}}\n\n'.encode())
            self.wfile.flush()
        time.sleep(600)

    def log_message(self, *_):
        pass


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


class Relay:
    def __init__(self, program, folder):
        self.program, self.folder, self.process, self.token = program, folder, None, None
        self.database = os.path.join(folder, "hookcast.db")

    def start(self, sections="", env=None):
        with open(os.path.join(self.folder, "config.toml"), "w") as file:
            file.write('[server]\nlisten = "127.0.0.1:0"\n[storage]\nurl = "sqlite://hookcast.db"\n[network]\nallow = ["127.0.0.0/8"]\n')
            file.write((AGES if "[retention]" not in sections else "") + GROUP + sections)
        env = {"PATH": os.environ["PATH"], "HOOKCAST_LOG": "warn", **(env or {})}
        log = open(os.path.join(self.folder, "log.txt"), "ab")
        self.process = subprocess.Popen([self.program, "serve", "--config", "config.toml"], cwd=self.folder, env=env,
                                        stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline().decode()
        if "http://" not in line:
            sys.exit("the relay did not start: " + open(log.name).read())
        self.port = int(line.rstrip("/\n").rsplit(":", 1)[1])

    def ends(self, how):
        self.process.send_signal(how)
        code = self.process.wait(60)
        self.process.stdout.close()
        assert how == signal.SIGKILL or code == 0, code

    def stop(self):
        self.ends(signal.SIGTERM)

    def run(self, *arguments):
        done = subprocess.run([self.program, *arguments], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        time.sleep(0.01)

    def ask(self, method, path, body=None, kind="application/json"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"content-type": kind}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        data = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else None

    def must(self, method, path, body=None, kind="application/json"):
        status, value = self.ask(method, path, body, kind)
        assert 200 <= status < 300, (method, path, status, value)
        return value

    def until(self, what, path, is_so):
        for _ in range(3000):
            value = self.must("GET", path)
            if is_so(value):
                return value
            time.sleep(0.01)
        sys.exit(f"never: {what}: {json.dumps(value)}")

    def subscribe(self, name, url, **more):
        body = {"id": name, "url": url, "topics": ["orders.*"], "signature": {"scheme": "standard", "secret": SECRET}, **more}
        return self.must("POST", "/v1/subscriptions", body)

    def publish(self, topic, *events):
        lines = "\n".join(json.dumps(event) for event in events)
        return [e["seq"] for e in self.must("POST", f"/v1/topics/{topic}/events", lines, "application/x-ndjson")["events"]]

    def pause(self, name):
        self.must("POST", f"/v1/subscriptions/{name}/pause", {})

    def settles(self, name, **wanted):
        def is_so(status):
            return all(status[key] == value for key, value in wanted.items())
        return self.until(f"{name} {wanted}", f"/v1/subscriptions/{name}/status", is_so)


def identity(folder):
    """A certificate of its own and its key."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "36500",
                    "-subj", "/CN=relay of the tests", "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True,
                   capture_output=True)
    return [open(os.path.join(folder, name)).read() for name in ("cert.pem", "key.pem")]


def definitions(relay, receiver, cert, key):
    """One subscription of every kind; none of them has anything left to deliver."""
    ok = receiver + "/ok"
    relay.subscribe("none", ok)
    relay.subscribe("strict", ok, ordering="strict")
    relay.subscribe("blocks", ok, ordering="strict", on_dead="block")
    relay.subscribe("key", ok, ordering={"key": "/customer"})
    batch = {"max_events": 5, "max_bytes": 65536, "max_wait": "50ms"}
    for form in ("json-array", "ndjson", "cloudevents"):
        relay.subscribe(f"batch-{form}", ok, batch={**batch, "format": form})
    relay.subscribe("filter", ok, filter="data.total > 20")
    relay.subscribe("any-type", ok, types=["*"])
    relay.subscribe("one-type", ok, types=["message", "order.created"])
    template = {"content_type": "application/json", "body": '{"text": {{ data.customer | tojson }}, "seq": {{ seq }}}'}
    relay.subscribe("template", ok, payload="template", template=template)
    relay.subscribe("structured", ok, payload="structured")
    for scheme, secret in (("hub", "a-hub-secret-of-the-tests"), ("stripe", SECRET)):
        relay.subscribe(f"signed-{scheme}", ok, signature={"scheme": scheme, "secret": secret})
    relay.subscribe("signed-ed25519", ok, signature={"scheme": "standard-ed25519"})
    relay.subscribe("signed-twice", ok, signature=[{"scheme": "standard", "secret": SECRET}, {"scheme": "standard-ed25519"}])
    relay.must("POST", "/v1/subscriptions/signed-twice/secret/rotate", {"scheme": "standard", "overlap": "7d"})
    relay.subscribe("signed-not", ok, signature={"scheme": "none"})
    relay.subscribe("basic", ok, auth={"basic": {"username": "me", "password": "pa%ss:word"}})
    oauth2 = {"token_url": receiver + "/token", "client_id": "relay", "client_secret": "cl1ent-s3cret", "scopes": ["a", "b"]}
    relay.subscribe("oauth2", ok, auth={"oauth2": oauth2})
    relay.subscribe("mtls", "https://127.0.0.1:18999/", topics=["none.*"], auth={"mtls": {"cert_pem": cert, "key_pem": key}}, ca_pem=cert)
    relay.subscribe("limited", ok, limit_group="partners", rate_limit={"per_second": 100, "burst": 10}, max_in_flight=3)
    relay.subscribe("headers", ok, headers={"X-Tenant": "acme", "Authorization": "Bearer of-the-receiver"}, description="kept",
                    metadata={"team": "billing"}, timeout="7s")
    relay.subscribe("paused", ok)
    relay.pause("paused")
    relay.subscribe("unverified", receiver + "/never", verify="challenge")
    relay.subscribe("disabled", receiver + "/gone")
    relay.subscribe("ops", ok, topics=["hookcast.**"])


def waiting(relay, receiver):
    """What waits, died, was skipped: each in a subscription of its own."""
    slow = {"max_attempts": 9, "schedule": ["1s", "30d"], "jitter": 0}
    once = {"max_attempts": 1, "schedule": ["1s"]}
    fail = receiver + "/fail"
    relay.subscribe("retrying", fail, topics=["r.none"], retry=slow)
    relay.subscribe("retrying-strict", fail, topics=["r.none"], retry=slow, ordering="strict")
    relay.subscribe("retrying-key", receiver + "/some", topics=["r.none"], retry=slow, ordering={"key": "/customer"})
    relay.subscribe("retrying-batch", fail, topics=["r.none"], retry=slow, batch={"max_events": 3, "max_bytes": 65536, "max_wait": "20ms", "format": "ndjson"})
    relay.subscribe("dead", fail, topics=["d.none"], retry=once)
    relay.subscribe("dead-some", receiver + "/some", topics=["d.none"], retry=once)
    relay.subscribe("dead-batch", fail, topics=["d.none"], retry=once, batch={"max_events": 2, "max_bytes": 65536, "max_wait": "20ms", "format": "json-array"})
    relay.subscribe("skipped", receiver + "/ok", topics=["s.none"])
    relay.subscribe("replaying", receiver + "/ok", topics=["orders.*"], rate_limit={"per_second": 1, "burst": 1})
    relay.pause("skipped")
    relay.publish("r.none", *({"n": n, "customer": "ann" if n % 2 else "bob", "bad": 1} for n in range(3)))
    for name in ("retrying", "retrying-strict", "retrying-key", "retrying-batch"):
        relay.until(f"{name} waits", f"/v1/subscriptions/{name}/status", lambda status: status["retrying"] > 0)
        relay.pause(name)
    relay.publish("d.none", {"n": 0, "bad": 1}, {"n": 1}, {"n": 2, "bad": 1}, {"n": 3})
    relay.settles("dead", dead=4)
    relay.settles("dead-some", dead=2, lag=0)
    relay.settles("dead-batch", dead=4)
    seqs = relay.publish("s.none", {"n": 0}, {"n": 1}, {"n": 2})
    relay.must("POST", "/v1/subscriptions/skipped/skip", {"to": seqs[1]})
    for name in ("dead", "dead-some", "dead-batch"):
        relay.pause(name)


def jobs(relay):
    """A job that ended and one that runs."""
    ended = relay.must("POST", "/v1/subscriptions/none/replay", {"from": "earliest"})
    relay.until("an ended job", f"/v1/subscriptions/none/jobs/{ended['job']}", lambda job: job["state"] == "done")
    relay.pause("replaying")
    relay.must("POST", "/v1/subscriptions/replaying/replay", {"from": "earliest"})


def expired(relay):
    """Events that retention took before a subscription saw them."""
    relay.start()
    relay.subscribe("late", "http://127.0.0.1:18999/", topics=["old.*"])
    relay.pause("late")
    relay.publish("old.x", *({"n": n} for n in range(5)))
    relay.publish("other", {"n": 5})
    relay.stop()
    relay.start('[retention]\nmax_age = "1s"\n')
    time.sleep(1.5)
    relay.publish("other", {"n": 6})
    relay.until("retention took them", "/v1/topics", lambda found: all(item["topic"] != "old.x" for item in found["items"]))
    relay.must("POST", "/v1/subscriptions/late/resume", {})
    relay.settles("late", expired=6)
    relay.pause("late")
    relay.stop()


def facts(relay):
    """What the program says of everything in the database."""
    found = {"subscriptions": {}, "sources": {}}
    everything_kept = relay.must("GET", "/v1/topics/**,hookcast.**/events?limit=1000")["events"]
    for shown in relay.must("GET", "/v1/subscriptions?limit=1000")["items"]:
        name = shown["id"]
        at = f"/v1/subscriptions/{name}"
        undelivered = relay.must("GET", f"{at}/undelivered?limit=1000")["items"]
        attempts = relay.must("GET", f"{at}/attempts?limit=1000")["items"]
        seqs = sorted({item["seq"] for item in undelivered} | {item["seq"] for item in attempts if item["seq"]})
        if name in ("late", "skipped"):
            seqs = sorted({*seqs, *range(1, 9), *(int(event["seq"]) for event in everything_kept)})
        status = relay.must("GET", f"{at}/status")
        keep = ("state", "reason", "cursor", "head", "retrying", "dead", "expired", "delivered_total", "failed_attempts_total")
        found["subscriptions"][name] = {
            "definition": relay.must("GET", f"{at}?secrets=true"),
            "status": {key: status[key] for key in keep},
            "undelivered": undelivered,
            "dead_letters": relay.must("GET", f"{at}/dead-letters?limit=1000")["items"],
            "attempts": attempts,
            "jobs": relay.must("GET", f"{at}/jobs")["items"],
            "deliveries": {str(seq): relay.must("GET", f"{at}/deliveries/{seq}") for seq in seqs},
        }
    for shown in relay.must("GET", "/v1/sources")["items"]:
        found["sources"][shown["name"]] = relay.must("GET", f"/v1/sources/{shown['name']}")
    found["events"] = everything_kept
    found["topics"] = relay.must("GET", "/v1/topics")["items"]
    found["audit"] = relay.must("GET", "/v1/audit?limit=1000")["items"]
    found["tokens"] = relay.must("GET", "/v1/tokens")["items"]
    return found


def keep(relay, folder, name, found):
    """Stores a stopped relay's database, small, and what was said of it."""
    for suffix in ("-wal", "-shm"):
        assert not os.path.exists(relay.database + suffix), "it was stopped cleanly"
    database = sqlite3.connect(relay.database)
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with open(relay.database, "rb") as file, open(os.path.join(folder, name + ".db.gz"), "wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as packed:
            packed.write(file.read())
    with open(os.path.join(folder, name + ".json.gz"), "wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as packed:
            packed.write((json.dumps(found, indent=1, sort_keys=True) + "\n").encode())


def everything(program, folder, into):
    relay = Relay(program, folder)
    receiver, upstream = serve(Receiver), serve(Upstream)
    cert, key = identity(folder)
    expired(relay)
    declared = (f'[[subscriptions]]\nid = "declared"\nurl = "{receiver}/ok"\ntopics = ["orders.*"]\nsignature = {{ scheme = "standard", secret = "{SECRET}" }}\n'
                f'[[sources]]\nname = "declared"\nprotocol = "ndjson"\nurl = "{upstream}/none"\ntopic = "feed.declared"\nenabled = false\n')
    relay.start(declared)
    definitions(relay, receiver, cert, key)
    relay.must("POST", "/v1/sources", {"name": "ticks", "protocol": "sse", "url": upstream + "/sse", "topic": "feed.ticks"})
    relay.must("POST", "/v1/sources", {"name": "hooks", "protocol": "webhook", "topic": "feed.hooks",
                                       "settings": {"verify": {"scheme": "github", "secret": "a-github-secret-of-the-tests"}}})
    relay.until("five ticks", "/v1/sources/ticks", lambda shown: shown["counts"]["events"] == 5)
    relay.must("PATCH", "/v1/sources/ticks", {"enabled": False})
    customers = ["ann", "bob", "cem", "ann", "bob", "cem"]
    relay.publish("orders.eu", *({"customer": name, "total": 10 * n} for n, name in enumerate(customers)))
    relay.must("POST", "/v1/topics/orders.us/events", json.dumps({"specversion": "1.0", "id": "once", "source": "/shop", "type": "order.created",
               "subject": "o-1", "dataschema": "https://example.com/o", "region": "north", "data": {"customer": "dee", "total": 30}}),
              "application/cloudevents+json")
    for name in ("none", "strict", "key", "batch-json-array", "batch-ndjson", "batch-cloudevents", "filter", "template", "oauth2", "ops"):
        relay.until(f"{name} delivered", f"/v1/subscriptions/{name}/status", lambda status: status["lag"] == 0 and status["in_flight"] == 0)
    relay.until("disabled", "/v1/subscriptions/disabled", lambda shown: shown["state"] == "disabled")
    waiting(relay, receiver)
    jobs(relay)
    relay.subscribe("deleted", receiver + "/ok")
    relay.must("DELETE", "/v1/subscriptions/deleted")
    # A log that was put back three times, with events between: nothing but its jumps tells of it.
    for n in range(3):
        time.sleep(0.5)
        relay.run("backup", f"copy-{n}.db")
        relay.stop()
        relay.run("restore", "--force", f"copy-{n}.db")
        relay.start(declared)
        relay.publish("orders.eu", {"customer": f"after-{n}", "total": n})
    # In flight, and paused, when the process is killed.
    relay.subscribe("in-flight", receiver + "/hang", topics=["h.none"], timeout="60s")
    relay.publish("h.none", {"hang": 1}, {"n": 1}, {"n": 2})
    Receiver.hanging.wait(30)
    relay.pause("in-flight")
    time.sleep(1)
    relay.ends(signal.SIGKILL)
    # Tokens: by the open relay, by one of them, by the admin's.
    relay.start(declared)
    scopes = ["read", "publish", "stream", "manage"]
    local = relay.must("POST", "/v1/tokens", {"name": "first", "scopes": scopes})
    relay.token = local["token"]
    child = relay.must("POST", "/v1/tokens", {"name": "tenant", "scopes": scopes, "topics": ["acme.**"]})
    limited = relay.must("POST", "/v1/tokens", {"name": "limited", "scopes": scopes, "topics": ["acme.**"], "limits": {"subscriptions": 5}})
    relay.token = child["token"]
    grandchild = relay.must("POST", "/v1/tokens", {"name": "reader", "scopes": ["read"], "topics": ["acme.**"]})
    relay.must("POST", "/v1/subscriptions", {"id": "of-tenant", "url": receiver + "/ok", "topics": ["acme.**"]})
    relay.stop()
    relay.start(declared, {"HOOKCAST_ADMIN_TOKEN": ADMIN})
    relay.token = ADMIN
    admins = relay.must("POST", "/v1/tokens", {"name": "by-admin", "scopes": ["publish"], "topics": ["acme.*"], "expires_at": "2125-01-01T00:00:00Z"})
    gone = relay.must("POST", "/v1/tokens", {"name": "gone", "scopes": ["read"]})
    relay.must("DELETE", f"/v1/tokens/{gone['id']}")
    time.sleep(1)
    found = facts(relay)
    found["secret_tokens"] = {made["name"]: made["token"] for made in (local, child, limited, grandchild, admins)}
    relay.stop()
    keep(relay, into, "everything", found)


def sealed(program, folder, into):
    """Definitions under a former and the present master key."""
    relay = Relay(program, folder)
    receiver = serve(Receiver)
    cert, key = identity(folder)
    relay.start(f'[secrets]\nkey = "{KEYS[0]}"\n')
    definitions(relay, receiver, cert, key)
    relay.publish("orders.eu", {"customer": "ann", "total": 30})
    relay.settles("headers", lag=0, in_flight=0)
    relay.stop()
    relay.start(f'[secrets]\nkey = "{KEYS[1]}"\nprevious_keys = ["{KEYS[0]}"]\n')
    relay.must("PATCH", "/v1/subscriptions/headers", {"description": "sealed anew"})
    relay.must("POST", "/v1/sources", {"name": "sealed", "protocol": "sse", "url": "https://example.com/", "topic": "feed", "enabled": False,
                                       "headers": {"Authorization": "Bearer of-the-upstream"}})
    time.sleep(0.5)
    found = facts(relay)
    relay.stop()
    keep(relay, into, "sealed", found)


def main():
    program, into = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    for make in (everything, sealed):
        folder = tempfile.mkdtemp()
        try:
            make(program, folder, into)
        finally:
            shutil.rmtree(folder)


main()
