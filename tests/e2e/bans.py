"""Bans: whose failures count, behind a real nginx and without; bans over a restart and their end."""

import asyncio
import json
import re
import socket
import time

import web
from bed import DOMAIN, Trouble, free_port, wait_until
from commands import Commander, notes, show
from daemon import Slotd
from servers import Nginx
from xmpp import Client

VICTIM = "203.0.113.9"
AFTER = 20
# Of the form of a token, and never sealed here.
FORGED = "v1." + "A" * 58 + "." + "A" * 43
N_FORGED = 1000
BAN_FOR_S = 3
ENDS_WITHIN_S = 30.0


def _own_address():
    """An address of this machine that is not loopback: a stranger's. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            raise Trouble("no address but loopback: nobody could be a stranger") from error
        return probe.getsockname()[0]


class Site:
    """The file that everybody asks for."""

    def __init__(self, url, stranger):
        self.url, self.stranger = url, stranger

    async def get(self, named=None, local=None):
        """The status of a GET, from loopback where no other address is given."""
        headers = {"X-Forwarded-For": named} if named else {}
        return (await web.request("GET", self.url, headers, local=local)).status

    async def forge(self, n_requests, named, local=None):
        """How many of these PUTs were looked at (401), and how many turned away (403)."""
        counts = {}
        for n in range(n_requests):
            answer = await web.request("PUT", f"{self.url}?t={FORGED}",
                                       {"X-Forwarded-For": named(n)}, b"x", local=local)
            counts[answer.status] = counts.get(answer.status, 0) + 1
        return counts


async def suite(bed, server, report):
    stranger = _own_address()
    server.start()
    server.accounts("admin", "alice", "bob")
    port = free_port()
    nginx = Nginx(bed, port)
    slotd = Slotd(bed, server, port=port, operators={"jids": [f"admin@{DOMAIN}"]},
                  http={"trusted_proxies": ["127.0.0.1"]},
                  bans={"after_failures": AFTER},
                  log={"audit_file": str(bed.dir / "audit.jsonl")})
    slotd.start()
    nginx.start()
    alice = await Client.login(server, "alice")
    await alice.service_up()
    admin = Commander(server, "admin")
    await admin.come_online()
    slot = await alice.slot("seen.txt", 5)
    report.equal((await web.put(slot, b"hello")).status, 201, "a file is there")
    direct = Site(slot.get, stranger)
    proxied = Site(slot.get.replace(f"http://127.0.0.1:{port}", f"https://localhost:{nginx.port}"),
                   stranger)
    await _invented(report, direct)
    await _operators(report, admin, stranger)
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    slotd.start()
    await alice.service_up()
    report.equal(await direct.get(local=stranger), 403, "after a restart the stranger gets")
    report.equal(await direct.get(named=VICTIM), 200, "after a restart the victim gets")
    slotd.kill()
    slotd.start()
    await alice.service_up()
    report.equal(await proxied.get(local=stranger), 403,
                 "after kill -9 the stranger gets, through nginx")
    show(report, "unban", await admin.run("unban", {"who": stranger}))
    report.equal(await direct.get(local=stranger), 200, "after unban the stranger gets")
    await _through_nginx(report, proxied, direct)
    show(report, "unban", await admin.run("unban", {"who": stranger}))
    await _accounts(report, admin, alice)
    await _late(report, alice, direct)
    await _ends(report, slotd, alice, direct)
    await admin.disconnect()
    await alice.close()
    log = slotd.process.log.read_text(errors="replace")
    told = re.findall(r'.*(?:INFO|WARN).*(?:banned|a ban is over|bans are in force).*', log)
    for line in told[:12]:
        report.note(line)
    report.check(FORGED not in log, "no token is in the log", "")
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    lines = [json.loads(line) for line in (bed.dir / "audit.jsonl").read_text().splitlines()]
    told = [(line["kind"], line["account"], line.get("by")) for line in lines
            if line["kind"] in ("banned", "unbanned")]
    by, alices = f"admin@{DOMAIN}", f"alice@{DOMAIN}"
    strangers = [("banned", stranger, None), ("unbanned", stranger, by)]
    report.equal(told[:6], [*strangers, *strangers, ("banned", alices, by),
                            ("unbanned", alices, by)], "the audit log tells of")


async def _invented(report, direct):
    def named(n):
        return VICTIM if n % 2 else f"203.0.{n // 250}.{n % 250}, 198.51.100.7"
    counts = await direct.forge(N_FORGED, named, local=direct.stranger)
    report.equal(counts, {401: AFTER, 403: N_FORGED - AFTER},
                 f"{N_FORGED} forged X-Forwarded-For values of a stranger: 0 evasions")
    report.equal(await direct.get(named=VICTIM), 200, "the victim, who was named, gets")
    report.equal(await direct.get(named=direct.stranger), 403, "the stranger through a proxy gets")
    answer = await web.request("GET", direct.url, local=direct.stranger)
    report.check("urn:slotd:problem:banned" in answer.body.decode()
                 and "retry-after" in answer.headers and answer.headers["connection"] == "close",
                 "the answer says that it is a ban, and until when", answer)
    loopback = await direct.forge(2 * AFTER, lambda n: "unknown")
    report.equal(loopback, {401: 2 * AFTER}, "a trusted proxy itself is never banned")


async def _operators(report, admin, stranger):
    bans = await admin.run("bans")
    show(report, "bans", bans)
    rows = [(row["who"], row["by"]) for row in bans["form"].get_items()]
    report.equal(rows, [(stranger, "failures")], "bans shows the stranger")
    for who in ["0.0.0.0/0", "::/0", "127.0.0.1", "10.0.0.0/33", "1.2.3", "1.2.3.4-5",
                f"admin@{DOMAIN}", DOMAIN, f"upload.{DOMAIN}"]:
        refused = await admin.run("ban", {"who": who, "for": "1 day", "why": "a test"})
        report.check(refused["status"] == "executing" and bool(refused["notes"]),
                     f"{who} cannot be banned", notes(refused))
        report.note(f"    {notes(refused)}")


async def _through_nginx(report, proxied, direct):
    counts = await proxied.forge(2 * AFTER, lambda n: VICTIM, local=proxied.stranger)
    report.equal(counts, {401: AFTER, 403: AFTER}, "through nginx, `evil, real`: real is banned")
    report.equal(await proxied.get(named=VICTIM, local=proxied.stranger), 403, "and gets")
    report.equal(await direct.get(named=VICTIM), 200, "the victim gets")
    report.equal(await proxied.get(), 200, "others through the same nginx get")


async def _accounts(report, admin, alice):
    show(report, "ban", await admin.run(
        "ban", {"who": f"alice@{DOMAIN}", "for": "2 hours", "why": "a test"}))
    report.check("forbidden" in await _refused(alice), "a banned account gets no slot", "")
    show(report, "unban", await admin.run("unban", {"who": f"alice@{DOMAIN}"}))
    report.equal(await _refused(alice), "", "after unban a slot is refused with")


async def _refused(alice):
    try:
        await alice.slot("more.bin", 10)
    except Exception as error:
        return str(error)
    return ""


async def _late(report, alice, direct):
    """An honest phone: its token is used up, and it tries on."""
    slot = await alice.slot("late.bin", 5)
    await web.put(slot, b"hello", local=direct.stranger)
    for _ in range(2 * AFTER):
        await web.put(slot, b"other", local=direct.stranger)
    report.equal(await direct.get(local=direct.stranger), 200,
                 "who tries on with a used token gets files")


async def _ends(report, slotd, alice, direct):
    slotd.stop()
    n_before = _n_banned(slotd, direct.stranger)
    slotd.tables["bans"]["ban_for"] = f"{BAN_FOR_S} seconds"
    slotd.write()
    slotd.start()
    await alice.service_up()
    start = time.monotonic()
    counts = await direct.forge(AFTER, lambda n: VICTIM, local=direct.stranger)
    report.equal(counts, {401: AFTER}, "failures once more")
    status = await direct.get(local=direct.stranger)
    # Bans go by whole seconds. A slow machine may ask when it is over: then the audit log has it.
    may_be_over = BAN_FOR_S - 1 < time.monotonic() - start
    report.check(status == 403 or may_be_over, f"banned for {BAN_FOR_S} seconds", status)
    await asyncio.to_thread(wait_until, "the ban in the audit log",
                            lambda: _n_banned(slotd, direct.stranger) == n_before + 1)
    start = time.monotonic()
    while (status := await direct.get(local=direct.stranger)) == 403:
        if time.monotonic() - start > ENDS_WITHIN_S:
            break
        await asyncio.sleep(0.1)
    report.equal(status, 200, "the ban ends by itself")


def _n_banned(slotd, who):
    """How often the audit log says that somebody was banned. A line that is being written waits."""
    lines = slotd.written()["audit.jsonl"].splitlines(keepends=True)
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    return sum(line["kind"] == "banned" and line["account"] == who for line in told)
