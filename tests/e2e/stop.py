"""Stop and start: SIGTERM under a hundred uploads, and restarts that refuse nobody."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import web
from bed import listens, wait_until
from daemon import Slotd
from manager import Keeper, Manager
from sessions import announced, append
from xmpp import Client, Refused

UPLOADS = 100
SIZE = 1_000_000
HALF = SIZE // 2
STOP_WITHIN_S = 10
# Between the bytes of who does not come to an end.
TRICKLE_S = 0.5
RESTARTS = 10
# Requests a second, and how long to serve them before each restart.
RATE, LOAD_S = 1000, 1.0
RESUME = {"Upload-Draft-Interop-Version": "8"}


async def suite(bed, server, report):
    server.start()
    server.accounts("alice")
    manager = Manager(bed)
    keeper = Keeper()
    slotd = Slotd(bed, server, port=keeper.port,
                  limits={"slots_per_minute": 100_000, "open_sessions_max": 100,
                          "stop_within": f"{STOP_WITHIN_S} seconds"},
                  log={"level": "info,slotd::http=warn"})
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
    """Half of the uploads can end within the time, half of them cannot. When the stop begins all
    have begun and none is complete, however fast the machine is."""
    bodies = [os.urandom(SIZE) for _ in range(UPLOADS)]
    slots = [await announced(alice, f"{n}.bin", SIZE) for n in range(UPLOADS)]
    stopping = asyncio.Event()
    running = [asyncio.ensure_future(_put(slots[n][0], bodies[n], n % 2 == 0, stopping))
               for n in range(UPLOADS)]
    await asyncio.to_thread(wait_until, "all uploads have begun",
                            lambda: _n_begun(slotd) == UPLOADS)
    slotd.process.child.send_signal(signal.SIGTERM)
    await asyncio.to_thread(wait_until, "STOPPING=1", lambda: manager.count("STOPPING=1") == 1)
    try:
        await alice.slot("late.bin", 1)
        late = "a slot"
    except Refused as refused:
        late = f"{refused.kind} {' '.join(app.tag.split('}')[1] for app in refused.app)}"
    report.equal(late, "wait retry", "a slot while it stops gets")
    stopping.set()
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


async def _put(slot, body, is_fast, stopping):
    """Half of the body, and its rest once the service stops; or of the rest a byte now and then,
    and never all of it. The answer's status, where there is one."""
    reader, writer = await web.connect(slot.put)
    headers = {**slot.headers, "Connection": "close", "Content-Length": str(len(body))}
    try:
        writer.write(web.head("PUT", slot.put, headers) + body[:HALF])
        answering = asyncio.ensure_future(web.read_answer(reader, "PUT"))
        if is_fast:
            await stopping.wait()
            writer.write(body[HALF:])
        sent = HALF
        while not is_fast and not answering.done():
            writer.write(body[sent:sent + 1])
            sent += 1
            await asyncio.wait([answering], timeout=TRICKLE_S)
        return (await asyncio.wait_for(answering, 60)).status
    except (OSError, asyncio.IncompleteReadError):
        return None
    finally:
        writer.close()


def _n_begun(slotd):
    """Uploads of which there are bytes."""
    return sum(name.startswith("parts/") and n_bytes > 0 for name, n_bytes in slotd.files().items())


async def _restarts(slotd, alice, report):
    """Requests at a steady rate, each over a connection of its own, while slotd comes and goes.
    Nobody reads what it tells the service manager meanwhile, which holds nothing up."""
    slot = await alice.slot("asked.bin", 1000)
    body = os.urandom(1000)
    report.equal((await web.put(slot, body)).status, 201, "a file to ask for")
    path = "/" + slot.get.split("/", 3)[3]
    words = [Path(__file__).parent / "loader.py", slotd.port, path, RATE]
    loading = subprocess.Popen([sys.executable, *map(str, words)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    # Its first line comes with its first answer.
    await asyncio.to_thread(loading.stdout.readline)
    codes, n_under_load = [], 0
    for _ in range(RESTARTS):
        await asyncio.sleep(LOAD_S)
        codes.append(await asyncio.to_thread(slotd.stop))
        slotd.process.start()
        # It serves before it is stopped again.
        answer = await web.get(slot.get)
        n_under_load += answer.status == 200 and loading.poll() is None
    # The end of its input ends it.
    told, _ = await asyncio.to_thread(loading.communicate, timeout=120)
    came = json.loads(told)
    report.equal(n_under_load, RESTARTS, "restarts under load, and then a file was served")
    report.equal(came["failures"], [], f"of {came['requests']} requests over {n_under_load} "
                                       "restarts were refused or broke")
    report.note(f"{came['requests'] / came['seconds']:.0f} requests a second, slowest "
                f"{came['slowest_s'] * 1000:.0f} ms")
    report.equal(codes, [0] * RESTARTS, "each time it ended with")


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
