"""The origin behind a pushpin: streams are held by it (Grip-Hold: stream) and fed through its control port.

POST /add/N makes events up to number N. /sse gives what is behind Last-Event-ID, /ndjson everything, then both are held.
Arguments: the control port of pushpin. Prints its port.
"""

import http.client
import http.server
import json
import sys

control = int(sys.argv[1])
made = 0


def sse(n):
    return f"id: {n}\ndata: {json.dumps({'n': n})}\n\n"


def ndjson(n):
    return json.dumps({"n": n}) + "\n"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, headers, body):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        is_sse = self.path == "/sse"
        behind = int(self.headers.get("last-event-id", 0)) if is_sse else 0
        write, kind = (sse, "text/event-stream") if is_sse else (ndjson, "application/x-ndjson")
        body = "".join(write(n) for n in range(behind + 1, made + 1)).encode()
        headers = {"content-type": kind, "grip-hold": "stream", "grip-channel": self.path[1:]}
        self.answer(headers, body)

    def do_POST(self):
        global made
        last = int(self.path.rsplit("/", 1)[1])
        pushpin = http.client.HTTPConnection("127.0.0.1", control)
        for n in range(made + 1, last + 1):
            items = [
                {"channel": name, "formats": {"http-stream": {"content": write(n)}}}
                for name, write in [("sse", sse), ("ndjson", ndjson)]
            ]
            pushpin.request("POST", "/publish/", json.dumps({"items": items}))
            reply = pushpin.getresponse()
            reply.read()
            assert reply.status == 200, reply.status
            if reply.will_close:
                pushpin.close()
        made = last
        self.answer({}, b"")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
