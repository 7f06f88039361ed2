"""Follows a topic over plain TCP with nothing but the socket module, through broken connections.

    lines.py PORT TOKEN REQUEST END COUNT      END is lf or nul

Prints what was answered to its two lines on each connection and the events, as one JSON object.
"""

import json
import socket
import sys

port, token, request, ending, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
end = {"lf": b"\n", "nul": b"\0"}[ending]
answers, events, empty = [], [], 0
position = None

while len(events) < count:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    wanted = request if position is None else f"{request} last_event_id={position}"
    connection.sendall(token.encode() + end + wanted.encode() + end)
    rest, answer = b"", None
    while len(events) < count:
        try:
            read = connection.recv(4096)
        except ConnectionResetError:
            read = b""
        if not read:
            break
        *whole, rest = (rest + read).split(end)
        for piece in whole:
            if answer is None:
                answer = piece.decode()
                answers.append(answer)
            elif not piece:
                empty += 1
            else:
                event = json.loads(piece)
                events.append(event)
                position = event["seq"]
    connection.close()
    if answer is None or not answer.startswith("ok "):
        break

print(json.dumps({"answers": answers, "empty": empty, "events": events}))
