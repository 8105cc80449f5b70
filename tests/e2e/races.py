"""Refreshes racing with an append, and everybody who must not renew or move an upload session.

Each writer of a race sends bytes of its own, so the file tells who wrote what: up to the offset
that the refreshes told the first two, from there on the new credentials' holder alone.
"""

import asyncio
import os
import random

import sessions
import web
from bed import Trouble
from daemon import Slotd
from sessions import SESSION, announced, query, refresh, refusal
from xmpp import Client

RACES = 1000 if os.environ.get("E2E_FULL") else 100
AT_ONCE = 5
SIZES = [40_000, 300_000]
SEED = 1000
LOST = (OSError, EOFError)


async def suite(bed, server, report):
    server.start()
    server.accounts("owner", "thief")
    slotd = Slotd(bed, server, log={"level": "info"},
                  limits={"slots_per_minute": 100_000, "open_sessions_max": 100})
    slotd.start()
    owner, thief = [await Client.login(server, user) for user in ("owner", "thief")]
    await owner.service_up()
    await _refusals(owner, thief, report)
    await _races(owner, report)
    for client in (owner, thief):
        await client.close()
    slotd.stop()
    status, words = slotd.command("audit", "--deep")
    report.equal(status, 0, "slotd audit --deep exits")
    if status:
        report.note(words)


async def append(url, offset, tail, **more):
    """A PATCH with everything from the offset on; None when it was cut."""
    try:
        return await sessions.append(url, offset, tail, **more)
    except LOST:
        return None


async def begin(owner, slot, session, body, length):
    """A PUT that breaks off after so many bytes; the offset then."""
    await web.put(slot, body, cut_after=length)
    for _ in range(500):
        # Cuts nobody, as a HEAD would that is there before the PUT.
        told = await query(owner, session["id"])
        if told["offset"] != "0" and told.get("active") != "true":
            return int(told["offset"])
        await asyncio.sleep(0.01)
    raise Trouble(f"the PUT did not arrive: {told}")


