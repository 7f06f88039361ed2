"""Replays recordings over WebSocket with the library `websockets`: path /NAME is the file NAME.txt of a folder.

Lines begin with `> ` (what the client has to say first) or `< ` (what the server says then). /jetstream goes on at the message
whose time_us is the cursor: ?cursor=N, or with ?said the first message of the client, {"cursor": N}. Prints its port.
"""

import asyncio
import json
import logging
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve

# Clients that are cut off are what this is for.
logging.disable(logging.CRITICAL)
folder = sys.argv[1]


async def first_to_send(connection, url, wanted, messages):
    """How many messages this client has already; None when it said something wrong."""
    if url.path == "/jetstream":
        query = parse_qs(url.query, keep_blank_values=True)
        cursor = query.get("cursor", [None])[0]
        if "said" in query:
            cursor = json.loads(await connection.recv()).get("cursor")
        at = (n for n, message in enumerate(messages) if str(json.loads(message)["time_us"]) == str(cursor))
        return 0 if cursor is None else next(at)
    for text in wanted:
        if await connection.recv() != text:
            return None
    return 0


async def talk(connection):
    url = urlsplit(connection.request.path)
    lines = open(f"{folder}{url.path}.txt", encoding="utf-8").read().split("\n")
    wanted = [line[2:] for line in lines if line.startswith("> ")]
    messages = [line[2:] for line in lines if line.startswith("< ")]
    start = await first_to_send(connection, url, wanted, messages)
    if start is None:
        return await connection.close(1008, "that is not what was to be said")
    for message in messages[start:]:
        await connection.send(message)
    await connection.wait_closed()


async def main():
    async with serve(talk, "127.0.0.1", 0, max_size=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
