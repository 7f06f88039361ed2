"""Follows a stream with a library that is not ours and prints every event as a line of JSON: `{"seq", "data"}`.

    stream_client.py LIBRARY URL [LAST_EVENT_ID]

For the formats without text the data is in base64.
"""

import base64
import email
import email.parser
import http.client
import json
import sys
import urllib.parse


def show(seq, data):
    print(json.dumps({"seq": seq, "data": data}), flush=True)


def headers(last):
    return {"last-event-id": last} if last else {}


def httpx_sse(url, last, method="GET", **more):
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(timeout=60, trust_env=False) as client:
        with connect_sse(client, method, url, headers=headers(last), **more) as source:
            for event in source.iter_sse():
                # This library also shows blocks without data; those before the first event have no id.
                if event.id:
                    show(event.id, event.data)


def httpx_sse_post(url, last):
    """As pages do that have more to ask than an address holds: the parameters of the URL go into the body."""
    address, _, query = url.partition("?")
    parameters = dict(urllib.parse.parse_qsl(query))
    httpx_sse(address, last, "POST", json=parameters)


def sseclient(url, last):
    import requests
    import sseclient as library

    session = requests.Session()
    session.trust_env = False
    response = session.get(url, stream=True, timeout=60, headers={"accept": "text/event-stream", **headers(last)})
    response.raise_for_status()
    for event in library.SSEClient(response).events():
        show(event.id, event.data)


def opened(url, last):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("GET", f"{parts.path}?{parts.query}", headers=headers(last))
    response = connection.getresponse()
    assert response.status == 200, response.status
    return response


def boundary_of(response):
    head = email.message_from_string(f"content-type: {response.getheader('content-type')}\n\n")
    assert head.get_content_type() == "multipart/x-mixed-replace"
    return head.get_boundary().encode()


def multipart(url, last):
    """Cuts parts at the boundary alone; their lengths are only compared."""
    response = opened(url, last)
    delimiter = b"\r\n--" + boundary_of(response)
    rest = b"\r\n"
    seen_first = False
    while chunk := response.read1(65536):
        rest += chunk
        while (at := rest.find(delimiter)) >= 0:
            part, rest = rest[:at], rest[at + len(delimiter):]
            if not seen_first:
                seen_first = True
                continue
            head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            head = email.parser.BytesHeaderParser().parsebytes(head + b"\r\n\r\n")
            assert int(head["content-length"]) == len(body), (head.items(), len(body))
            if head["content-transfer-encoding"] == "base64":
                body = base64.b64decode(body)
            show(head["hookcast-seq"], base64.b64encode(body).decode())


def email_parser(url, last):
    """Takes a stream that ends and has the email parser of Python make a message of it."""
    response = opened(url, last)
    head = f"content-type: {response.getheader('content-type')}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.read())
    assert message.is_multipart() and not message.defects, message.defects
    for part in message.get_payload():
        show(part["hookcast-seq"], base64.b64encode(part.get_payload(decode=True)).decode())


if __name__ == "__main__":
    library, url, *last = sys.argv[1:]
    globals()[library](url, last[0] if last else None)
