"""Numbered lines over HTTP/1.0: no length, no chunks, the end of the connection is the end. Prints its port."""

import http.server
import json
import sys

last = int(sys.argv[1])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.end_headers()
        try:
            for n in range(1, last + 1):
                self.wfile.write(json.dumps({"n": n}).encode() + b"\n")
            # The connection ends with the process that reads it, or with this one.
            self.rfile.read(1)
        except OSError:
            pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
