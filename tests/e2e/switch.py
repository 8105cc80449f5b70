"""One phone changes its network in mid-upload, in each way a network can go; slotd restarts
meanwhile; and a client that knows nothing of all this repeats its PUT."""

import asyncio
import os
import random

import network
from network_client import KINDS, Phone, PlainUpload, Tally, Upload, Wrong
from sessions import announced, refresh
from xmpp import Client

SIZE = 8 << 20
# Slower than the network, so that there is room in the phone's buffer when the path goes.
RATE = 3_000_000
TWICE_MAX = 256 * 1024
# A request that waits for the old path would take minutes; a busy machine takes some seconds.
GAP_MAX_MS = 10_000
# Between the end of a path and the moment the phone is told.
UNAWARE_S = 0.3
# What a network that holds packets lets through at first.
LEAK_S = 0.02
LATE_WITHIN_S = 60
# Whatever else has to happen.
WITHIN_S = 180
PLAIN, PLAIN_SIZE = 100, 256 * 1024
SEED = 14


async def suite(bed, server, report):
    if why := network.why_not():
        report.skip("changes of network", why)
        return
    with network.Network(n_phones=PLAIN) as net:
        server.start()
        server.accounts("phone")
        slotd = network.slotd_at(bed, server)
        slotd.start()
        client = await Client.login(server, "phone")
        await client.service_up()
        chance = random.Random(SEED)
        for part in (_kinds, _by_refresh, _restart, _plain):
            await part(net, slotd, client, chance, report)
        await client.close()
        slotd.stop()
        status, words = slotd.command("audit", "--deep")
        report.equal(status, 0, "slotd audit --deep exits")
        if status:
            report.note(words)


