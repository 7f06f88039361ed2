"""An upstream that is not ours: serves records in every framing, cut at random bytes, and drops the connection now and then.

    upstream.py RECORDS SEED        one JSON text a line; prints its port

GET /PROTOCOL/TRANSFER reads PROTOCOL (ndjson, sse, json-seq, length, raw, multipart) over TRANSFER (eof, chunked). The first
connections are cut inside a record; the next one begins with the record that was cut, or, for sse, behind Last-Event-ID. The
last connection stays open.
"""
import http.server
import random
import sys
import threading

RECORDS = [line for line in open(sys.argv[1], "rb").read().split(b"\n") if line]
SEED = int(sys.argv[2])
DROPS = 2

TYPES = {
    "ndjson": "application/x-ndjson",
    "sse": "text/event-stream",
    "json-seq": "application/json-seq",
    "length": "application/json",
    "raw": "application/octet-stream",
    "multipart": 'multipart/x-mixed-replace; boundary="cut here"',
}


def framed(protocol, number, record):
    """What stands before a record, the record, and what stands behind it."""
    if protocol == "sse":
        return b": beat\nid: %d\ndata: " % number, record, b"\n\n"
    if protocol == "json-seq":
        return b"\x1e", record, b"\n"
    if protocol == "length":
        return b"\r\n%d\r\n" % (len(record) + 2), record, b"\r\n"
    if protocol == "multipart":
        length = b"Content-Length: %d\r\n" % len(record) if number % 2 else b""
        return b"--cut here\r\nContent-Type: application/json\r\n" + length + b"\r\n", record, b"\r\n"
    return b"\n" if protocol == "ndjson" else b"", record, b"\n"


class Feed:
    """Where the readers of one path are."""

    def __init__(self):
        self.next, self.drops, self.lock = 0, 0, threading.Lock()


FEEDS = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        _, protocol, transfer = self.path.split("/")
        feed = FEEDS.setdefault(self.path, Feed())
        with feed.lock:
            self.serve(feed, protocol, transfer)

    def serve(self, feed, protocol, transfer):
        dice = random.Random(f"{SEED} {self.path} {feed.drops}")
        chunked = transfer == "chunked"
        self.send_response(200)
        self.send_header("Content-Type", TYPES[protocol])
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        self.end_headers()
        if protocol == "sse":
            feed.next = int(self.headers.get("Last-Event-ID", "0"))
        is_last = feed.drops == DROPS
        end = len(RECORDS) if is_last else dice.randrange(feed.next + 1, len(RECORDS) - DROPS + feed.drops)
        body = b"".join(b"".join(framed(protocol, at + 1, RECORDS[at])) for at in range(feed.next, end))
        if protocol == "multipart":
            # A part without a length ends at the boundary behind it.
            body += b"--cut here\r\n"
        if not is_last:
            before, record, _ = framed(protocol, end + 1, RECORDS[end])
            if protocol == "multipart":
                before = before.removeprefix(b"--cut here\r\n")
            # Inside the record, so that nobody can take it for a whole one. Of raw bytes nobody can tell that, unless the
            # transfer says that there was more.
            if protocol != "raw" or chunked:
                body += before + record[: dice.randrange(1, len(record) - 1)]
        feed.next, feed.drops = end, feed.drops + 1
        at = 0
        while at < len(body):
            piece = body[at : at + dice.choice([1, 2, 3, 40, 400, 4000])]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            self.wfile.flush()
            at += len(piece)
        if is_last:
            self.rfile.read(1)
        # Chunks without the last one: cut. Bare bytes: their end is the end of the connection.
        self.close_connection = True


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
