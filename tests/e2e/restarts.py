"""The XMPP server restarts under uploads: HTTP does not notice, and the component comes back."""

import asyncio
import os
import signal
import time

import web
from daemon import Slotd
from xmpp import Client, Refused

RESTARTS = 5
UPLOADERS = 4
# It tries again within a second; a busy machine takes longer to be asked.
BACK_WITHIN_S = 10.0
SIZE = 400_000
PAUSE_S = 0.05


async def suite(bed, server, report):
    server.start()
    server.accounts("alice")
    slotd = Slotd(bed, server, limits={"slots_per_minute": 100_000})
    slotd.start()
    alice = await Client.login(server, "alice")
    await alice.service_up()
    slots = asyncio.Queue()
    await _refill(alice, slots)
    done, failures, stop = [], [], asyncio.Event()
    uploaders = [asyncio.ensure_future(_uploader(slots, done, failures, stop))
                 for _ in range(UPLOADERS)]
    backs, logins, downs = [], [], []
    for n in range(RESTARTS):
        await alice.close()
        # The last one as a crash: the server's machine says nothing, it is just gone.
        hard = n == RESTARTS - 1
        down = time.monotonic()
        await asyncio.to_thread(server.process.stop, signal.SIGKILL if hard else signal.SIGTERM)
        server.process.start()
        await asyncio.to_thread(server.process.wait_for_port, server.component_port)
        answers = time.monotonic()
        await asyncio.to_thread(server.process.wait_for_port, server.c2s_port)
        alice = await Client.login(server, "alice")
        logins.append(time.monotonic() - answers)
        await alice.service_up()
        backs.append(time.monotonic() - answers)
        downs.append(answers - down)
        await _refill(alice, slots)
        await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*uploaders)
    figures = " ".join(f"{back:.2f}" for back in backs)
    # The client that asks has to log in first, which is no part of the component's time.
    waits = [back - login for back, login in zip(backs, logins)]
    report.check(max(waits) < BACK_WITHIN_S,
                 f"after each of {RESTARTS} restarts of {server.name} (the last one a crash) the "
                 f"component is back within {BACK_WITHIN_S:.0f} s of its port answering",
                 f"{figures} s, of which its own log-in took the client "
                 f"{' '.join(f'{login:.2f}' for login in logins)} s; the port was away {' '.join(f'{d:.1f}' for d in downs)} s")
    report.equal(failures, [], f"HTTP failures in {len(done)} uploads during the restarts")
    report.check(len(done) > RESTARTS * UPLOADERS, "uploads went on all the time", len(done))
    wrong = 0
    for slot, digest in done:
        answer = await web.get(slot.get)
        wrong += answer.status != 200 or answer.sha256 != digest
    report.equal(wrong, 0, "of them lost or changed")
    await alice.close()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


async def _refill(client, slots):
    """Slots for the time when nobody can ask for one."""
    while slots.qsize() < 60:
        try:
            for slot in await asyncio.gather(*(client.slot("r.bin", SIZE) for _ in range(20))):
                slots.put_nowait(slot)
        except Refused as refused:
            raise RuntimeError(f"no slots: {refused}") from None


async def _uploader(slots, done, failures, stop):
    body = os.urandom(SIZE)
    digest = web.sha256(body)
    while not stop.is_set():
        slot = await slots.get()
        try:
            answer = await web.put(slot, body, pause_s=PAUSE_S)
            if answer.status == 201:
                done.append((slot, digest))
            else:
                failures.append(f"{answer.status} {answer.body[:80]!r}")
        except Exception as error:  # every failure counts, whatever its kind
            failures.append(f"{type(error).__name__}: {error}")
