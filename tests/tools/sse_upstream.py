"""Numbered events with the library `sse-starlette` under uvicorn: those behind Last-Event-ID, with pings between them.

Sends events 1 to N, then only pings. Prints its port.
"""

import asyncio
import json
import socket
import sys

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.routing import Route

last = int(sys.argv[1])


async def events(request):
    async def numbered():
        for n in range(int(request.headers.get("last-event-id", 0)) + 1, last + 1):
            yield {"id": str(n), "event": "count", "data": json.dumps({"n": n}), "retry": 10}
            if n % 100 == 0:
                await asyncio.sleep(0.03)
        await asyncio.get_running_loop().create_future()

    return EventSourceResponse(numbered(), ping=0.01)


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config(Starlette(routes=[Route("/events", events)]), log_level="critical")
asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
