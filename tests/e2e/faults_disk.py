"""A full disk: 201 or 507 and resource-constraint, downloads go on, and it ends by itself."""

import os
import subprocess

import web
from bed import run
from daemon import Slotd
from xmpp import Client, Refused

MIB = 1024 * 1024
DISK_MIB = 64


async def part(bed, server, report):
    words = f"a full disk of {DISK_MIB} MiB"
    disk = bed.sub("small-disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", disk],
                             stderr=subprocess.PIPE, text=True)
    if mounted.returncode:
        report.skip(words, f"cannot mount one here: {mounted.stderr.strip()}")
        return
    bed.cleanups.append(lambda: run("umount", "-l", disk, ok=(0, 1, 32)))
    server.account("disk")
    # Without a reserve: the disk shall be really full, to the last block.
    slotd = Slotd(bed, server, "slotd-disk", data_dir=disk / "data",
                  limits={"reserve_space": "0 B", "reserve_inodes": 0,
                          "slots_per_minute": 10_000})
    slotd.start()
    client = await Client.login(server, "disk")
    await client.service_up()
    kept = {}
    statuses, noes = await _fill_up(client, kept)
    report.check(set(statuses) <= {201, 507} and statuses.get(201),
                 "PUTs until the disk is full get 201 or 507", statuses)
    report.check(noes and set(noes) == {"wait/resource-constraint"},
                 "slot requests on the full disk get resource-constraint", noes)
    statuses = await _late_puts(client, disk, report)
    report.check(set(statuses) == {507}, "PUTs on slots from before get 507", statuses)
    wrong = [url for url, digest in kept.items() if (await web.get(url)).sha256 != digest]
    report.equal(wrong, [], f"downloads on the full disk that fail, of {len(kept)}")
    (disk / "filler").unlink()
    slot = await client.slot("again.bin", 100_000)
    body = os.urandom(100_000)
    answer = await web.put(slot, body)
    back = await web.get(slot.get)
    report.equal((answer.status, back.body == body), (201, True),
                 "with room again, without a restart: slot, PUT, GET")
    await client.close()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    status, words = slotd.command("audit")
    report.equal(status, 0, "slotd audit afterwards exits")
    if status:
        report.note(words)


async def _fill_up(client, kept):
    """Uploads until no slot is given any more: statuses of PUTs, refusals of slots."""
    statuses, noes = {}, {}
    for size in [5 * MIB] * 20 + [500_000] * 20:
        try:
            slot = await client.slot("fill.bin", size)
        except Refused as refused:
            what = f"{refused.kind}/{refused.condition}"
            noes[what] = noes.get(what, 0) + 1
            continue
        body = os.urandom(size)
        answer = await web.put(slot, body)
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        if answer.status == 201:
            kept[slot.get] = web.sha256(body)
    return statuses, noes


async def _late_puts(client, disk, report):
    """Slots from when there was room, and somebody else fills the disk before their PUTs."""
    statuses = {}
    slots = []
    for _ in range(5):
        try:
            slots.append(await client.slot("late.bin", 20_000))
        except Refused as refused:
            report.note(f"no slot for the late PUTs: {refused}")
    with open(disk / "filler", "wb") as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
                filler.flush()
        except OSError:
            pass
    for slot in slots:
        answer = await web.put(slot, os.urandom(20_000))
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    return statuses
