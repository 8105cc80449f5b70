"""Basics: what a client finds, a slot, PUT, GET, HEAD, Range, and the clear noes."""

import asyncio
import os
import re
import shutil
import textwrap

import web
from bed import DOMAIN, ROOT, SECRET, SERVICE, run
from daemon import BINARY, Slotd
from xmpp import DISCO_INFO, DISCO_ITEMS, UPLOAD, Client, Refused

MIB = 1024 * 1024


async def suite(bed, server, report):
    server.start()
    server.accounts("alice")
    slotd = Slotd(bed, server, limits={"max_file_size": "20 MiB"})
    status, words = slotd.command("check")
    report.equal(status, 0, "slotd check of the test's configuration exits")
    if status != 0:
        report.note(words)
    _shipped(bed, report)
    _log_in(bed, slotd, report)
    slotd.start()
    alice = await Client.login(server, "alice")
    up_s = await alice.service_up()
    report.check(True, "the component answers after the start", f"{up_s * 1000:.0f} ms")
    await _discovery(alice, report)
    await _transfer(alice, report)
    await _noes(alice, report)
    await alice.close()
    before = slotd.files()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    report.check(any(size == 5 * MIB for size in before.values()),
                 "the uploaded bytes are below data_dir", f"{len(before)} files")


def _log_in(bed, slotd, report):
    """slotd check --connect tries the log-in, and says what is wrong with it."""
    status, words = slotd.command("check", "--connect")
    report.check(status == 0 and "logged in" in words, "slotd check --connect logs in", status)
    wrong = bed.dir / "wrong.secret"
    wrong.write_text("some-other-secret")
    wrong.chmod(0o600)
    status, words = slotd.command("check", "--connect", "--component-secret-file", wrong)
    line = words.strip().splitlines()[-1]
    report.check(status == 1 and "refused the secret" in line and wrong.read_text() not in words,
                 "with another secret it exits 1 and says why", line)


def _shipped(bed, report):
    """What the README and the systemd unit tell an admin to write is right."""
    readme = (ROOT / "README.md").read_text()
    text = textwrap.dedent(re.search(r"^ {7}\[component\]\n(?: {7}.*\n|\n)+", readme, re.M)[0])
    conf = bed.dir / "readme.toml"
    conf.write_text(text)
    unit = (ROOT / "contrib/systemd/slotd.service").read_text()
    name = re.search(r"^LoadCredential=([^:]+):", unit, re.M)[1]
    credentials = bed.sub("credentials")
    (credentials / name).write_text(SECRET)
    (credentials / name).chmod(0o400)
    words = run(BINARY, "check", "--config", conf, ok=range(256),
                env={**os.environ, "CREDENTIALS_DIRECTORY": str(credentials)})
    report.check("is good" in words, "slotd check of the README's configuration, with the "
                 "systemd unit's credential", words.strip().splitlines()[0])
    if shutil.which("systemd-analyze"):
        local = bed.dir / "slotd.service"
        local.write_text(unit.replace("/usr/local/bin/slotd", BINARY))
        words = run("systemd-analyze", "verify", local, ok=range(256))
        report.equal("\n".join(line for line in words.splitlines() if "slotd" in line), "",
                     "systemd-analyze verify of the unit has complaints")


async def _discovery(alice, report):
    items = await alice.iq(f"<query xmlns='{DISCO_ITEMS}'/>", to=DOMAIN)
    jids = [node.get("jid") for node in items.iter() if node.tag.endswith("}item")]
    report.check(SERVICE in jids, "the server's disco#items name the service", " ".join(jids))
    info = await alice.iq(f"<query xmlns='{DISCO_INFO}'/>")
    kinds = [(n.get("category"), n.get("type")) for n in info.iter()
             if n.tag.endswith("}identity")]
    features = {node.get("var") for node in info.iter() if node.tag.endswith("}feature")}
    report.check(("store", "file") in kinds, "disco#info has the identity store/file", kinds)
    report.check(UPLOAD in features, "disco#info has the feature", f"{len(features)} features")
    sizes = [field[0].text for field in info.iter()
             if field.tag.endswith("}field") and field.get("var") == "max-file-size"]
    report.equal(sizes, [str(20 * MIB)], "the form tells max-file-size")