async def begin(net, client, chance, tally):
    """An upload that is somewhere in its middle, and who goes on with it."""
    body = os.urandom(SIZE)
    upload = Upload(Phone(net), body, *await announced(client, "phone.bin", SIZE), tally, rate=RATE)
    upload.begin(mark=chance.randrange(SIZE // 4, SIZE * 3 // 4))
    work = asyncio.ensure_future(upload.finish())
    await upload.transfer.at_mark()
    return upload, work


async def _kinds(net, _slotd, client, chance, report):
    n_wrong = 0
    for kind in KINDS:
        tally = Tally()
        upload, work = await begin(net, client, chance, tally)
        old, name = upload.transfer, upload.phone.at
        go(net, upload.phone, kind)
        await asyncio.sleep(LEAK_S)
        # From here on other bytes: none of these may be in the file.
        poisoned_from = old.poison()
        await asyncio.sleep(UNAWARE_S)
        n_late = max(0, old.sent - poisoned_from)
        with net.witness(upload.phone.source) as witness:
            upload.phone.move()
            await _until(lambda: upload.transfer is not old
                         and (upload.transfer is None or upload.transfer.sent >= SIZE // 50),
                         WITHIN_S)
            come_back(net, upload.phone, name, kind)
            await asyncio.wait_for(work, WITHIN_S)
            # The phone's system sends again at ever longer intervals.
            await _until(lambda: witness.n_bytes > 0, LATE_WITHIN_S)
        report.check(witness.n_bytes > 0, f"{kind}: data of before comes late",
                     f"{witness.n_bytes} bytes; {n_late} of the phone's last would be wrong")
        figures(report, kind, tally, await upload.arrived())
        n_wrong += n_late
    # Of one kind there may be none: the phone's buffer was full before.
    report.check(n_wrong > 0, "bytes that would be wrong and came late, of all kinds", n_wrong)


def go(net, phone, kind):
    """The network the phone is in goes, in this way."""
    if kind == "down":
        net.unplug(phone.at)
    elif kind == "late":
        net.hold(phone.at)
    else:
        net.cut(phone.source)


def come_back(net, phone, name, kind):
    """And is there again."""
    if kind == "down":
        net.plug(name)
    elif kind == "late":
        net.release(name)
    else:
        net.heal(network.address(name, phone.n))


async def _until(true, within_s):
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not true() and loop.time() < end:
        await asyncio.sleep(0.001)


def figures(report, kind, tally, same):
    """The checks of every change of network."""
    report.check(same, f"{kind}: {SIZE >> 20} MiB, the same bytes arrive",
                 f"offsets told {tally.offsets}")
    report.check(tally.twice <= TWICE_MAX, f"{kind}: bytes sent twice, at most {TWICE_MAX}",
                 tally.twice)
    report.check(tally.went_back == 0 and tally.offsets and 0 < tally.offsets[0],
                 f"{kind}: offsets that went back", tally.went_back)
    report.check(tally.gaps_ms and max(tally.gaps_ms) < GAP_MAX_MS,
                 f"{kind}: first request on the new network to the offset",
                 ", ".join(f"{gap:.1f} ms" for gap in tally.gaps_ms))


async def _by_refresh(net, _slotd, client, chance, report):
    loop, tally = asyncio.get_running_loop(), Tally()
    upload, work = await begin(net, client, chance, tally)
    old_url, at = upload.resume_url, upload.phone.at
    upload.phone.lose()
    upload.transfer.poison()
    await asyncio.sleep(UNAWARE_S)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await upload.transfer.leave()
    upload.phone.move()
    began = loop.time()
    slot, session = await refresh(client, upload.id)
    tally.gaps_ms.append((loop.time() - began) * 1000)
    if slot is None or session["resume-url"] == old_url or slot.get != upload.slot.get:
        raise Wrong(f"a refresh gave {session}")
    upload.resume_url = session["resume-url"]
    upload.learn(int(session["offset"]))
    upload.append()
    await asyncio.wait_for(upload.finish(), WITHIN_S)
    figures(report, "silent, then a refresh and no HEAD", tally, await upload.arrived())
    report.equal(len(tally.offsets), 1, "the refresh told the offset at which the PATCH was taken")
    net.heal(network.address(at, 0))


async def _restart(net, slotd, client, chance, report):
    for words, end in [("stopped", slotd.stop), ("killed", slotd.kill)]:
        tally = Tally()
        upload, work = await begin(net, client, chance, tally)
        await asyncio.to_thread(end)
        seconds = await asyncio.to_thread(slotd.start)
        await asyncio.wait_for(work, WITHIN_S)
        report.check(await upload.arrived(), f"slotd {words} and started in mid-upload: the same "
                     "bytes arrive", f"offsets told {tally.offsets}, up in {seconds * 1000:.0f} ms")
        report.check(tally.went_back == 0 and tally.offsets and tally.offsets[0] > 0,
                     f"slotd {words}: it goes on where it was", f"{tally.twice} bytes sent twice")
    await client.service_up()


async def _plain(net, _slotd, client, chance, report):
    statuses, n_same, tally = [], 0, Tally()
    for number, kind in enumerate(KINDS):
        uploads = []
        for n in range(number, PLAIN, len(KINDS)):
            slot = await client.slot("plain.bin", PLAIN_SIZE)
            upload = PlainUpload(Phone(net, n), os.urandom(PLAIN_SIZE), slot, tally)
            # It does not send its last bytes before its network has gone.
            upload.begin(mark=chance.randrange(PLAIN_SIZE // 8, PLAIN_SIZE), halt=True)
            uploads.append(upload)
        work = [asyncio.ensure_future(upload.finish()) for upload in uploads]
        await asyncio.gather(*(upload.transfer.at_mark() for upload in uploads))
        for upload in uploads:
            go(net, upload.phone, kind)
        await asyncio.sleep(UNAWARE_S)
        for upload in uploads:
            upload.phone.move()
        if kind == "late":
            net.release("wifi")
        statuses += await asyncio.wait_for(asyncio.gather(*work), WITHIN_S)
        for upload in uploads:
            n_same += await upload.arrived()
            come_back(net, upload.phone, "wifi", kind)
    report.equal((statuses.count(201), n_same), (PLAIN, PLAIN), "clients that repeat their PUT "
                 f"after a change of network: 201, and the same bytes, of {PLAIN}")
    report.note(f"bytes sent twice by them: {tally.twice} of {tally.sent}")
