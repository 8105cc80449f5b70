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
    (disk / "ballast").write_bytes(bytes(10 * MIB))
    early = [await client.slot("early.bin", 20_000) for _ in range(5)]
    kept = {}
    statuses, noes = await _fill_up(client, kept)
    report.check(set(statuses) <= {201, 507} and statuses.get(201),
                 "PUTs until the disk is full get 201 or 507", statuses)
    report.check(noes and set(noes) == {"wait/resource-constraint"},
                 "slot requests on the full disk get resource-constraint", noes)
    _fill_rest(disk)
    statuses = [(await web.put(slot, os.urandom(20_000))).status for slot in early]
    report.equal(statuses, [507] * len(early),
                 "the disk full to the last byte: PUTs on slots from before")
    wrong = [url for url, digest in kept.items() if (await web.get(url)).sha256 != digest]
    report.equal(wrong, [], f"downloads on the full disk that fail, of {len(kept)}")
    (disk / "filler").unlink()
    (disk / "ballast").unlink()
    body = os.urandom(20_000)
    answer = await web.put(early[0], body)
    back = await web.get(early[0].get)
    report.equal((answer.status, back.body == body), (201, True),
                 "with room again the PUT that got 507 goes through")
    slot = await client.slot("again.bin", 100_000)
    body = os.urandom(100_000)
    answer = await web.put(slot, body)
    back = await web.get(slot.get)
    report.equal((answer.status, back.body == body), (201, True),
                 "with room again, without a restart: slot, PUT, GET")
    await client.close()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    status, words = slotd.command("audit", "--deep")
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


def _fill_rest(disk):
    """Somebody else writes until nothing goes any more."""
    filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    for size in (65536, 4096, 1):
        try:
            while os.write(filler, b"x" * size):
                pass
        except OSError:
            continue
    os.close(filler)