async def _races(owner, report):
    chance, tallies = random.Random(SEED), []
    for _ in range(RACES // AT_ONCE):
        races = [_Race(owner, random.Random(chance.random())) for _ in range(AT_ONCE)]
        tallies += await asyncio.gather(*(race.run() for race in races))
    faults = [fault for faults, _ in tallies for fault in faults]
    for fault in faults[:5]:
        report.note(fault)
    report.equal(len(faults), 0, f"races of two refreshes with a PATCH that went wrong, of {RACES}")
    ends = [end for _, end in tallies]
    told = {end: ends.count(end) for end in sorted(set(ends))}
    report.check(told.get("the refreshes won", 0) > RACES / 20, "refreshes cut the PATCH", told)


class _Race:
    """One upload, half-way; then all at once."""

    def __init__(self, owner, chance):
        self.owner, self.chance, self.faults = owner, chance, []
        self.size = chance.choice(SIZES)
        self.half = chance.randrange(1, self.size // 2)
        self.old, self.one, self.two = (os.urandom(self.size) for _ in range(3))

    def hold(self, ok, words):
        """Notes what must be so and is not."""
        if not ok:
            self.faults.append(words)

    async def run(self):
        """(what went wrong, how it ended)."""
        slot, session = await announced(self.owner, "race.bin", self.size)
        self.url, self.id = session["resume-url"], session["id"]
        begun = await begin(self.owner, slot, session, self.old, self.half)
        answer, first, second = await asyncio.gather(
            self._after(self._old(begun)), self._after(refresh(self.owner, self.id)),
            self._after(refresh(self.owner, self.id)))
        offsets = [int(session["offset"]) for _, session in (first, second)]
        end = await self._finish(begun, answer, first, second, offsets)
        got = await web.get(slot.get)
        self.hold(got.status == 200 and len(got.body) == self.size, f"GET: {got.status}")
        self._authors(got.body, min(offsets), max(offsets))
        told = await query(self.owner, self.id)
        self.hold((told["state"], told["offset"]) == ("complete", str(self.size)), f"query: {told}")
        return self.faults, end

    async def _after(self, what):
        await asyncio.sleep(self.chance.uniform(0, 0.02))
        return await what

    def _old(self, offset):
        # In two pieces, so that it is under way for a while.
        return append(self.url, offset, self.old[offset:], pause_s=self.chance.uniform(0, 0.01))

    async def _finish(self, begun, answer, first, second, offsets):
        self.hold(all(begun <= offset <= self.size for offset in offsets), f"{begun}: {offsets}")
        if answer is not None and answer.status == 201:
            self.hold(all(session["state"] == "complete" for slot, session in (first, second)
                          if slot is None), "complete without saying so")
            if first[0] is None or second[0] is None:
                return "the PATCH won"
        # 409 tells it too that a newer request came.
        self.hold(answer is None or answer.status in (201, 409, 410), f"the old PATCH: {answer}")
        if None in (first[0], second[0]):
            self.hold(False, f"complete, but the PATCH got {answer}")
            return "odd"
        self.hold(len(set(offsets)) == 1, f"the refreshes told {offsets}")
        gone = await web.request("HEAD", self.url)
        self.hold(gone.status == 410, f"HEAD of the old resume URL: {gone.status}")
        urls = {session["resume-url"] for _, session in (first, second)}
        self.hold(self.url not in urls, "the old resume URL again")
        offset = offsets[0]
        answers = await asyncio.gather(
            self._after(append(first[1]["resume-url"], offset, self.one[offset:])),
            self._after(append(second[1]["resume-url"], offset, self.two[offset:])))
        statuses = sorted(answer.status if answer else 0 for answer in answers)
        self.hold(all(status in (0, 201, 409) for status in statuses), f"new PATCHes: {statuses}")
        if 201 not in statuses:
            # The newer one has cut the older, which had moved the offset already.
            await self._to_the_end(second[1]["resume-url"], offset)
        # With no bytes left to write each of them is the last append, again.
        self.hold(statuses.count(201) <= 1 or offset == self.size,
                  f"two writers from {offset} of {self.size}: {statuses}")
        return "the refreshes won"

    async def _to_the_end(self, url, offset):
        told = await web.request("HEAD", url)
        at = int(told.headers["upload-offset"])
        self.hold(offset <= at, f"the offset went back from {offset} to {at}")
        answer = await append(url, at, self.two[at:])
        self.hold(answer is not None and answer.status == 201, f"the last PATCH: {answer}")

    def _authors(self, body, offset, last):
        """The bytes say who wrote: the old credentials up to the offset that was told, then one of
        the new, or one and then the other."""
        if offset == last == self.size or body == self.old:
            self.hold(body == self.old, "a complete file changed")
            return
        self.hold(body[:offset] == self.old[:offset], "the first part is not what was sent")
        tail, one, two = body[offset:], self.one[offset:], self.two[offset:]
        self.hold(any(_then(tail, a, b) for a, b in ((one, two), (two, one))),
                  "the rest has other authors")


def _then(tail, first, second):
    """Whether these are the first's bytes, and from somewhere on the second's."""
    n_same = next((n for n, (a, b) in enumerate(zip(tail, first)) if a != b), len(tail))
    return tail[n_same:] == second[n_same:]


async def _refusals(owner, thief, report):
    body = os.urandom(200_000)
    slot, session = await announced(owner, "stolen.bin", len(body))
    id, old_url = session["id"], session["resume-url"]
    offset = await begin(owner, slot, session, body, 90_000)
    for name in ("session", "refresh", "cancel"):
        report.equal(await refusal(thief, name, id), "cancel item-not-found unknown-session",
                     f"another account with a stolen session id: <{name}/>")
    listed = await thief.iq(f"<sessions xmlns='{SESSION}'/>")
    report.equal(len(list(listed.iter(f"{{{SESSION}}}session"))), 0, "another account's list shows")
    await _headers(slot, id, body, report)
    report.equal(int((await query(owner, id))["offset"]), offset, "after all that the offset is")
    new, session = await refresh(owner, id)
    for words, status, asked in [
            ("the old token", 401, web.put(slot, body)),
            ("the old token and X-Session-ID", 401, web.put(slot, body, {"X-Session-ID": id})),
            ("HEAD of the old resume URL", 410, web.request("HEAD", old_url)),
            ("PATCH of it", 410, append(old_url, offset, body[offset:])),
            ("DELETE of it", 410, web.request("DELETE", old_url))]:
        answer = await asked
        report.equal(answer and answer.status, status, f"after a refresh: {words}")
    answer = await append(session["resume-url"], int(session["offset"]), body[offset:])
    report.equal(answer and answer.status, 201, "and the owner's new resume URL")
    got = await web.get(new.get)
    report.equal((got.status, got.body == body), (200, True), "the owner's bytes")


async def _headers(slot, id, body, report):
    """A session id opens nothing over HTTP, wherever it stands."""
    bare = slot.put.split("?")[0]
    base = bare.split("/f/")[0]
    for words, headers in [("X-Session-ID", {"X-Session-ID": id}),
                           ("Session-ID and X-Upload-Token", {"Session-ID": id,
                                                              "X-Upload-Token": id}),
                           ("a cookie", {"Cookie": f"session={id}"}),
                           ("a bearer", {"Authorization": f"Bearer {id}"})]:
        answer = await web.request("PUT", bare, headers, body)
        report.equal(answer.status, 401, f"PUT with the session id as {words}")
        answer = await web.request("HEAD", f"{base}/r/{id}", headers)
        report.equal(answer.status, 404, f"HEAD of a resume URL made of it, and {words}")
