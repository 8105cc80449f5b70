"""Uploads cut at random bytes, in each way a connection ends, some with kill -9 of slotd, and
resumed from the phone's other address: all of them finish, and no offset goes back."""

import asyncio
import os
import random

import network
from network_client import Lost, Phone, Tally, Upload, Wrong
from sessions import announced
from xmpp import Client

FULL = bool(os.environ.get("E2E_FULL"))
UPLOADS, KILLS = (500, 50) if FULL else (100, 10)
AT_ONCE = 10
CUTS_MAX = 3
SIZES = [50_000, 300_000, 1_500_000]
KINDS = ["reset", "end", "silent"]
NETWORK_MBIT = 400
UNAWARE_MAX_S = 0.1
BACK_AFTER_MAX_S = 0.5
SEED = 16


async def suite(bed, server, report):
    if why := network.why_not():
        report.skip("cut uploads", why)
        return
    with network.Network(rate_mbit=NETWORK_MBIT, n_phones=AT_ONCE) as net:
        server.start()
        server.accounts("cuts")
        slotd = network.slotd_at(bed, server, log={"level": "info"})
        slotd.start()
        client = await Client.login(server, "cuts")
        await client.service_up()
        await _Run(net, slotd, client).go(report)
        await client.close()
        slotd.stop()
        status, words = slotd.command("audit", "--deep")
        report.equal(status, 0, "slotd audit --deep exits")
        if status:
            report.note(words)


class _Run:
    def __init__(self, net, slotd, client):
        self.net, self.slotd, self.client = net, slotd, client
        self.tally, self.n_cuts = Tally(), dict.fromkeys([*KINDS, "killed"], 0)
        self.backs = []
        self.n_same = self.n_kills = self.n_hit = self.n_open = 0

    async def go(self, report):
        for first in range(0, UPLOADS, AT_ONCE):
            uploads = []
            for n in range(AT_ONCE):
                size = random.Random(SEED * 10_000 + first + n).choice(SIZES)
                uploads.append(Upload(Phone(self.net, n), os.urandom(size),
                                      *await announced(self.client, "cut.bin", size), self.tally))
            # One of these has slotd killed between its cut and its resuming, in most rounds.
            await asyncio.gather(*(self._one(upload, first + n, n == 0 and self.n_kills < KILLS)
                                   for n, upload in enumerate(uploads)))
            await asyncio.gather(*self.backs)
            self.backs.clear()
            await self.client.service_up()
        tally = self.tally
        for failure in tally.failures[:5]:
            report.note(failure)
        report.equal((tally.n_done, self.n_same), (UPLOADS, UPLOADS),
                     "cut uploads that finished, with the same bytes")
        report.equal(tally.went_back, 0, f"offsets that went back, of {len(tally.offsets)} told")
        report.equal(self.n_kills, KILLS, "times kill -9 of slotd meanwhile")
        report.check(self.n_hit >= KILLS, "uploads under way at a kill", self.n_hit)
        report.note(f"cuts: {self.n_cuts}; {tally.twice / 1e6:.1f} MB sent twice of "
                    f"{tally.sent / 1e6:.0f} MB")

    async def _one(self, upload, number, kills):
        chance = random.Random(SEED * 1000 + number)
        self.n_open += 1
        try:
            await asyncio.wait_for(self._through(upload, chance, kills), 300)
            is_same = await upload.arrived()
            self.n_same += is_same
            self.tally.n_done += 1
        except (Wrong, OSError, asyncio.TimeoutError) as error:
            self.tally.failures.append(f"upload {number}: {type(error).__name__}: {error}")
        finally:
            self.n_open -= 1

    async def _through(self, upload, chance, kills):
        upload.begin(mark=chance.randint(1, len(upload.body)), halt=True)
        for n_cut in range(chance.randint(1, CUTS_MAX)):
            await self._cut(upload, chance)
            if kills and n_cut == 0:
                self.n_hit += self.n_open
                await asyncio.to_thread(self.slotd.kill)
                await asyncio.to_thread(self.slotd.start)
                self.n_kills += 1
            if await upload.find(timed=False):
                return
            left = len(upload.body) - upload.told
            upload.append(mark=chance.randint(1, left) if left else None, halt=True)
        await self._cut(upload, chance)
        if not await upload.find(timed=False):
            upload.append()
            await upload.finish()

    async def _cut(self, upload, chance):
        """Ends the transfer once it has come to its mark, and moves the phone."""
        kind, transfer, phone = chance.choice(KINDS), upload.transfer, upload.phone
        try:
            answer = await transfer.at_mark()
            # 409: a request of before came late, and moved the offset.
            if answer is not None and answer.status not in (201, 409) and answer.status < 500:
                raise Wrong(f"{transfer.method}: {answer.status} {answer.body!r}")
        except Lost:
            kind = "killed"
        self.n_cuts[kind] += 1
        if kind == "silent":
            phone.lose()
            await asyncio.sleep(chance.uniform(0, UNAWARE_MAX_S))
        await transfer.leave()
        self.tally.sent += transfer.sent
        if kind in ("reset", "end"):
            transfer.close(reset=kind == "reset")
        self.net.heal(network.address(phone.before, phone.n))
        phone.move()
        if kind == "silent":
            back = self._come_back(phone.before, phone.n, chance.uniform(0, BACK_AFTER_MAX_S))
            self.backs.append(asyncio.ensure_future(back))

    async def _come_back(self, name, n, after_s):
        await asyncio.sleep(after_s)
        self.net.heal(network.address(name, n))
