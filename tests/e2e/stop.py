"""Stop and start: SIGTERM under a hundred uploads, and restarts that refuse nobody."""

import asyncio
import os
import signal
import time

import web
from bed import listens, wait_until
from daemon import Slotd
from manager import Keeper, Manager
from sessions import announced, append
from xmpp import Client, Refused

UPLOADS = 100
SIZE = 1_000_000
STOP_WITHIN_S = 6
RESTARTS = 10
# Requests a second; the machine that tests is slow, and both ends run on it.
RATE = int(os.environ.get("E2E_RATE", "200"))
RESUME = {"Upload-Draft-Interop-Version": "8"}


async def suite(bed, server, report):
    server.start()
    server.accounts("alice")
    manager = Manager(bed)
    keeper = Keeper()
    slotd = Slotd(bed, server, port=keeper.port,
                  limits={"slots_per_minute": 100_000, "open_sessions_max": 100,
                          "stop_within": f"{STOP_WITHIN_S} seconds"})
    slotd.process.env.update(manager.env())
    keeper.hand_to(slotd.process)
    slotd.start()
    alice = await Client.login(server, "alice")
    await alice.service_up()
    await _a_hundred(slotd, manager, alice, report)
    await _restarts(slotd, alice, report)
    await alice.close()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    keeper.socket.close()
    await _stray(slotd, report)
    await _activated(bed, server, report)


async def _a_hundred(slotd, manager, alice, report):
    """Half of the uploads can end within the time, half of them cannot."""
    bodies = [os.urandom(SIZE) for _ in range(UPLOADS)]
    slots = [await announced(alice, f"{n}.bin", SIZE) for n in range(UPLOADS)]

    async def put(n):
        # 16 pieces: in about two seconds, or in three times as long as there is.
        pause_s = 0.12 if n % 2 == 0 else STOP_WITHIN_S * 3 / 16
        try:
            return (await web.put(slots[n][0], bodies[n], pause_s=pause_s)).status
        except (OSError, asyncio.IncompleteReadError):
            return None

    running = [asyncio.ensure_future(put(n)) for n in range(UPLOADS)]
    await asyncio.sleep(0.5)
    slotd.process.child.send_signal(signal.SIGTERM)
    await asyncio.to_thread(wait_until, "STOPPING=1", lambda: manager.count("STOPPING=1") == 1)
    try:
        await alice.slot("late.bin", 1)
        late = "a slot"
    except Refused as refused:
        late = f"{refused.kind} {' '.join(app.tag.split('}')[1] for app in refused.app)}"
    report.equal(late, "wait retry", "a slot while it stops gets")
    statuses = await asyncio.gather(*running)
    code = await asyncio.to_thread(slotd.process.child.wait, 60)
    report.equal(code, 0, "it ends with")
    log = slotd.process.log.read_text()
    report.equal(log.count("HTTP ends with requests unanswered"), 0, "requests without an answer")
    ended = [statuses.count(status) for status in (201, 503)]
    report.equal((ended, statuses.count(None)), ([UPLOADS // 2, UPLOADS // 2], 0),
                 "uploads that ended with 201, and that were cut with 503; without an answer")
    await asyncio.to_thread(slotd.start)
    await alice.service_up()
    n_resumed, n_kept, n_equal = 0, 0, 0
    for n, (slot, session) in enumerate(slots):
        url = session["resume-url"]
        if statuses[n] != 201:
            told = await web.request("HEAD", url, RESUME)
            offset = int(told.headers.get("upload-offset", 0))
            answer = await append(url, offset, bodies[n][offset:])
            n_resumed += answer.status in (200, 201, 204)
            n_kept += offset > 0
        n_equal += (await web.get(slot.get)).body == bodies[n]
    report.equal((n_resumed, n_kept), (UPLOADS - ended[0],) * 2,
                 "of the others were resumed after the restart, with bytes from before it")
    report.equal(n_equal, UPLOADS, f"of {UPLOADS} files are what was sent")


async def _restarts(slotd, alice, report):
    """Requests at a steady rate, each over a connection of its own, while slotd comes and goes.
    Nobody reads what it tells the service manager meanwhile, which holds nothing up."""
    slot = await alice.slot("asked.bin", 1000)
    body = os.urandom(1000)
    report.equal((await web.put(slot, body)).status, 201, "a file to ask for")
    failures, times, stop = [], [], asyncio.Event()

    async def ask():
        began = time.monotonic()
        try:
            answer = await web.get(slot.get)
            if answer.status != 200 or answer.body != body:
                failures.append(answer.status)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            failures.append(type(error).__name__)
        times.append(time.monotonic() - began)

    async def load():
        began, asked = time.monotonic(), []
        while not stop.is_set():
            due = int((time.monotonic() - began) * RATE)
            asked += [asyncio.ensure_future(ask()) for _ in range(due - len(asked))]
            await asyncio.sleep(0.005)
        await asyncio.gather(*asked)
        return len(asked), time.monotonic() - began

    loading = asyncio.ensure_future(load())
    for _ in range(RESTARTS):
        await asyncio.sleep(0.5)
        code = await asyncio.to_thread(slotd.stop)
        if code != 0:
            failures.append(f"it ended with {code}")
        slotd.process.start()
        n_asked = len(times)
        await asyncio.to_thread(wait_until, "answers", lambda: len(times) > n_asked, 60.0)
    stop.set()
    n_asked, took_s = await loading
    report.equal(failures, [], f"of {n_asked} requests over {RESTARTS} restarts were refused")
    report.note(f"{n_asked / took_s:.0f} requests a second, slowest {max(times) * 1000:.0f} ms")


async def _stray(slotd, report):
    """A socket that http.listen does not name would never be answered: no start."""
    other = Keeper()
    slotd.process.argv = slotd.process.argv[4:]
    other.hand_to(slotd.process)
    slotd.process.start()
    code = await asyncio.to_thread(slotd.process.child.wait, 30)
    words = slotd.process.tail(1)
    report.check(code == 1 and f"127.0.0.1:{other.port}" in words, "a socket too many", words)
    other.socket.close()


async def _activated(bed, server, report):
    """By systemd's own tool: started by the first connection, which is answered."""
    slotd = Slotd(bed, server, name="activated")
    argv = slotd.process.argv
    slotd.process.argv = ["systemd-socket-activate", "-l", f"127.0.0.1:{slotd.port}", *argv]
    slotd.process.start()
    await asyncio.to_thread(wait_until, "systemd listens", lambda: listens(slotd.port))
    answer = await web.get(f"http://127.0.0.1:{slotd.port}/f/none/none")
    report.equal(answer.status, 404, "the connection that started it gets")
    report.equal(slotd.stop(), 0, "SIGTERM ends it with")
