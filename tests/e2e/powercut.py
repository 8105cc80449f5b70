"""Power cuts: an ext4 of its own is shut down without a flush of its journal at a random moment,
under uploading clients; then kill -9, mounted again, started again. Whatever got its 201 is there.

`kill -9` alone shows nothing of this, since the page cache outlives the process. That the harness
can see a loss at all is proven in the same run: with durability = "none" it has to find one.

Upload sessions are cut likewise, and resumed: no offset that anybody was told goes back. The
machine of the test goes on, so that `boot-id` is removed where it would have another.
"""

import asyncio
import ctypes
import fcntl
import os
import random
import struct
import time

import web
from bed import Trouble, run
from daemon import Slotd
from leftovers import partials_left
from powercut_sessions import Resumer, Told
from xmpp import Client, Refused

CUTS = 10
# Of the proof; the first one that loses a file is enough.
CUTS_UNSAFE_MAX = 3
CLIENTS = 8
CUTS_OF_SESSIONS = 8
CLIENTS_OF_SESSIONS = 4
# Until an upload under way has made bytes durable: 8 MiB, or 5 s.
LIVE_WITHIN_S = 30
SIZES = [500, 20_000, 100_000, 400_000]
DISK_BYTES = 1 << 30
IDLE_S = 2
SEED = 363

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = struct.pack("I", 2)
CLONE_NEWNS = 0x20000


class Disk:
    """An ext4 in a file, mounted in the bed; power can be cut."""

    def __init__(self, bed, name):
        self.image, self.place = bed.dir / f"{name}.img", bed.sub(name)
        with open(self.image, "wb") as image:
            image.truncate(DISK_BYTES)
        run("mkfs.ext4", "-q", "-F", self.image)
        bed.cleanups.append(self.unmount)

    def mount(self):
        """As after a boot: the journal is replayed."""
        run("mount", "-o", "loop,commit=1", self.image, self.place)

    def cut(self):
        """From now on nothing reaches the disk, and what is in the journal's memory is lost."""
        directory = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, FS_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(directory)

    def unmount(self):
        """Whether it was mounted or not."""
        if os.path.ismount(self.place):
            run("umount", self.place)


class Tally:
    """What the clients saw: {URL: digest} of what got its 201."""

    def __init__(self):
        self.acknowledged, self.slots = {}, []
        self.statuses = {}
        self.stop = False


async def suite(bed, server, report):
    """Cuts under whole files, under upload sessions, and with no durability."""
    if why := _cannot_mount(bed):
        report.skip("power cuts", why)
        return
    server.start()
    users = [f"cut{n}" for n in range(CLIENTS)]
    await asyncio.to_thread(server.accounts, *users)
    clients = [await Client.login(server, user) for user in users]
    await _keeps_all(bed, server, report, clients)
    await _keeps_offsets(bed, server, report, clients[:CLIENTS_OF_SESSIONS])
    await _harness_sees_loss(bed, server, report, clients)
    for client in clients:
        await client.close()


def _cannot_mount(bed):
    """Why not; and where it can, mounts are this process's own and end with it."""
    if os.geteuid() != 0:
        return "mounts need root"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        return f"no mount namespace: {os.strerror(ctypes.get_errno())}"
    try:
        run("mount", "--make-rprivate", "/")
        disk = Disk(bed, "probe")
        disk.mount()
        disk.cut()
        disk.unmount()
    except (Trouble, OSError) as trouble:
        return f"no loop mount of an ext4 that can be shut down: {trouble}"
    return None


async def _keeps_all(bed, server, report, clients):
    disk, slotd = _start(bed, server, "full", "files")
    chance, tally = random.Random(SEED), Tally()
    n_cuts, starts = 0, []
    async with _Uploads(clients, tally, chance):
        for _ in range(CUTS):
            starts.append(await _cut_once(disk, slotd, clients, chance))
            n_cuts += 1
        await clients[0].service_up()
    lost, changed = await _compare(tally.acknowledged)
    report.equal((lost, changed), (0, 0), "acknowledged files lost, changed, of "
                 f"{len(tally.acknowledged)} acknowledged under {n_cuts} power cuts")
    report.check(len(tally.acknowledged) > CUTS, "the cuts met working clients",
                 f"statuses {tally.statuses}; ready after a cut in "
                 f"{max(starts) * 1000:.0f} ms at most")
    await _ends_clean(disk, slotd, report, tally.slots)


async def _keeps_offsets(bed, server, report, clients):
    disk, slotd = _start(bed, server, "full", "sessions", idle_for="5 minutes")
    chance, told = random.Random(SEED), Told()
    tasks = [asyncio.ensure_future(Resumer(client, told, chance).run()) for client in clients]
    try:
        for _ in range(CUTS_OF_SESSIONS):
            n_live, start = told.n_live, time.monotonic()
            while told.n_live == n_live and time.monotonic() - start < LIVE_WITHIN_S:
                await asyncio.sleep(0.02)
            await _cut_once(disk, slotd, clients, chance, (0.0, 0.3))
        await clients[0].service_up()
        told.stop = True
        await asyncio.wait_for(asyncio.gather(*tasks), 300)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    report.equal(told.back, [], f"of {told.n_told} offsets told, {told.n_live} of them of requests "
                 f"that went on, under {CUTS_OF_SESSIONS} power cuts: those that went back")
    report.equal(told.gone, [], "uploads that could not go on")
    lost, changed = await _compare(told.acknowledged)
    report.equal((lost, changed), (0, 0),
                 f"resumed uploads lost, changed, of {len(told.acknowledged)}")
    report.check(told.n_resumed > 0 and told.n_live > CUTS_OF_SESSIONS // 2,
                 "the cuts met uploads under way",
                 f"{told.n_resumed} went on in their middle; statuses {told.statuses}")
    await _ends_clean(disk, slotd, report, told.slots)


