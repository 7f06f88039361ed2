"""An upstream that is asked again and again, made with Python's own server: long polls, conditional polls, feeds, pages.

Usage: polled.py FILE. FILE has a JSON object a line, newest first. Prints its port. The oldest ones are released by POST
/release?n=N; only those that are released are served.
  /long?after=C&wait=S    {"events":[...],"next":"C'"}: what was released behind C, at most 10; held until there is something
  /list.json              {"type":"FeatureCollection","features":[...]}, newest first, with ETag, compressed if asked for
  /feed.atom, /feed.rss   the same as a feed
  /pages?page=N           a list of 10, the next one named by a Link header
  /seen                   how often each path was answered with each status
"""

import gzip
import hashlib
import http.server
import json
import sys
import threading
import time
import urllib.parse
from email.utils import formatdate
from xml.sax.saxutils import escape

ITEMS = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")][::-1]
released = 0
seen = {}
change = threading.Condition()


def title(item):
    return escape(item["properties"]["title"])


def atom(items):
    entries = "".join(
        f'<entry><id>urn:quake:{item["id"]}</id><title>{title(item)}</title>'
        f'<link href="{escape(item["properties"]["url"])}"/>'
        f'<updated>{time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(item["properties"]["time"] / 1000))}</updated></entry>'
        for item in items
    )
    return f'<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>quakes</title><id>urn:quakes</id>{entries}</feed>'


def rss(items):
    entries = "".join(
        f'<item><guid>{item["id"]}</guid><title>{title(item)}</title><link>{escape(item["properties"]["url"])}</link>'
        f'<pubDate>{formatdate(item["properties"]["time"] / 1000)}</pubDate></item>'
        for item in items
    )
    return (
        '<?xml version="1.0"?><rss version="2.0"><channel><title>quakes</title><link>http://localhost/</link>'
        f"<description>d</description>{entries}</channel></rss>"
    )


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body=b"", kind="application/json", **headers):
        path = self.path.split("?")[0]
        with change:
            counts = seen.setdefault(path, {})
            counts[str(status)] = counts.get(str(status), 0) + 1
        if body and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            headers["Content_Encoding"] = "gzip"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 304:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def conditional(self, text, kind):
        etag = '"' + hashlib.sha1(text.encode()).hexdigest() + '"'
        if self.headers.get("If-None-Match") == etag:
            return self.answer(304, ETag=etag)
        self.answer(200, text.encode(), kind, ETag=etag)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        items = ITEMS[:released][::-1]
        if url.path == "/long":
            after = int(query.get("after", "0"))
            with change:
                change.wait_for(lambda: released > after, timeout=float(query.get("wait", "1")))
            events = ITEMS[after : min(released, after + 10)]
            self.answer(200, json.dumps({"events": events, "next": str(after + len(events))}).encode())
        elif url.path == "/list.json":
            self.conditional(json.dumps({"type": "FeatureCollection", "features": items}), "application/json")
        elif url.path == "/feed.atom":
            self.conditional(atom(items), "application/atom+xml")
        elif url.path == "/feed.rss":
            self.conditional(rss(items), "text/xml; charset=utf-8")
        elif url.path == "/pages":
            page = int(query.get("page", "0"))
            part = ITEMS[:released][page * 10 : page * 10 + 10]
            links = {"Link": f'<?page={page + 1}>; rel="next"'} if len(part) == 10 else {}
            self.answer(200, json.dumps(part).encode(), **links)
        elif url.path == "/seen":
            with change:
                body = json.dumps(seen).encode()
            self.answer(200, body)
        else:
            self.answer(404)

    def do_POST(self):
        global released
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        with change:
            released = min(released + int(query["n"]), len(ITEMS))
            change.notify_all()
        self.answer(200)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