async def _transfer(alice, report):
    body = os.urandom(5 * MIB)
    slot = await alice.slot("Gr\u00fc\u00dfe & 100% (1).bin", len(body))
    report.check(slot.put.isascii() and slot.get.isascii(), "the URLs are ASCII", "")
    early = await web.get(slot.get)
    report.equal(early.status, 404, "GET before the PUT")
    answer = await web.put(slot, body)
    report.equal(answer.status, 201, "PUT of 5 MiB")
    answer = await web.get(slot.get)
    report.check(answer.status == 200 and answer.body == body, "GET gives the same bytes",
                 f"{answer.status}, {len(answer.body)} bytes")
    report.check("etag" in answer.headers, "GET has an ETag", answer.headers.get("etag", "none"))
    report.equal(answer.headers.get("x-content-type-options"), "nosniff", "and is not sniffed")
    head = await web.get(slot.get, method="HEAD")
    report.equal((head.status, head.headers.get("content-length")), (200, str(len(body))), "HEAD")
    part = await web.get(slot.get, {"Range": "bytes=1000-1999"})
    report.check(part.status == 206 and part.body == body[1000:2000], "Range gives its bytes",
                 f"{part.status} {part.headers.get('content-range')}")
    beyond = await web.get(slot.get, {"Range": f"bytes={len(body)}-"})
    report.equal(beyond.status, 416, "a Range beyond the end")
    same = await web.get(slot.get, {"If-None-Match": answer.headers.get("etag", '"x"')})
    report.equal(same.status, 304, "If-None-Match with the ETag")
    again = await web.put(slot, body)
    report.equal(again.status, 201, "the same PUT again")
    other = await web.put(slot, os.urandom(len(body)))
    report.equal(other.status, 409, "a PUT of other bytes")
    answer = await web.get(slot.get)
    report.check(answer.body == body, "the file is unchanged", f"{len(answer.body)} bytes")
    removed = await web.request("DELETE", slot.get)
    report.equal(removed.status, 405, "DELETE of the link")
    answer = await web.get(slot.get)
    report.equal(answer.status, 200, "and the file is still there")


async def _noes(alice, report):
    try:
        await alice.slot("big.bin", 20 * MIB + 1)
        report.check(False, "a slot above max_file_size is refused", "granted")
    except Refused as refused:
        limits = [node.text for app in refused.app for node in app.iter()
                  if node.tag.endswith("}max-file-size")]
        report.equal((refused.condition, limits), ("not-acceptable", [str(20 * MIB)]),
                     "a slot above max_file_size is refused and the limit told")
    slot = await alice.slot("a.bin", 1000)
    answer = await web.put(slot, os.urandom(1001))
    report.equal(answer.status, 413, "PUT of one byte too many")
    answer = await web.put(slot, os.urandom(999))
    report.equal(answer.status, 400, "PUT of one byte too few")
    bad = slot.put[:-4] + ("AAAA" if not slot.put.endswith("AAAA") else "BBBB")
    answer = await web.request("PUT", bad, {}, os.urandom(1000))
    report.check(answer.status in (401, 403, 404), "PUT with another token", answer.status)
    body = os.urandom(1000)
    answer = await web.put(slot, body)
    report.equal(answer.status, 201, "the slot is still its owner's")
    slots = await asyncio.gather(*(alice.slot(f"{n}.txt", 10, "text/plain") for n in range(10)))
    answers = await asyncio.gather(*(web.put(slot, b"0123456789") for slot in slots))
    report.equal([answer.status for answer in answers], [201] * 10, "10 uploads at once")
    answer = await web.get(slots[0].get)
    report.equal(answer.headers.get("content-type", "").partition(";")[0], "text/plain",
                 "the slot's type is served")