async def _ends_clean(disk, slotd, report, slots):
    """Nothing is left over, and rows and files agree."""
    partials, took_s = await partials_left(slotd, slots)
    report.equal(partials, [], f"partials after idle time and sweep ({took_s:.1f} s)")
    status, words = slotd.command("audit", "--deep")
    report.equal(status, 0, "slotd audit --deep after one sweep exits")
    if status:
        report.note(words)
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    disk.unmount()


async def _harness_sees_loss(bed, server, report, clients):
    disk, slotd = _start(bed, server, "none", "unsafe")
    chance, starts = random.Random(SEED), True
    n_acknowledged = n_lost = n_changed = n_cuts = 0
    while n_lost + n_changed == 0 and n_cuts < CUTS_UNSAFE_MAX and starts:
        tally = Tally()
        async with _Uploads(clients, tally, chance):
            n_cuts += 1
            try:
                await _cut_once(disk, slotd, clients, chance)
            except Trouble as trouble:
                # Without syncs the database itself may be damaged; the files then tell.
                starts = False
                report.note(str(trouble).splitlines()[-1])
        n_acknowledged += len(tally.acknowledged)
        if starts:
            lost, changed = await _compare(tally.acknowledged)
            n_lost, n_changed = n_lost + lost, n_changed + changed
        else:
            there = {web.sha256(path.read_bytes()) for path in _committed(slotd)}
            n_lost += sum(digest not in there for digest in tally.acknowledged.values())
    report.check(n_lost + n_changed > 0, 'with durability = "none" the same cuts lose files',
                 f"{n_lost} lost, {n_changed} changed, of {n_acknowledged} acknowledged "
                 f"(cuts: {n_cuts})")
    slotd.kill()
    disk.unmount()


def _committed(slotd):
    return (path for path in (slotd.data_dir / "files").rglob("*") if path.is_file())


def _start(bed, server, durability, name, idle_for=f"{IDLE_S} seconds"):
    disk = Disk(bed, f"disk-{name}")
    disk.mount()
    slotd = Slotd(bed, server, f"slotd-{name}", data_dir=disk.place / "data",
                  limits={"idle_for": idle_for, "slots_per_minute": 100_000},
                  retention={"sweep_every": "1 second"})
    slotd.conf.write_text(f'durability = "{durability}"\n' + slotd.conf.read_text())
    slotd.start()
    # What a start without syncs leaves in the page cache is not what is to be lost here.
    run("sync", "-f", disk.place)
    return disk, slotd


async def _cut_once(disk, slotd, clients, chance, within_s=(0.2, 2.0)):
    """Lets the clients work for a moment, cuts, boots; the seconds until slotd answered again."""
    await clients[0].service_up()
    await asyncio.sleep(chance.uniform(*within_s))
    disk.cut()
    # What is on its way to the clients may still arrive: it was promised.
    await asyncio.sleep(chance.uniform(0.0, 0.05))
    await asyncio.to_thread(slotd.kill)
    await asyncio.to_thread(disk.unmount)
    await asyncio.to_thread(disk.mount)
    (slotd.data_dir / "boot-id").unlink(missing_ok=True)
    return await asyncio.to_thread(slotd.start)


class _Uploads:
    """Clients that upload until the end of the block."""

    def __init__(self, clients, tally, chance):
        self.clients, self.tally, self.chance = clients, tally, chance

    async def __aenter__(self):
        self.tasks = [asyncio.ensure_future(_upload(client, self.tally, self.chance))
                      for client in self.clients]

    async def __aexit__(self, *_error):
        self.tally.stop = True
        await asyncio.wait_for(asyncio.gather(*self.tasks), 180)


async def _upload(client, tally, chance):
    while not tally.stop:
        body = os.urandom(chance.choice(SIZES))
        try:
            slot = await client.slot("cut.bin", len(body), within_s=2)
            tally.slots.append(slot)
            answer = await web.put(slot, body, within_s=20)
        except (Refused, OSError, EOFError, asyncio.TimeoutError, ValueError):
            await asyncio.sleep(0.02)
            continue
        tally.statuses[answer.status] = tally.statuses.get(answer.status, 0) + 1
        if answer.status == 201:
            tally.acknowledged[slot.get] = web.sha256(body)


async def _compare(acknowledged):
    """How many files are lost, and how many changed."""
    lost = changed = 0
    for url, digest in acknowledged.items():
        try:
            answer = await web.get(url)
        except (OSError, EOFError):
            # A file that is shorter than announced ends the connection.
            changed += 1
            continue
        if answer.status != 200:
            lost += 1
        elif answer.sha256 != digest:
            changed += 1
    return lost, changed
