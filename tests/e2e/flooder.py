"""The flooder of the hostile suite, a process of its own: `flooder.py C2S_PORT N`. Says `ready`;
for every line it reads it sends N slot requests at once, and writes how they were answered."""

import asyncio
import json
import sys
from collections import Counter
from types import SimpleNamespace

from bed import SERVICE
from xmpp import UPLOAD, Client, Refused

ANSWERED_WITHIN_S = 60


async def main():
    """Floods whenever it is told to."""
    port, n_requests = int(sys.argv[1]), int(sys.argv[2])
    client = await Client.login(SimpleNamespace(c2s_port=port), "flood")
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await _flood(client, n_requests)), flush=True)


async def _flood(client, n_requests):
    ids = [client.next_id() for _ in range(n_requests)]
    answers = [client.expect(id) for id in ids]
    client.send("".join(
        f"<iq type='get' id='{id}' to='{SERVICE}'>"
        f"<request xmlns='{UPLOAD}' filename='flood.bin' size='1000'/></iq>" for id in ids))
    await asyncio.wait(answers, timeout=ANSWERED_WITHIN_S)
    return Counter(_outcome(answer) for answer in answers)


def _outcome(answer):
    if not answer.done() or answer.exception():
        return "none"
    if answer.result().get("type") == "error":
        refused = Refused(answer.result())
        return f"{refused.kind}/{refused.condition}"
    return "slot"


asyncio.run(main())
