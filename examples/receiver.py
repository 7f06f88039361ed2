# A receiver in Python: pip install standardwebhooks; HOOKCAST_SECRET=whsec_… python3 receiver.py
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook

webhook = Webhook(os.environ["HOOKCAST_SECRET"])
seen = set()  # A real receiver keeps these in its database, in the transaction that does the work.


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))  # The bytes as they came, never parsed and written again.
        try:
            webhook.verify(body, dict(self.headers), json_parse=False)  # Without the option it takes JSON only.
        except Exception:
            return self.answer(401)
        webhook_id = self.headers["webhook-id"]
        if webhook_id not in seen:
            print(webhook_id, self.headers["ce-topic"], body.decode(), flush=True)
            seen.add(webhook_id)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9001"))), Receiver).serve_forever()
