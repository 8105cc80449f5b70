"""Many phones at once, each with uploads without end, each changing its network again and again;
its old path comes back a little later, with what was on its way."""

import asyncio
import os
import random
import time

import network
from network_client import Phone, Tally, Upload, Wrong
from sessions import announced
from xmpp import Client

FULL = bool(os.environ.get("E2E_FULL"))
PHONES, EVERY_S, FOR_S = (100, 10.0, 60.0) if FULL else (20, 3.0, 12.0)
PHONES_OF_ACCOUNT = 20
SIZE = 4 << 20
# What one phone sends at most, a second; the networks are faster than all of them.
RATE = 400_000
NETWORK_MBIT = 1000
UNAWARE_MAX_S = 0.2
BACK_AFTER_MAX_S = 2.0
TWICE_SHARE_MAX = 0.10
# Lost requests are sent again after seconds; a request that waits for the old path, after minutes.
GAP_P99_MAX_MS = 10_000
SEED = 15


async def suite(bed, server, report):
    if why := network.why_not():
        report.skip("a crowd of phones", why)
        return
    with network.Network(rate_mbit=NETWORK_MBIT, n_phones=PHONES) as net:
        server.start()
        users = [f"crowd{n}" for n in range(-(-PHONES // PHONES_OF_ACCOUNT))]
        await asyncio.to_thread(server.accounts, *users)
        slotd = network.slotd_at(bed, server, log={"level": "info"})
        slotd.start()
        clients = [await Client.login(server, user) for user in users]
        await clients[0].service_up()
        await _crowd(net, clients, report)
        for client in clients:
            await client.close()
        slotd.stop()
        status, words = slotd.command("audit", "--deep")
        report.equal(status, 0, "slotd audit --deep exits")
        if status:
            report.note(words)


async def _crowd(net, clients, report):
    chance, tally = random.Random(SEED), Tally()
    end = time.monotonic() + FOR_S
    phones = [Phone(net, n) for n in range(PHONES)]
    moving = [asyncio.ensure_future(_move(phone, random.Random(chance.random()), end))
              for phone in phones]
    work = [_upload(phone, clients[phone.n // PHONES_OF_ACCOUNT], tally, end) for phone in phones]
    n_changed = sum(await asyncio.wait_for(asyncio.gather(*work), FOR_S + 300))
    n_moves = sum(await asyncio.gather(*moving))
    for failure in tally.failures[:5]:
        report.note(failure)
    report.equal((len(tally.failures), n_changed, tally.went_back), (0, 0, 0),
                 f"uploads failed, changed, offsets that went back; {tally.n_done} uploads by "
                 f"{PHONES} phones that move every {EVERY_S:.0f} s for {FOR_S:.0f} s")
    report.check(len(tally.gaps_ms) >= PHONES * (FOR_S / EVERY_S - 1) * 0.8,
                 "most moves were in mid-upload", f"{n_moves} moves, {len(tally.gaps_ms)} resumes")
    report.check(tally.gap(0.99) < GAP_P99_MAX_MS,
                 "first request on the new network to the offset",
                 f"p50 {tally.gap(0.5):.1f} ms, p99 {tally.gap(0.99):.1f} ms, "
                 f"worst {tally.gap(1.0):.1f} ms")
    share = tally.twice / max(1, tally.sent)
    report.check(share < TWICE_SHARE_MAX, "bytes sent twice",
                 f"{share * 100:.1f} %, {tally.twice / 1e6:.1f} of {tally.sent / 1e6:.0f} MB; at "
                 f"most {tally.twice_max} at a time")


async def _move(phone, chance, end):
    """Changes a phone's network every so often; how often it did."""
    n_moves = 0
    wait_s = chance.uniform(0.2, 1.0) * EVERY_S
    while time.monotonic() + wait_s < end:
        await asyncio.sleep(wait_s)
        phone.lose()
        unaware_s = chance.uniform(0, UNAWARE_MAX_S)
        await asyncio.sleep(unaware_s)
        phone.move()
        n_moves += 1
        back_after_s = chance.uniform(0, min(BACK_AFTER_MAX_S, EVERY_S / 2))
        await asyncio.sleep(back_after_s)
        phone.heal()
        wait_s = EVERY_S - unaware_s - back_after_s
    return n_moves


async def _upload(phone, client, tally, end):
    """Uploads until the end; how many files were not what was sent."""
    n_changed = 0
    while time.monotonic() < end:
        try:
            body = os.urandom(SIZE)
            slot, session = await announced(client, "phone.bin", SIZE)
            upload = Upload(phone, body, slot, session, tally, rate=RATE)
            upload.begin()
            await upload.finish()
            n_changed += not await upload.arrived()
            tally.n_done += 1
        except (Wrong, OSError, asyncio.TimeoutError) as error:
            tally.failures.append(f"phone {phone.n}: {type(error).__name__}: {error}")
            await asyncio.sleep(1)
    return n_changed
