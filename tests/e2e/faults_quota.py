"""50 slot requests of 10 MiB at once against a quota of 100 MiB: exactly 10 are granted."""

import asyncio

from daemon import Slotd
from xmpp import Client, Refused

RUNS = 20
REQUESTS = 50
GRANTED = 10
MIB = 1024 * 1024


async def part(bed, server, report):
    users = [f"quota{n}" for n in range(RUNS)]
    await asyncio.to_thread(server.accounts, *users)
    slotd = Slotd(bed, server, "slotd-quota", limits={"max_file_size": "10 MiB"},
                  quota={"per_requester": "100 MiB"})
    slotd.start()
    runs, noes = [], {}
    for user in users:
        # From two of the account's devices, so that the requests are really at once.
        phone, laptop = await Client.login(server, user), await Client.login(server, user)
        await phone.service_up()
        outcomes = await asyncio.gather(*(
            _ask((phone, laptop)[n % 2], n) for n in range(REQUESTS)))
        runs.append(outcomes.count("granted"))
        for outcome in outcomes:
            if outcome != "granted":
                noes[outcome] = noes.get(outcome, 0) + 1
        await phone.close()
        await laptop.close()
    report.equal(runs, [GRANTED] * RUNS,
                 f"granted of {REQUESTS} slots of 10 MiB at once under 100 MiB, {RUNS} runs")
    report.equal(noes, {"wait/resource-constraint with retry": RUNS * (REQUESTS - GRANTED)},
                 "the others are told when to ask again")
    slotd.stop()


async def _ask(client, n):
    try:
        await client.slot(f"{n}.bin", 10 * MIB)
        return "granted"
    except Refused as refused:
        retry = any(app.tag.endswith("}retry") for app in refused.app)
        return f"{refused.kind}/{refused.condition}" + (" with retry" if retry else "")
