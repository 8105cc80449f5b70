"""kill -9 of slotd, again and again, under uploading clients: nothing acknowledged is lost."""

import asyncio
import os
import random
import time

import web
from daemon import Slotd
from leftovers import partials_left
from xmpp import Client, Refused

KILLS = 30
CLIENTS = 8
IDLE_S = 2
SEED = 20


class Tally:
    """What the clients saw."""

    def __init__(self):
        self.acknowledged, self.slots = {}, []
        self.whole_again = self.cut = self.refused = 0
        self.statuses = {}
        self.in_flight = 0
        self.stop = False


async def part(bed, server, report):
    users = [f"kill{n}" for n in range(CLIENTS)]
    await asyncio.to_thread(server.accounts, *users)
    slotd = Slotd(bed, server, "slotd-kill",
                  limits={"idle_for": f"{IDLE_S} seconds", "slots_per_minute": 10_000},
                  retention={"sweep_every": "1 second"})
    slotd.start()
    clients = [await Client.login(server, user) for user in users]
    await clients[0].service_up()
    chance, tally = random.Random(SEED), Tally()
    work = [asyncio.ensure_future(_upload(client, tally, chance)) for client in clients]
    starts, in_flight, partials = [], [], []
    for _ in range(KILLS):
        await _busy(tally)
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        in_flight.append(tally.in_flight)
        await asyncio.to_thread(slotd.kill)
        partials.append(len(slotd.partials()))
        starts.append(await asyncio.to_thread(slotd.start))
    await clients[0].service_up()
    await asyncio.sleep(0.5)
    tally.stop = True
    await asyncio.wait_for(asyncio.gather(*work), 180)
    report.equal(slotd.process.running(), True, f"{KILLS} times kill -9, and it runs")
    report.note(f"{len(tally.acknowledged)} uploads acknowledged, {tally.cut} cut, of which "
                f"{tally.whole_again} went through at once with the same PUT again; uploads in "
                f"flight at a kill: {sum(in_flight)}; ready after a kill in "
                f"{sorted(starts)[len(starts) // 2] * 1000:.0f} ms (median), "
                f"{max(starts) * 1000:.0f} ms at most; statuses {tally.statuses}")
    report.check(sum(in_flight) > KILLS * CLIENTS / 2, "the kills met uploads in flight",
                 f"{sum(in_flight)}; partials they left: {sum(partials)}, at most {max(partials)}")
    await _nothing_lost(slotd, tally, report)
    await _nothing_left(slotd, tally, report)
    for client in clients:
        await client.close()
    slotd.stop()
    status, words = slotd.command("audit", "--deep")
    report.equal(status, 0, "slotd audit --deep of the stopped store exits")
    if status:
        report.note(words)


async def _busy(tally):
    """Waits until most of the clients upload; at most some seconds."""
    deadline = time.monotonic() + 5
    while tally.in_flight < CLIENTS - 2 and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


async def _nothing_lost(slotd, tally, report):
    lost = changed = 0
    for url, digest in tally.acknowledged.items():
        answer = await web.get(url)
        if answer.status != 200:
            lost += 1
        elif answer.sha256 != digest:
            changed += 1
    report.equal((lost, changed), (0, 0),
                 f"acknowledged files lost, changed, of {len(tally.acknowledged)}")
    status, words = slotd.command("audit", "--deep")
    report.equal(status, 0, "slotd audit --deep beside the running daemon exits")
    if status:
        report.note(words)


async def _nothing_left(slotd, tally, report):
    """Past the idle time and one sweep no partial is on the disk."""
    partials, took_s = await partials_left(slotd, tally.slots)
    report.equal(partials, [], f"partials after idle time and sweep ({took_s:.1f} s)")


async def _upload(client, tally, chance):
    """Uploads until told to stop; each broken upload is tried again once, or left."""
    while not tally.stop:
        body = os.urandom(chance.choice([10_000, 1_000_000, 2_000_000]))
        try:
            slot = await client.slot("kill.bin", len(body), within_s=3)
        except (Refused, asyncio.TimeoutError):
            await asyncio.sleep(0.02)
            continue
        tally.slots.append(slot)
        for attempt in range(3):
            status = await _put(slot, body, tally)
            if status == 201:
                tally.acknowledged[slot.get] = web.sha256(body)
                tally.whole_again += attempt > 0
                break
            if status is not None or chance.random() < 0.4:
                break
            await asyncio.sleep(0.1)


async def _put(slot, body, tally):
    tally.in_flight += 1
    try:
        answer = await web.put(slot, body, pause_s=0.02, within_s=30)
        tally.statuses[answer.status] = tally.statuses.get(answer.status, 0) + 1
        return answer.status
    except (OSError, EOFError, asyncio.TimeoutError, ValueError):
        tally.cut += 1
        return None
    finally:
        tally.in_flight -= 1
