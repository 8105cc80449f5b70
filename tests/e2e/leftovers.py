"""What a killed slotd may leave behind, and what must be gone."""

import asyncio
import base64
import time
from urllib.parse import urlsplit

import web

GONE_WITHIN_S = 60


def _hex_id(slot):
    name = urlsplit(slot.put).path.split("/")[-2]
    return base64.urlsafe_b64decode(name + "==").hex()


async def partials_left(slotd, slots):
    """Partials that are still there after a while, and how long it took: of `slots`, all there
    were. One that slotd was about to remove when it was killed stays with its upload's tombstone:
    the upload is over then, and its PUT is answered 410."""
    by_id = {_hex_id(slot): slot for slot in slots}
    over, start = set(), time.monotonic()
    while True:
        left = [name for name in slotd.partials() if name not in over]
        if not left or time.monotonic() - start > GONE_WITHIN_S:
            return left, time.monotonic() - start
        for name in left:
            slot = by_id.get(name.rpartition("/")[2].partition(".")[0])
            if slot and (await web.put(slot, b"")).status == 410:
                over.add(name)
        await asyncio.sleep(0.2)
