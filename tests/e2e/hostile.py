"""Hostile neighbors: an emoji for a resource, malformed IQs, a flood. Each is answered, and a
fourth client's slot requests stay quick."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import web
from bed import DOMAIN, NEIGHBOR, SECRET, SERVICE, Trouble
from daemon import Slotd
from report import median
from xmpp import DISCO_INFO, UPLOAD, Client, Component, Refused

FLOOD = 1000
FLOODS = 3
SAMPLES = 40
MEDIAN_MAX_MS = 50
EMOJI_OF_2002 = "\N{WHITE SMILING FACE}\N{UMBRELLA}"
EMOJI = "\N{PARTY POPPER}\N{GRINNING FACE}"

# What a client of the server can send: words, type, payload, and whether only an error will do.
MALFORMED = [
    ("no filename", "get", f"<request xmlns='{UPLOAD}' size='5'/>"),
    ("an empty filename", "get", f"<request xmlns='{UPLOAD}' filename='' size='5'/>"),
    ("a size that is no number", "get", f"<request xmlns='{UPLOAD}' filename='a' size='five'/>"),
    ("a size of 400 digits", "get", f"<request xmlns='{UPLOAD}' filename='a' size='{'9' * 400}'/>"),
    ("two requests", "get", f"<request xmlns='{UPLOAD}' filename='a' size='5'/>" * 2),
    ("a filename of 9,000 bytes", "get",
     f"<request xmlns='{UPLOAD}' filename='{'x' * 9000}' size='5'/>"),
    ("type set", "set", f"<request xmlns='{UPLOAD}' filename='a' size='5'/>"),
    ("an unknown namespace", "get", "<what xmlns='urn:example:unknown'/>"),
    ("200 levels", "get", "<a xmlns='urn:example:deep'>" + "<a>" * 199 + "</a>" * 200),
    ("a bad purpose", "get", f"<request xmlns='{UPLOAD}' filename='a' size='5'>"
     "<ephemeral xmlns='urn:xmpp:http:upload:purpose:0' expire-before='yesterday'/></request>"),
]


async def suite(bed, server, report):
    server.start()
    server.accounts("emoji", "malformed", "flood", "fourth")
    slotd = Slotd(bed, server, access={"domains": [DOMAIN, NEIGHBOR]},
                  limits={"slots_per_minute": 400}, log={"level": "info"})
    slotd.start()
    fourth = await Client.login(server, "fourth")
    await fourth.service_up()
    await _emoji(server, report)
    await _malformed(server, report)
    await _flood(server, report, fourth)
    errors = [line for line in slotd.process.tail(100_000).splitlines() if "panick" in line]
    report.equal(errors, [], "panics in slotd's log")
    report.check(slotd.process.running(), "slotd is the same process as at the start", "")
    await fourth.close()


async def _emoji(server, report):
    client = await Client.login(server, "emoji", EMOJI_OF_2002)
    await _serve(client, report, EMOJI_OF_2002)
    # Both servers keep newer emoji from their own accounts' resources; other servers' accounts and
    # components have them.
    sender = f"party@{NEIGHBOR}/{EMOJI}"
    client = await Component.attach(server, NEIGHBOR, SECRET, sender)
    try:
        await _serve(client, report, EMOJI)
    except (Refused, ConnectionError) as error:
        if server.name != "ejabberd":
            raise
        report.skip("a requester whose resource is a newer emoji", f"ejabberd says no: {error}")


async def _serve(client, report, emoji):
    shown = client.jid.encode("ascii", "backslashreplace").decode()
    if not client.jid.endswith(emoji):
        report.check(False, "the resource is the emoji", shown)
    start = time.monotonic()
    await client.iq(f"<query xmlns='{DISCO_INFO}'/>", within_s=30)
    slot = await client.slot("party.bin", 100)
    took_ms = (time.monotonic() - start) * 1000
    report.check(True, "a requester whose resource is an emoji gets disco and slot",
                 f"{took_ms:.1f} ms, {shown}")
    answer = await web.put(slot, os.urandom(100))
    report.equal(answer.status, 201, "and its upload")
    await client.close()


async def _malformed(server, report):
    client = await Client.login(server, "malformed")
    for words, kind, payload in MALFORMED:
        start = time.monotonic()
        try:
            await client.iq(payload, kind=kind, within_s=30)
            answer = "a result"
        except Refused as refused:
            answer = f"{refused.kind}/{refused.condition}"
        except (asyncio.TimeoutError, ConnectionError) as error:
            answer = f"none ({type(error).__name__})"
        took_ms = (time.monotonic() - start) * 1000
        report.check("/" in answer, f"a malformed IQ, {words}", f"{answer}, {took_ms:.1f} ms")
    client.send(f"<iq type='result' id='unasked' to='{SERVICE}'/>"
                f"<iq type='error' id='unasked2' to='{SERVICE}'/>"
                f"<message to='{SERVICE}' type='error'><body>x</body></message>"
                f"<presence to='{SERVICE}'/><message to='{SERVICE}'><body>hello</body></message>")
    slot = await client.slot("after.bin", 10)
    answer = await web.put(slot, b"0123456789")
    report.equal(answer.status, 201, "after all that the same client uploads")
    report.equal(len(client.stray), 0, "answers to what asks for none")
    await client.close()


async def _flood(server, report, fourth):
    # A process of its own, so that reading its answers does not delay the fourth client.
    flooder = await asyncio.create_subprocess_exec(
        sys.executable, Path(__file__).parent / "flooder.py", str(server.c2s_port), str(FLOOD),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    await asyncio.wait_for(flooder.stdout.readline(), 30)
    quiet = [await _slot_ms(fourth) for _ in range(10)]
    outcomes, samples = await _under_flood(flooder, fourth, SAMPLES)
    answered = sum(outcomes.values()) - outcomes.get("none", 0)
    report.equal(answered, FLOOD, f"a flood of {FLOOD} slot requests at once, answered")
    report.note(f"{outcomes}")
    report.check("wait/resource-constraint" in outcomes, "a flood meets the rate limit", "")
    # A machine that is busy with other things is slow without a flood, too.
    max_ms = max(MEDIAN_MAX_MS, 10 * median(quiet))
    report.check(median(samples) < max_ms,
                 f"a fourth client's {SAMPLES} slots from the flood's beginning take under "
                 f"{max_ms:.0f} ms (median)",
                 f"{median(samples):.1f} ms, worst {max(samples):.1f} ms; "
                 f"quiet {median(quiet):.1f} ms")
    await _flood_on(flooder, fourth, report)
    flooder.stdin.close()
    await flooder.wait()


async def _under_flood(flooder, fourth, n_samples=None):
    """One flood, and what a slot takes: `n_samples` times, or until the flood is answered."""
    flooder.stdin.write(b"go\n")
    flood = asyncio.ensure_future(flooder.stdout.readline())
    await asyncio.sleep(0)
    samples = []
    while len(samples) < n_samples if n_samples else not flood.done():
        samples.append(await _slot_ms(fourth))
    return json.loads(await asyncio.wait_for(flood, 90)), samples


async def _flood_on(flooder, fourth, report):
    """Flood upon flood, for the figure: how long a slot takes while there is always one."""
    samples, answered, start = [], 0, time.monotonic()
    for _ in range(FLOODS):
        outcomes, more = await _under_flood(flooder, fourth)
        samples += more
        answered += sum(outcomes.values()) - outcomes.get("none", 0)
    took_s = time.monotonic() - start
    report.equal(answered, FLOODS * FLOOD, f"{FLOODS} more floods without a pause, answered")
    report.note(f"{answered / took_s:.0f} answers a second; a slot meanwhile "
                f"{median(samples):.1f} ms (median), worst {max(samples):.1f} ms of {len(samples)}")


async def _slot_ms(client):
    start = time.monotonic()
    try:
        await client.slot("fourth.bin", 1000)
    except Refused as refused:
        raise Trouble(f"the fourth client was refused: {refused}") from None
    return (time.monotonic() - start) * 1000
