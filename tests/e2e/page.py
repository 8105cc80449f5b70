"""The status page in a real browser: live uploads of every kind, and a day of made history. What
stands in the document, and what colors the screenshot has where the pictures should be."""

import asyncio
import json
import math
import os
import re
import time

import web
from bed import DOMAIN, Trouble, free_port
from commands import Commander
from daemon import Slotd
from sessions import APPEND, announced
from tus import CHROMIUM, JS, NODE_MODULES
from tus import _run as run
from xmpp import Client

MIB = 1024 * 1024
LIVE = "<b onclick=alert(1)>balcony & \"scene\".mp4"
QUARTERS = range(2, 92)
MINUTES = range(5, 50)
SPIKE = 400
MEASURES = ["uploads", "bytes", "resumes", "refusals"]
# Ground, uploads' bars, the room in a bar: as the style has them.
LIGHT = {"ground": [0xf4, 0xf6, 0xf8], "blue": [0x2a, 0x66, 0xc8], "room": [0xe6, 0xea, 0xef]}
DARK = {"ground": [0x11, 0x15, 0x1b], "blue": [0x6f, 0xa6, 0xf7], "room": [0x2a, 0x32, 0x3d]}


def _span(now, width, ago, uploads):
    return {"from": (now // width - ago) * width, "uploads": uploads, "bytes": uploads * 3 * MIB,
            "resumes": ago % 3, "refusals": ago % 5}


def _history(now):
    """A day that was made up: a spike half an hour ago, nothing of the last minutes."""
    uploads = {ago: SPIKE if ago == 30 else 90 + ago * 37 % 50 for ago in MINUTES}
    return {"minutes": [_span(now, 60, ago, uploads[ago]) for ago in MINUTES],
            "quarters": [_span(now, 900, ago, round(130 + 110 * math.sin(ago / 16)))
                         for ago in QUARTERS],
            "acts": [{"at": now - 7200, "by": f"nurse@{DOMAIN}", "is_done": False,
                      "what": "purge <i>mercutio</i>@verona.example"}]}


def _sums(rows):
    return {name: sum(row[name] for row in rows) for name in MEASURES}


async def suite(bed, server, report):
    server.start()
    server.accounts("admin", "alice")
    port = free_port()
    slotd = Slotd(bed, server, operators={"jids": [f"admin@{DOMAIN}"]},
                  admin={"listen": [f"127.0.0.1:{port}"]})
    history = _history(int(time.time()))
    (slotd.data_dir / "history.json").write_text(json.dumps(history))
    slotd.start()
    url = f"http://127.0.0.1:{port}/"
    alice, admin = await Client.login(server, "alice"), Commander(server, "admin")
    await alice.service_up()
    await admin.come_online()
    tricklers = await _uploads(alice)
    await admin.run("sweep")
    await _head(report, url)
    await _until(url, "resumed at ", "stuck for", "broken off", ">62 %<")
    pictures = os.environ.get("PAGE_PICTURES") or bed.sub("pictures")
    status, line = await run("node", JS / "page.cjs", url, LIVE, pictures,
                             NODE_MODULES=str(NODE_MODULES), CHROMIUM=CHROMIUM)
    if report.check(status == 0, "the browser looks at the page", line[:300] if status else ""):
        seen = json.loads(line)
        _document(report, seen["wide-light"])
        _charts(report, seen["wide-light"], history)
        for name, look in seen.items():
            _look(report, name, look, url)
        fresh = seen["wide-light"]["fresh"]
        report.check((fresh["mark"], fresh["top"]) == ("the same document", 60)
                     and len(MINUTES) <= fresh["rows"],
                     "with scripts it changes in place, and what was unfolded stays so", fresh)
        report.check(seen["plain-light"]["reloaded"], "without scripts it loads itself anew")
    for trickler in tricklers:
        trickler.cancel()
    await admin.disconnect()
    await alice.close()
    await _restart(report, slotd, url, history)


async def _head(report, url):
    answer = await web.get(url)
    policy = answer.headers.get("content-security-policy", "")
    wanted = ["default-src 'none'", "frame-ancestors 'none'", "script-src 'sha256-"]
    report.check(all(part in policy for part in wanted) and "unsafe" not in policy,
                 "the policy of its content lets nothing foreign run", policy[:60])
    report.equal([answer.headers.get("cache-control"), answer.headers.get("x-content-type-options")],
                 ["no-store", "nosniff"], "it is kept by nobody and is what it says")


async def _until(url, *words):
    """Waits until the page says all of this."""
    for _ in range(400):
        page = (await web.get(url)).body.decode()
        missing = [word for word in words if word not in page]
        if not missing:
            return page
        await asyncio.sleep(0.1)
    shown = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", " ", page, flags=re.S)
    raise Trouble(f"the page does not say {missing}: {shown[:2000]}")


async def _trickle(url, method, headers, size, first):
    """Sends `first` bytes at once and then a few now and then; never comes to its end."""
    _reader, writer = await web.connect(url)
    writer.write(web.head(method, url, {**headers, "Content-Length": str(size)}))
    writer.write(bytes(first))
    try:
        while True:
            await writer.drain()
            await asyncio.sleep(1)
            writer.write(bytes(16))
    finally:
        writer.transport.abort()


async def _silent(slot, size, first):
    """Sends `first` bytes and holds the connection."""
    _reader, writer = await web.connect(slot.put)
    writer.write(web.head("PUT", slot.put, {**slot.headers, "Content-Length": str(size)}))
    writer.write(bytes(first))
    try:
        await asyncio.sleep(3600)
    finally:
        writer.transport.abort()


async def _uploads(alice):
    """One upload of each kind; the tasks that hold them."""
    live = await alice.slot(LIVE, 16 * MIB)
    stuck = await alice.slot("stuck.bin", 4 * MIB)
    broken = await alice.slot("broken.bin", 8 * MIB)
    slot, session = await announced(alice, "resumed.bin", 6 * MIB)
    await web.put(slot, bytes(6 * MIB), cut_after=3 * MIB)
    await web.put(broken, bytes(8 * MIB), cut_after=4 * MIB)
    # So that it counts as resumed, and is no upload in pieces.
    await asyncio.sleep(2)
    url = session["resume-url"]
    told = await web.request("HEAD", url, {"Upload-Draft-Interop-Version": "8"})
    offset = int(told.headers["upload-offset"])
    resuming = {**APPEND, "Upload-Offset": str(offset)}
    started = [_trickle(live.put, "PUT", live.headers, 16 * MIB, 10 * MIB),
               _silent(stuck, 4 * MIB, 2 * MIB),
               _trickle(url, "PATCH", resuming, 6 * MIB - offset, MIB)]
    return [asyncio.ensure_future(one) for one in started]


def _document(report, seen):
    kinds = {one["file"]: one["kind"] for one in seen["uploads"]}
    report.equal(kinds, {LIVE: "coming", "stuck.bin": "stuck", "resumed.bin": "resumed",
                         "broken.bin": "broken"}, "every upload is there as it goes")
    report.equal(seen["standing"], "All is well", "it says how things stand")
    report.check("upload.localhost" in seen["health"] and "Database" in seen["health"],
                 "streams and stores", seen["health"][:80])
    report.check("free" in seen["storage"], "disk and quota", seen["storage"][:80])
    acts = seen["acts"]
    report.check(f"sweepadmin@{DOMAIN}" in acts and "purge <i>mercutio</i>" in acts
                 and acts.index("sweep") < acts.index("purge") and "not done" in acts,
                 "what operators did, the latest first, as text", acts[:120])
    report.equal(seen["n_alive"], 1, "nothing in it runs or loads but its own script")


def _charts(report, seen, history):
    charts = seen["charts"]
    for period, rows in (("hour", history["minutes"]), ("day", history["quarters"])):
        sums = _sums(rows)
        for name in MEASURES:
            chart, n_bars = charts[f"{period} {name}"], sum(row[name] != 0 for row in rows)
            # What was refused or resumed during the test is a bar more.
            report.check(chart["n_bars"] - n_bars in (0, 1, 2) and chart["words"] > 8,
                         f"{period}, {name}: a bar for each span", chart["n_bars"])
            if name == "uploads":
                report.equal(chart["sum"], f"{sums[name]:,}", f"{period}, {name}: their sum")
    highest = charts["hour uploads"]["highest"]["said"]
    report.check(highest.endswith(f" UTC: {SPIKE}"), "the highest bar is the spike", highest)


def _look(report, name, seen, url):
    """What colors the screenshot has, and what the browser asked for."""
    wanted = DARK if "dark" in name else LIGHT
    found = {color: seen.get(place) for color, place in
             [("ground", "ground"), ("blue", "full"), ("room", "room")]}
    report.equal(found, wanted, f"{name}: ground, bar and its room have their colors")
    report.equal(seen.get("chart"), wanted["blue"], f"{name}: the spike stands in the picture")
    report.check(seen.get("above") not in (None, wanted["blue"]), f"{name}: and ends there",
                 seen.get("above"))
    report.check(not seen["is_wider"], f"{name}: nothing is wider than the screen")
    others = [one for one in seen["requests"] if one != url and not one.startswith("data:")]
    report.equal([others, seen["complaints"]], [[], []], f"{name}: asks nobody else")


async def _restart(report, slotd, url, history):
    """What happened is told after a restart too."""
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    slotd.start()
    uploads = f"{_sums(history['quarters'])['uploads']:,}"
    page = await _until(url, f'<span class="sum">{uploads}</span>', f"admin@{DOMAIN}")
    report.check("purge &lt;i&gt;" in page, "the day and the acts outlast a restart")
    slotd.stop()
    (slotd.data_dir / "history.json").write_text("{")
    slotd.start()
    await _until(url, "None is remembered.")
    report.check("begins anew" in slotd.process.tail(), "a damaged history is begun anew, and told")
    slotd.stop()
