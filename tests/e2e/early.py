"""Clients that resume by themselves, as iOS does: they learn of the upload resource from a 104 and
nothing else, lose their connection, and go on. Direct, with TLS of our own, and behind proxies."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
from dataclasses import dataclass

import web
from bed import free_port, wait_until
from daemon import Slotd
from servers import Caddy, Haproxy, Nginx
from xmpp import Client

SIZE = 1_500_000
# What is sent of it before the network is lost.
SENT = 900_000
STALL_S = 2
BROKEN = (ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError)


@dataclass
class Dialect:
    """The words of one version of the draft, as a client of it says them."""

    version: int

    def _whole(self):
        old = self.version == 3
        return {"Upload-Incomplete": "?0"} if old else {"Upload-Complete": "?1"}

    def creation(self, size):
        """The fields of the PUT."""
        length = {"Upload-Length": str(size)} if self.version >= 6 else {}
        return {"Upload-Draft-Interop-Version": str(self.version), **self._whole(), **length}

    def append(self, offset):
        """The fields of the PATCH that sends all that is left."""
        kind = {"Content-Type": "application/partial-upload"} if self.version >= 6 else {}
        return {"Upload-Draft-Interop-Version": str(self.version), **self._whole(), **kind,
                "Upload-Offset": str(offset)}

    def inquiry(self):
        """The fields of the HEAD."""
        return {"Upload-Draft-Interop-Version": str(self.version)}


DIALECTS = [Dialect(version) for version in (8, 3, 5, 6)]


async def read_head(reader, within_s=20):
    """Status and headers of whatever comes next, interim or final."""
    block = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), within_s)
    lines = block.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in fields}


async def begin(slot, dialect, size):
    """Sends a PUT's head, and nothing of its body."""
    reader, writer = await web.connect(slot.put)
    fields = {**slot.headers, **dialect.creation(size), "Content-Length": str(size)}
    writer.write(web.head("PUT", slot.put, fields))
    return reader, writer


