"""Phones and what they do: an upload that goes on where it was, and one that begins again.

A phone is told when its network changes, as a phone's system tells its programs. Its connection of
before stays open: what is in its buffer may still arrive when the old path heals.
"""

import asyncio
import time
from dataclasses import dataclass, field

import web
from network import address
from sessions import APPEND

PIECE = 16 * 1024
RETRY_S = 0.05
KINDS = ["silent", "down", "late"]


class Wrong(Exception):
    """The service did what it must not."""


class Lost(ConnectionError):
    """The connection ended, or was left, without an answer."""


@dataclass
class Tally:
    """What the phones saw. `twice`: bytes a phone had handed to its network beyond the offset it
    was told then, so an upper bound of what crosses a network twice."""

    sent: int = 0
    twice: int = 0
    twice_max: int = 0
    gaps_ms: list = field(default_factory=list)
    offsets: list = field(default_factory=list)
    went_back: int = 0
    n_done: int = 0
    failures: list = field(default_factory=list)

    def resumed(self, front, offset):
        """An offset was told to a phone that had sent up to `front`."""
        self.twice += max(0, front - offset)
        self.twice_max = max(self.twice_max, front - offset)
        self.offsets.append(offset)

    def gap(self, share):
        """The gap that so great a share of the resumes did not exceed."""
        ordered = sorted(self.gaps_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Phone:
    """One phone: it is in one network at a time."""

    def __init__(self, net, n=0):
        self.net, self.n = net, n
        self.at, self.before = "wifi", "lte"
        self.moved = asyncio.Event()

    @property
    def source(self):
        """Its address now."""
        return address(self.at, self.n)

    def move(self):
        """From now on it uses the other network, and whoever waits for that is told."""
        self.at, self.before = self.before, self.at
        moved, self.moved = self.moved, asyncio.Event()
        moved.set()

    def lose(self):
        """Its path vanishes at the router, and nobody is told."""
        self.net.cut(self.source)

    def heal(self):
        """The path of before is there again."""
        self.net.heal(address(self.before, self.n))


class Transfer:
    """One request on a connection of its own. `mark`: `reached` is set when so many body bytes are
    sent; with `halt` not one more follows."""

    def __init__(self, phone, method, url, headers=None, body=b"", mark=None, halt=False,
                 rate=None):
        self.phone, self.method, self.url = phone, method, url
        self.headers = {"Connection": "close", **(headers or {})}
        if method in ("PUT", "PATCH"):
            self.headers["Content-Length"] = str(len(body))
        self.body, self.mark, self.halt, self.rate = body, mark, halt, rate
        self.reached, self.n_written, self.writer = asyncio.Event(), 0, None
        self.task = asyncio.ensure_future(self._run())

    @property
    def sent(self):
        """Body bytes handed to the network."""
        if self.writer is None:
            return 0
        return max(0, self.n_written - self.writer.transport.get_write_buffer_size())

    async def _run(self):
        try:
            reader, self.writer = await self.phone.net.connect(self.phone.source, self.url)
            self.writer.transport.set_write_buffer_limits(0)
            self.writer.write(web.head(self.method, self.url, self.headers))
            sending = asyncio.ensure_future(self._send())
            try:
                # An early answer counts, also when the body breaks off.
                return await web.read_answer(reader, self.method)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except (OSError, EOFError) as error:
            raise Lost(f"{self.method}: {type(error).__name__}") from None

    async def _send(self):
        began = time.monotonic()
        while self.n_written < len(self.body):
            stop = self.n_written + PIECE
            if self.mark is not None and self.n_written < self.mark:
                stop = min(stop, self.mark)
            piece = self.body[self.n_written:stop]
            self.writer.write(piece)
            self.n_written += len(piece)
            await self.writer.drain()
            if self.mark is not None and self.n_written >= self.mark:
                self.reached.set()
                if self.halt:
                    return
            if self.rate:
                ahead = self.n_written / self.rate - (time.monotonic() - began)
                await asyncio.sleep(max(0.0, ahead))
        self.reached.set()

    async def answer(self):
        """The answer; `Lost` when there is none, or when the phone moves first."""
        moved = asyncio.ensure_future(self.phone.moved.wait())
        try:
            await asyncio.wait([self.task, moved], return_when=asyncio.FIRST_COMPLETED)
            if self.task.done():
                return self.task.result()
            await self.leave()
            raise Lost(f"{self.method}: the network changed")
        finally:
            moved.cancel()

    async def at_mark(self):
        """Waits until the mark is reached; an early end is told."""
        reached = asyncio.ensure_future(self.reached.wait())
        await asyncio.wait([self.task, reached], return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        if self.task.done():
            return self.task.result()
        return None

    def poison(self):
        """What is not yet sent becomes other bytes; returns where they begin."""
        self.body = self.body[:self.n_written] + b"\0" * (len(self.body) - self.n_written)
        return self.n_written

    async def leave(self):
        """Nobody sends or listens any more; the connection stays, with what is in its buffer."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def close(self, reset=False):
        """Ends the connection: with FIN, or as if the phone had lost its memory."""
        if self.writer is None:
            return
        if reset:
            self.writer.transport.abort()
        else:
            self.writer.close()


class Upload:
    """An upload by a client that knows upload sessions."""

    def __init__(self, phone, body, slot, session, tally, rate=None):
        self.phone, self.body, self.tally, self.rate = phone, body, tally, rate
        self.slot, self.id, self.resume_url = slot, session["id"], session["resume-url"]
        self.told = int(session["offset"])
        self.start = 0
        self.transfer, self.left = None, []

    @property
    def front(self):
        """How far the bytes handed to a network reach."""
        return self.start + (self.transfer.sent if self.transfer else 0)

    def begin(self, **more):
        """The PUT from the first byte, as every client sends it."""
        self._start(0, "PUT", self.slot.put, self.slot.headers, **more)

    def append(self, **more):
        """A PATCH from the offset the service told."""
        headers = {**APPEND, "Upload-Offset": str(self.told)}
        self._start(self.told, "PATCH", self.resume_url, headers, **more)

    def _start(self, start, method, url, headers, **more):
        self.start = start
        self.transfer = Transfer(self.phone, method, url, headers, self.body[start:],
                                 rate=self.rate, **more)
        self.left.append(self.transfer)

    def learn(self, offset):
        """Takes an offset from the service."""
        if offset < self.told or offset > len(self.body):
            self.tally.went_back += 1
        self.told = offset
        self.tally.resumed(self.front, offset)

    async def find(self, timed=True):
        """Asks for the offset until there is one; True when the upload is complete already.
        `timed`: from the first request's beginning on the network the phone is in."""
        began, source = time.monotonic(), self.phone.source
        while True:
            if source != self.phone.source:
                began, source = time.monotonic(), self.phone.source
            try:
                asked = Transfer(self.phone, "HEAD", self.resume_url)
                answer = await asked.answer()
            except Lost:
                await asyncio.sleep(0 if source != self.phone.source else RETRY_S)
                continue
            finally:
                asked.close()
            if answer.status >= 500:
                await asyncio.sleep(RETRY_S)
                continue
            if answer.status != 204:
                raise Wrong(f"HEAD of the resume URL: {answer.status} {answer.headers}")
            if timed:
                self.tally.gaps_ms.append((time.monotonic() - began) * 1000)
            self.learn(int(answer.headers["upload-offset"]))
            return answer.headers["upload-complete"] == "?1"

    async def finish(self):
        """Goes on, whatever breaks, until the upload is complete."""
        while True:
            try:
                answer = await self.transfer.answer()
                if answer.status == 201:
                    break
                if answer.status != 409 and answer.status < 500:
                    raise Wrong(f"{self.transfer.method}: {answer.status} {answer.body!r}")
            except Lost:
                pass
            self.tally.sent += self.transfer.sent
            if await self.find():
                self.transfer = None
                break
            self.append()
        if self.transfer:
            self.tally.sent += self.transfer.sent

    async def arrived(self):
        """Whether what is downloaded is what was to be uploaded; ends all connections."""
        for transfer in self.left:
            transfer.close()
        return await arrived(self.phone, self.slot, self.body)


async def arrived(phone, slot, body):
    """Whether the GET URL gives the body's bytes."""
    while True:
        try:
            got = Transfer(phone, "GET", slot.get)
            answer = await got.answer()
            return answer.status == 200 and answer.sha256 == web.sha256(body)
        except Lost:
            await asyncio.sleep(RETRY_S)
        finally:
            got.close()


class PlainUpload:
    """An upload by a client that knows XEP-0363 alone: it repeats its PUT."""

    def __init__(self, phone, body, slot, tally):
        self.phone, self.body, self.slot, self.tally = phone, body, slot, tally
        self.transfer, self.left, self.n_repeats = None, [], 0

    def begin(self, **more):
        """The PUT."""
        self.transfer = Transfer(self.phone, "PUT", self.slot.put, self.slot.headers, self.body,
                                 **more)
        self.left.append(self.transfer)

    async def finish(self):
        """The status of the PUT that was answered."""
        while True:
            try:
                answer = await self.transfer.answer()
                self.tally.sent += self.transfer.sent
                if answer.status < 500:
                    return answer.status
            except Lost:
                self.tally.sent += self.transfer.sent
            self.tally.twice += self.transfer.sent
            self.n_repeats += 1
            if self.n_repeats > 100:
                raise Wrong("the PUT breaks again and again")
            await asyncio.sleep(RETRY_S if self.transfer.sent == 0 else 0)
            self.begin()

    async def arrived(self):
        """Whether what is downloaded is what was uploaded; ends all connections."""
        for transfer in self.left:
            transfer.close()
        return await arrived(self.phone, self.slot, self.body)
