"""Reads events by requests that answer and end: a line of JSON on standard output for each answer that was read whole.

    pull.py poll|conduit URL POSITION COUNT

POSITION is where to begin behind; ends after COUNT events.
"""

import json
import sys

import httpx

form, url, position, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
with httpx.Client(timeout=60, trust_env=False) as client:
    while count > 0:
        if form == "poll":
            answer = client.get(url, params={"after": position, "wait": 30, "limit": 50}).raise_for_status().json()
            events, position = answer["events"], answer["next"]
        else:
            response = client.get(url, params={"format": "conduit", "heartbeat": "30s", "last_event_id": position})
            events, position = response.raise_for_status().json() or [], response.headers["hookcast-next"]
        count -= len(events)
        print(json.dumps({"next": position, "events": events}), flush=True)
