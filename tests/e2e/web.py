"""A small HTTP/1.1 client on a bare socket: one request a connection, nothing retried, and a
connection that can be cut where the test wants it."""

import asyncio
import hashlib
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import issued

PIECE = 64 * 1024


@dataclass
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: dict = field(default_factory=dict)
    body: bytes = b""

    @property
    def sha256(self):
        """Of the body, in hex."""
        return sha256(self.body)


def sha256(data):
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def _context():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def connect(url, local=None):
    """A connection to where the URL points, at loopback whatever the host's name; from the address
    `local`, where one is given."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    more = {"ssl": _context(), "server_hostname": "localhost"} if secure else {}
    if local:
        more["local_addr"] = (local, 0)
    return await asyncio.open_connection("127.0.0.1", port, **more)


def head(method, url, headers):
    """The request's head."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def read_answer(reader, method="GET"):
    """The final answer; interim ones are skipped."""
    while True:
        block = await reader.readuntil(b"\r\n\r\n")
        lines = block.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        if status >= 200:
            break
    issued.remember(block.decode("latin-1"))
    headers = {}
    for line in lines[1:]:
        if line:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
    if method == "HEAD" or status in (204, 304):
        return Answer(status, headers)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        return Answer(status, headers, body)
    if "content-length" in headers:
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
    return Answer(status, headers, await reader.read())


async def _send(writer, body, cut_after, pause_s):
    sent = 0
    stop = len(body) if cut_after is None else cut_after
    while sent < stop:
        piece = body[sent:min(sent + PIECE, stop)]
        writer.write(piece)
        await writer.drain()
        sent += len(piece)
        if pause_s:
            await asyncio.sleep(pause_s)


async def request(method, url, headers=None, body=b"", cut_after=None, pause_s=0.0, within_s=120.0,
                  deaf=False, local=None):
    """One request. `cut_after`: so many body bytes, then the connection is reset (returns None).
    `deaf`: the whole body, then reset before the answer is read (returns None). `local`: from this
    address."""
    async def go():
        reader, writer = await connect(url, local)
        try:
            all_headers = {"Connection": "close", **(headers or {})}
            if method in ("PUT", "POST", "PATCH"):
                all_headers.setdefault("Content-Length", str(len(body)))
            writer.write(head(method, url, all_headers))
            sending = asyncio.ensure_future(_send(writer, body, cut_after, pause_s))
            if cut_after is not None:
                await sending
                writer.transport.abort()
                return None
            answering = asyncio.ensure_future(read_answer(reader, method))
            if deaf:
                # The answer is on its way when its first byte is there; nobody looks at it.
                await sending
                await answering
                writer.transport.abort()
                return None
            # An early answer counts, as real clients see it, even when the body breaks off.
            await asyncio.wait([sending, answering], return_when=asyncio.FIRST_COMPLETED)
            try:
                answer = await answering
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            return answer
        finally:
            writer.close()
    return await asyncio.wait_for(go(), within_s)


async def put(slot, body, headers=None, **more):
    """PUTs a body on a slot with the slot's headers."""
    return await request("PUT", slot.put, {**slot.headers, **(headers or {})}, body, **more)


async def get(url, headers=None, method="GET"):
    """GETs a URL."""
    return await request(method, url, headers)
