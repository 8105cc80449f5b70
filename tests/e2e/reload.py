"""Reload: the configuration read anew under uploads, ten broken files that change nothing, and a
log that the real logrotate moves and cuts."""

import asyncio
import json
import signal
import time

import web
from bed import CONTRIB, DOMAIN, SECRET, Trouble, run
from commands import Commander, notes
from daemon import Slotd
from manager import Manager
from xmpp import Client, Refused

MB = 1_000_000
SLOW_SIZE = 60 * 64 * 1024


def _broken(conf, slotd):
    """Ten files that nobody can run with, by what is wrong with them."""
    text = conf.read_text()
    pair = slotd.bed.certificate()
    yield "no file", None
    yield "empty", ""
    yield "binary", b"\xff\xfe\x00limits"
    yield "half a line", text + "\n[quota"
    yield "an unknown key", text.replace("[limits]", "[limits]\nmax_file_sise = \"1 GiB\"")
    yield "a wrong size", text.replace("max_file_size = \"1 MB\"", "max_file_size = \"1 MBit\"")
    yield "a quota below a file", text + "\n[quota]\nper_requester = \"1 kB\"\n"
    yield "a domain as an operator", text.replace(f"admin@{DOMAIN}", DOMAIN)
    yield "a level that is none", text.replace("level = \"info\"", "level = \"loud\"")
    yield "a missing certificate", \
        text + f"\n[http.tls]\ncertificate = \"{pair}/none.crt\"\nkey = \"{pair}/tls.key\"\n"


async def suite(bed, server, report):
    server.start()
    server.accounts("admin", "second", "alice")
    manager = Manager(bed)
    log = bed.dir / "rotated.log"
    slotd = Slotd(bed, server, operators={"jids": [f"admin@{DOMAIN}"]},
                  limits={"slots_per_minute": 100_000, "max_file_size": "1 MB"},
                  log={"level": "info", "file": str(log)})
    slotd.process.env.update(manager.env(watchdog_s=4))
    slotd.start()
    await _until("READY=1", lambda: manager.count("READY=1") == 1)
    report.equal(manager.hear()[:2], ["READY=1", "STATUS=serving"], "the service manager is told")
    alice = await Client.login(server, "alice")
    await alice.service_up()
    people = {name: Commander(server, name) for name in ("admin", "second")}
    for person in people.values():
        await person.come_online()
    await _ten_broken(slotd, manager, alice, people, report)
    await _a_good_one(slotd, manager, alice, people, report)
    await _logrotate(slotd, alice, log, report)
    await _until("the watchdog is fed", lambda: manager.count("WATCHDOG=1") >= 2)
    report.check(True, "while all is well the watchdog is fed", manager.count("WATCHDOG=1"))
    for person in people.values():
        await person.disconnect()
    await alice.close()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    report.equal(manager.count("STOPPING=1"), 1, "the service manager is told of the end")
    online = slotd.process.log.read_text().count("component is online")
    report.equal(online, 1, "log-ins of the component in all that time")
    said = slotd.process.log.read_text() + log.read_text()
    report.equal(said.count(SECRET), 0, "the secret in the log")


async def _until(what, true, within_s=60.0):
    end = time.monotonic() + within_s
    while not true():
        if end < time.monotonic():
            raise Trouble(f"{what}: not within {within_s:.0f} s")
        await asyncio.sleep(0.02)


async def _hang_up(slotd, manager):
    """SIGHUP, and what was logged until the service manager was told that it is over."""
    n_ready, at = manager.count("READY=1"), slotd.process.log.stat().st_size
    slotd.process.child.send_signal(signal.SIGHUP)
    await _until("READY=1", lambda: manager.count("READY=1") > n_ready)
    return slotd.process.log.read_bytes()[at:].decode()


async def _configuration(person):
    """The effective configuration, as an operator's client shows it."""
    command = await person.run("configuration")
    return {row["key"]: (row["value"], row["default"])
            for row in command["form"].get_items()} if command["form"] else {}


async def _behaves(alice, people):
    """What the limits, the operators and the rights are, seen from outside."""
    seen = []
    for size in (MB, MB + 1, 2 * MB, 2 * MB + 1):
        try:
            await alice.slot("a.bin", size)
            seen.append("slot")
        except Refused as refused:
            seen.append(refused.condition)
    offered = [len(await person.offered()) > 3 for person in people.values()]
    return seen, offered


async def _ten_broken(slotd, manager, alice, people, report):
    good = slotd.conf.read_text()
    before = await _configuration(people["admin"]), await _behaves(alice, people)
    report.check(before[0].get("limits.max_file_size") == ('"1 MB"', ""),
                 "an operator sees the configuration", f"{len(before[0])} options")
    report.check(SECRET not in str(before[0]), "and no secret in it")
    changed, untold, n_files = [], [], 0
    for what, text in list(_broken(slotd.conf, slotd)):
        slotd.conf.unlink(missing_ok=True)
        if text is not None:
            slotd.conf.write_bytes(text if isinstance(text, bytes) else text.encode())
        n_files += 1
        said = await _hang_up(slotd, manager)
        status, complaint = slotd.command("check")
        lines = complaint.splitlines()
        answer = notes(await people["admin"].run("reload"))
        if status != 2 or not lines or not all(line in said and line in answer for line in lines):
            untold.append((what, status, complaint, said, answer))
        if (await _configuration(people["admin"]), await _behaves(alice, people)) != before:
            changed.append(what)
        report.note(f"{what}: {answer}")
    slotd.conf.write_text(good)
    report.equal(changed, [], f"of {n_files} broken files changed anything")
    report.equal(untold, [], "were not told as slotd check tells them, in log and command")
    report.equal(manager.count("RELOADING=1"), 2 * n_files, "reloads the manager was told of")
    stamps = [line for line in manager.hear() if line.startswith("MONOTONIC_USEC=")]
    report.equal(len(stamps), 2 * n_files, "with a time each")