def reset(writer):
    """Loses the connection as a vanishing network device does: at once."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def outcome(reader):
    """What a waiting client sees: the kind of error, or the status that came."""
    try:
        return (await read_head(reader))[0]
    except BROKEN as error:
        if isinstance(error, asyncio.IncompleteReadError) and error.partial:
            return error.partial
        return type(error).__name__


async def go_on(report, words, slot, dialect, location, body):
    """HEAD, PATCH and GET, on connections of their own."""
    answer = await web.request("HEAD", location, dialect.inquiry())
    offset = int(answer.headers.get("upload-offset", -1))
    report.check(answer.status in (200, 204) and 0 < offset <= SENT, f"{words}: HEAD's offset",
                 f"{answer.status}, {offset}")
    answer = await web.request("PATCH", location, dialect.append(offset), body[max(offset, 0):])
    report.equal(answer.status, 201, f"{words}: PATCH of the rest")
    answer = await web.get(slot.get)
    report.equal(answer.sha256, web.sha256(body), f"{words}: SHA-256 received")


async def resume(slotd, alice, report, dialect, loss, where):
    """One upload that is broken off and goes on."""
    words = f"{where}, interop {dialect.version}, {loss}"
    body = os.urandom(SIZE)
    slot = await alice.slot("film.mp4", SIZE, "video/mp4")
    reader, writer = await begin(slot, dialect, SIZE)
    status, fields = await read_head(reader)
    location = fields.get("location", "")
    wanted = (104, str(dialect.version), True)
    got = (status, fields.get("upload-draft-interop-version"),
           location.startswith("/".join(slot.put.split("/")[:3]) + "/"))
    if not report.equal(got, wanted, f"{words}: 104 before the body"):
        writer.transport.abort()
        return
    writer.write(body[:SENT])
    await writer.drain()
    await asyncio.to_thread(wait_until, "bytes arrive", slotd.partials)
    if loss == "reset":
        await asyncio.sleep(0.2)
        reset(writer)
    await go_on(report, words, slot, dialect, location, body)
    if loss == "silence":
        if where.startswith("behind"):
            # Go's proxies wait for the body before they tell that nobody takes it.
            writer.write(body[SENT:])
        seen = await outcome(reader)
        report.check(seen in ("ConnectionResetError", "IncompleteReadError", 502),
                     f"{words}: the older connection is broken, not refused", seen)
        writer.transport.abort()


async def no_interim(alice, report, where, dialect):
    """The same head, where no 104 comes: a plain PUT."""
    body = os.urandom(SIZE)
    slot = await alice.slot("film.mp4", SIZE, "video/mp4")
    reader, writer = await begin(slot, dialect, SIZE)
    writer.write(body)
    status, _ = await read_head(reader)
    report.equal(status, 201, f"{where}, interop {dialect.version}: the first head that comes")
    answer = await web.get(slot.get)
    report.equal(answer.sha256, web.sha256(body), f"{where}: SHA-256 received")
    writer.transport.abort()


async def _stall(alice, report, where):
    """A client that falls silent, and what it sees."""
    slot = await alice.slot("film.mp4", SIZE, "video/mp4")
    reader, writer = await begin(slot, DIALECTS[0], SIZE)
    await read_head(reader)
    writer.write(os.urandom(SENT))
    seen = await outcome(reader)
    report.equal(seen, "ConnectionResetError", f"{where}: silent for {STALL_S} s, Python sees")
    writer.transport.abort()


async def _curl(bed, alice, report, where):
    """What curl says of a transfer that was taken over."""
    slot = await alice.slot("film.mp4", SIZE, "video/mp4")
    path, heads = bed.dir / "film.mp4", bed.dir / "heads"
    path.write_bytes(os.urandom(SIZE))
    heads.unlink(missing_ok=True)
    fields = {**slot.headers, **DIALECTS[0].creation(SIZE)}
    words = [word for name, value in fields.items() for word in ("-H", f"{name}: {value}")]
    child = await asyncio.create_subprocess_exec(
        "curl", "-sSk", "--limit-rate", "100k", "-D", heads, "-T", path, *words, slot.put,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    told = "Location: "
    try:
        await asyncio.to_thread(
            wait_until, "a 104", lambda: heads.exists() and told in heads.read_text(), 10)
        location = heads.read_text().partition(told)[2].splitlines()[0]
        await web.request("HEAD", location)
        output, _ = await asyncio.wait_for(child.communicate(), 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    text = output.decode(errors="replace").strip().splitlines()[-1:]
    # 55 and 56: sending or receiving failed; 52 and 18 would be an end in order.
    report.check(child.returncode in (55, 56), f"{where}: taken over, curl's exit status",
                 f"{child.returncode} {text}")


async def suite(bed, server, report):
    server.start()
    server.accounts("alice")
    await _direct(bed, server, report)
    await _own_tls(bed, server, report)
    for proxy, forwards in [(Nginx, False), (Haproxy, True), (Caddy, True)]:
        await _behind(bed, server, report, proxy, forwards)


@contextlib.asynccontextmanager
async def _serving(bed, server, report, name, port, **http):
    slotd = Slotd(bed, server, name, port=port, http=http,
                  limits={"stall_for": f"{STALL_S} seconds"})
    slotd.start()
    alice = await Client.login(server, "alice")
    await alice.service_up()
    yield slotd, alice
    await alice.close()
    report.equal(slotd.stop(), 0, f"{name}: SIGTERM ends slotd with")


async def _direct(bed, server, report):
    port = free_port()
    async with _serving(bed, server, report, "slotd", port) as (slotd, alice):
        for dialect in DIALECTS:
            for loss in ("reset", "silence"):
                await resume(slotd, alice, report, dialect, loss, "direct")
        await no_interim(alice, report, "direct", Dialect(7))
        await _stall(alice, report, "direct")
        await _curl(bed, alice, report, "direct")


async def _own_tls(bed, server, report):
    port = free_port()
    bed.certificate()
    pair = {"certificate": str(bed.dir / "tls.crt"), "key": str(bed.dir / "tls.key")}
    url = f"https://localhost:{port}/"
    async with _serving(bed, server, report, "slotd-tls", port, public_url=url,
                        tls=pair) as (slotd, alice):
        for loss in ("reset", "silence"):
            await resume(slotd, alice, report, DIALECTS[0], loss, "own TLS")
        await _stall(alice, report, "own TLS")
        await _curl(bed, alice, report, "own TLS")


async def _behind(bed, server, report, kind, forwards):
    port = free_port()
    proxy = kind(bed, port)
    name = kind.__name__.lower()
    url = f"https://localhost:{proxy.port}/"
    more = {"proxy_forwards_1xx": True} if forwards else {}
    async with _serving(bed, server, report, f"slotd-{name}", port, public_url=url,
                        trusted_proxies=["127.0.0.1"], **more) as (slotd, alice):
        proxy.start()
        for dialect in DIALECTS:
            if forwards:
                await resume(slotd, alice, report, dialect, "reset", f"behind {name}")
            else:
                await no_interim(alice, report, f"behind {name}", dialect)
        if forwards:
            await resume(slotd, alice, report, DIALECTS[0], "silence", f"behind {name}")
            said = proxy.process.tail(10_000)
            report.check("film.mp4" not in said, f"{name}'s log has no links")
