"""The connection cut in the middle of a PUT, and the 201 lost: the same PUT again is right."""

import asyncio
import os
import random
from urllib.parse import urlsplit

import web
from bed import wait_until
from daemon import Slotd
from xmpp import Client

ROUNDS = 20
SIZE = 2_000_000


async def part(bed, server, report):
    server.account("retry")
    slotd = Slotd(bed, server, "slotd-retry")
    slotd.start()
    client = await Client.login(server, "retry")
    await client.service_up()
    cut = [await _cut_then_same(client) for _ in range(ROUNDS)]
    report.equal(cut.count((201, True)), ROUNDS, f"cut in mid-PUT, then the same PUT: 201 and "
                 f"right bytes, of {ROUNDS}")
    held = [await _half_open_then_same(client, slotd) for _ in range(5)]
    report.equal(held.count((201, True)), 5,
                 "the first PUT hangs half-way, and the same PUT comes: 201 at once, of 5")
    lost = [await _lost_then_same(client) for _ in range(ROUNDS)]
    report.equal(lost.count((201, True)), ROUNDS,
                 f"the 201 lost, then the same PUT: 201, of {ROUNDS}")
    other = [await _then_other(client) for _ in range(ROUNDS)]
    report.equal(other.count((409, True)), ROUNDS,
                 f"then other bytes: 409 and the file unchanged, of {ROUNDS}")
    for words, results in [("cut", cut), ("hanging", held), ("lost", lost), ("other", other)]:
        wrong = [result for result in results if result not in ((201, True), (409, True))]
        if wrong:
            report.note(f"{words}: {wrong}")
    await client.close()
    slotd.stop()


def slot_id(slot):
    """The slot's name in its URLs."""
    return urlsplit(slot.put).path.split("/")[-2]


async def _same(slot, body):
    answer = await web.put(slot, body)
    back = await web.get(slot.get)
    return answer.status, back.body == body


async def _cut_then_same(client):
    body = os.urandom(SIZE)
    slot = await client.slot("cut.bin", SIZE)
    await web.put(slot, body, cut_after=random.randrange(1, SIZE))
    assert (await web.get(slot.get)).status == 404, "a part was served"
    for _ in range(5):
        result = await _same(slot, body)
        if result[0] != 409:
            break
        # A busy machine may look at the PUT that was cut after the one that followed it.
    return result


async def _half_open_then_same(client, slotd):
    body = os.urandom(SIZE)
    slot = await client.slot("half.bin", SIZE)
    reader, writer = await web.connect(slot.put)
    writer.write(web.head("PUT", slot.put, slot.headers | {"Content-Length": str(SIZE)}))
    writer.write(body[:SIZE // 2])
    await writer.drain()
    # The newest wins, so the older one must have arrived.
    begun = f'upload begins slot="{slot_id(slot)[:8]}"'
    await asyncio.to_thread(wait_until, begun, lambda: begun in slotd.process.tail())
    result = await asyncio.wait_for(_same(slot, body), 60)
    writer.transport.abort()
    return result


async def _lost_then_same(client):
    body = os.urandom(SIZE)
    slot = await client.slot("lost.bin", SIZE)
    await web.put(slot, body, deaf=True)
    return await _same(slot, body)


async def _then_other(client):
    body = os.urandom(SIZE)
    slot = await client.slot("other.bin", SIZE)
    await web.put(slot, body)
    answer = await web.put(slot, os.urandom(SIZE))
    back = await web.get(slot.get)
    return answer.status, back.body == body
