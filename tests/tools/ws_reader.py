"""Reads a WebSocket stream with the PyPI package `websockets`: to COUNT events in all, with the connection cut after CUT of them.

MODE says how it goes on: `since` puts the position into the address, `message` says it in the subprotocol. Prints one JSON
object: the seq of every event in their order.
"""

import json
import sys

from websockets.sync.client import connect

base, count, cut, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
seqs = []


def read(socket, enough, waiting):
    while len(seqs) < enough:
        message = socket.recv()
        assert isinstance(message, str), "an event is text"
        event = json.loads(message)
        if event["type"] == "hookcast.resumed":
            waiting = False
        elif not waiting:
            seqs.append(int(event["seq"]))


first = connect(f"{base}?since=earliest", open_timeout=20)
read(first, cut, False)
first.socket.close()
last = seqs[-1]
if mode == "since":
    second = connect(f"{base}?since={last}", open_timeout=20)
else:
    second = connect(f"{base}?since=latest", subprotocols=["hookcast.v1"], open_timeout=20)
    assert second.subprotocol == "hookcast.v1"
    second.send(json.dumps({"resume": last}))
read(second, count, mode == "message")
second.close()
print(json.dumps({"seqs": seqs, "code": second.close_code}))
sys.stdout.flush()
# The thread that serves the cut connection may still wait for it.
import os  # noqa: E402

os._exit(0)
