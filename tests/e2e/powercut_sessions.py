"""Upload sessions under power cuts: a client that sends its files in pieces, asks how far they are
over HTTP and over XMPP, and notes every offset it is told."""

import asyncio
import os

import web
from sessions import APPEND, announced, asked
from xmpp import Refused

SIZES = [200_000, 24_000_000, 24_000_000]
PIECES = [100_000, 24_000_000, 24_000_000]
# Of the requests, how many the client itself breaks off.
CUT_SHARE = 0.2
# Between writes of 64 KiB: the disk is not full before the cuts are over.
PAUSE_S = 0.004
# Between two questions over XMPP.
ASK_EVERY_S = 0.05
BROKEN = (OSError, EOFError, asyncio.TimeoutError, ValueError, Refused)


class Told:
    """What all clients saw. `n_live`: offsets told of a request that went on. `back`: offsets that
    were less than what was told before."""

    def __init__(self):
        self.acknowledged, self.statuses, self.slots = {}, {}, []
        self.n_told = self.n_live = self.n_resumed = 0
        self.back, self.gone = [], []
        self.stop = False

    def count(self, answer):
        """Counts an answer by its status."""
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1


class Resumer:
    """One client, one upload at a time; each goes on until it is complete."""

    def __init__(self, client, tally, chance):
        self.client, self.tally, self.chance = client, tally, chance
        self.told = self.end = 0

    async def run(self):
        """Uploads until the tally says to stop, and then to the end of the last file."""
        while not self.tally.stop:
            body = os.urandom(self.chance.choice(SIZES))
            try:
                slot, session = await announced(self.client, "cut.bin", len(body), within_s=2)
            except BROKEN:
                await asyncio.sleep(ASK_EVERY_S)
                continue
            self.tally.slots.append(slot)
            self.told = int(session["offset"])
            watching = asyncio.ensure_future(self._watch(session["id"]))
            try:
                while not (over := await self._append(body, session["resume-url"])):
                    pass
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            if over == "complete":
                self.tally.acknowledged[slot.get] = web.sha256(body)

    def _learn(self, offset, floor):
        """Takes an offset; `floor` is what was told when the question was asked."""
        self.tally.n_told += floor < offset
        if offset < floor:
            self.tally.back.append((floor, offset))
            self.told = offset
        else:
            self.told = max(self.told, offset)

    async def _watch(self, id):
        while True:
            floor = self.told
            try:
                answer = await self.client.iq(asked("session", id), within_s=2)
                offset = int(answer[0].get("offset"))
                self.tally.n_live += floor < offset < self.end
                self._learn(offset, floor)
            except BROKEN:
                pass
            await asyncio.sleep(ASK_EVERY_S)

    async def _append(self, body, url):
        """One append, and where it breaks the question for the offset; how the upload ended."""
        floor = self.told
        piece = body[floor:floor + self.chance.choice(PIECES)]
        self.end = floor + len(piece)
        is_last = self.end == len(body)
        headers = {**APPEND, "Upload-Offset": str(floor),
                   "Upload-Complete": "?1" if is_last else "?0"}
        is_cut = piece and self.chance.random() < CUT_SHARE
        cut_after = self.chance.randrange(len(piece)) if is_cut else None
        try:
            answer = await web.request("PATCH", url, headers, piece, cut_after=cut_after,
                                       pause_s=PAUSE_S, within_s=60)
        except BROKEN:
            answer = None
        if answer is not None:
            self.tally.count(answer)
            if answer.status == 201:
                return "complete"
            if answer.status == 204:
                self._learn(int(answer.headers["upload-offset"]), floor)
                return None
        return await self._find(body, url)

    async def _find(self, body, url):
        """Asks for the offset until there is one."""
        while True:
            floor = self.told
            try:
                answer = await web.request("HEAD", url, within_s=20)
            except BROKEN:
                await asyncio.sleep(0.02)
                continue
            self.tally.count(answer)
            if answer.status == 204:
                self._learn(int(answer.headers["upload-offset"]), floor)
                self.tally.n_resumed += 0 < self.told < len(body)
                return "complete" if answer.headers["upload-complete"] == "?1" else None
            if answer.status < 500:
                self.tally.gone.append((answer.status, floor))
                return "gone"
            await asyncio.sleep(0.02)