async def _a_good_one(slotd, manager, alice, people, report):
    slow = await alice.slot("slow.bin", 1000 * 1000)
    body = bytes(range(250)) * 4000
    uploading = asyncio.ensure_future(web.put(slow, body, pause_s=0.2))
    reader, writer = await web.connect(slow.get)
    slotd.tables["limits"]["max_file_size"] = "2 MB"
    slotd.tables["operators"]["jids"] = [f"second@{DOMAIN}"]
    slotd.tables["log"] |= {"level": "debug,hyper=info,tokio_xmpp=info", "format": "json"}
    slotd.tables["http"]["trusted_proxies"] = ["127.0.0.1"]
    slotd.write()
    said = await _hang_up(slotd, manager)
    report.equal(await _behaves(alice, people),
                 (["slot", "slot", "slot", "not-acceptable"], [False, True]),
                 "after a good file: slots of 1 MB, 1 MB + 1, 2 MB, 2 MB + 1; who is an operator")
    fixed = "http.trusted_proxies takes a restart; it stays as it was"
    report.check(fixed in said, "what cannot change is told, and the rest applies", fixed)
    shown = await _configuration(people["second"])
    report.equal((shown["limits.max_file_size"], shown["http.trusted_proxies"]),
                 (('"2 MB"', ""), ("[]", "default")), "the configuration shows what is in force")
    line = slotd.process.log.read_text().splitlines()[-1]
    report.check(json.loads(line)["level"] in ("INFO", "DEBUG"), "the log goes on in JSON")
    report.check('"level":"DEBUG"' in slotd.process.log.read_text(), "and at its new level")
    report.equal((await uploading).status, 201, "an upload that was under way")
    writer.write(web.head("HEAD", slow.get, {"Connection": "close"}))
    report.equal((await web.read_answer(reader, "HEAD")).status, 200, "a connection that was open")
    writer.close()
    slotd.tables["limits"]["max_file_size"] = "1 MB"
    slotd.write()
    answer = notes(await people["second"].run("reload"))
    report.check("Changed: limits.max_file_size" in answer, "the command says what changed", answer)


async def _logrotate(slotd, alice, log, report):
    """The shipped rules with the test's path, and the same with copytruncate, under slots."""
    rules = (CONTRIB / "logrotate/slotd").read_text()
    rules = rules.replace("/var/log/slotd/*.log /var/log/slotd/*.jsonl", str(log))
    moving, cutting = slotd.bed.dir / "moving", slotd.bed.dir / "cutting"
    moving.write_text(rules.replace("compress", "nocompress").replace("delaynocompress", ""))
    cutting.write_text(moving.read_text().replace("nocreate", "copytruncate"))
    n_slots = 0
    for rule in (moving, moving, cutting, moving):
        for _ in range(20):
            await alice.slot("rotated.bin", 1)
        n_slots += 20
        wanted = n_slots
        await _until("the lines", lambda: _issued(log) >= wanted)
        await asyncio.to_thread(run, "/usr/sbin/logrotate", "--force", "--state",
                                slotd.bed.dir / "logrotate.state", rule)
    for _ in range(20):
        await alice.slot("rotated.bin", 1)
    await _until("the last lines", lambda: _issued(log) >= n_slots + 20)
    parts = sorted(log.parent.glob(log.name + "*"))
    report.equal((_issued(log), len(parts)), (n_slots + 20, 5),
                 "slots in a log that logrotate moved three times and cut once, and its files")
    report.equal(oct(log.stat().st_mode & 0o777), "0o640", "mode of the log")
    slotd.tables["log"]["file"] = "/dev/full"
    slotd.write()
    slotd.process.child.send_signal(signal.SIGHUP)
    await _until("the trouble is told",
                 lambda: "log.file cannot be written" in slotd.process.log.read_text())
    await alice.slot("rotated.bin", 1)
    report.check(True, "a log that cannot be written is told, and stops nothing")
    slotd.tables["log"]["file"] = str(log)
    slotd.write()
    slotd.process.child.send_signal(signal.SIGHUP)
    await _until("the log goes on", lambda: "lines are missing" in slotd.process.log.read_text())


def _issued(log):
    """Slots of `_logrotate` in the log and in what became of it."""
    parts = log.parent.glob(log.name + "*")
    lines = [line for part in parts for line in part.read_text().splitlines()]
    return sum("slot issued" in line and '"size_bytes":1,' in line for line in lines)
