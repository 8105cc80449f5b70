"""Metrics: what a known piece of work counts, what /readyz says, and a real Prometheus that scrapes
slotd and evaluates the rules and every expression of the dashboard."""

import asyncio
import json
import os
import re
import subprocess
import urllib.parse

import web
from bed import CONTRIB, DOMAIN, Trouble, free_port
from commands import Commander
from daemon import Slotd
from sessions import announced, append, query, refresh
from xmpp import Client, Refused

KIB = 1024
SIZE = 300 * KIB
RULES = CONTRIB / "prometheus/slotd.rules.yml"
TRIALS = CONTRIB / "prometheus/slotd.test.yml"
DASHBOARD = CONTRIB / "grafana/slotd.json"
# What the dashboard's variables stand for; the window holds several scrapes.
VARIABLES = {"$__rate_interval": "30s", "$job": "slotd", "$instance": ".*"}


class Watched:
    """The private listener of a slotd."""

    def __init__(self, bed, server):
        self.port = free_port()
        self.slotd = Slotd(bed, server, admin={"listen": [f"127.0.0.1:{self.port}"]},
                           limits={"max_file_size": "1 MiB"},
                           operators={"jids": [f"admin@{DOMAIN}"]})

    async def get(self, path):
        """Status and text."""
        answer = await web.get(f"http://127.0.0.1:{self.port}{path}")
        return answer.status, answer.body.decode()

    async def figures(self):
        """Every series with its value."""
        _status, text = await self.get("/metrics")
        return {series: float(value) for series, _, value in
                (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))}

    async def until(self, what, true, within_s=30):
        """Waits until the figures are such."""
        for _ in range(within_s * 20):
            figures = await self.figures()
            if true(figures):
                return figures
            await asyncio.sleep(0.05)
        raise Trouble(f"{what}: not within {within_s} s")


async def suite(bed, server, report):
    watched = Watched(bed, server)
    watched.slotd.start()
    await _before_the_server(watched, report)
    server.start()
    server.accounts("alice", "admin")
    alice = await Client.login(server, "alice")
    await alice.service_up()
    status, words = await watched.get("/readyz")
    report.equal((status, words), (200, "ready\n"), "/readyz once the stream is up")
    await _drained(server, watched, report)
    await _counted(alice, watched, report)
    await _promtool(watched, report)
    await _prometheus(bed, watched, report)
    await alice.close()
    server.stop()
    await watched.until("the stream is gone",
                        lambda it: it['slotd_streams{component="upload.localhost"}'] == 0)
    status, words = await watched.get("/readyz")
    report.equal(status, 503, f"/readyz once the server is gone: {words.strip()}")
    figures = await watched.figures()
    report.check(sum(value for series, value in figures.items()
                     if series.startswith("slotd_streams_ended_total")) >= 1
                 and figures["slotd_ready"] == 0, "and the stream's end is counted")
    report.equal(watched.slotd.stop(), 0, "SIGTERM ends slotd with")


async def _before_the_server(watched, report):
    status, words = await watched.get("/healthz")
    report.equal((status, words), (200, "ok\n"), "/healthz before the XMPP server runs")
    status, words = await watched.get("/readyz")
    report.check(status == 503 and "upload.localhost has no stream" in words,
                 "/readyz says why not", words.strip())
    figures = await watched.until("a failed log-in is counted",
                                  lambda it: it['slotd_logins_total{outcome="failed"}'] >= 1)
    report.equal(figures["slotd_ready"], 0, "slotd_ready")


async def _drained(server, watched, report):
    """An operator's word is seen by who watches over the service, and comes back."""
    admin = Commander(server, "admin")
    await admin.come_online()
    await admin.run("drain")
    status, words = await watched.get("/readyz")
    report.check(status == 503 and "give out no more slots" in words,
                 "/readyz while an operator lets no slots be given out", words.strip())
    figures = await watched.figures()
    report.equal((figures["slotd_draining"], figures["slotd_ready"]), (1, 0), "so do the figures")
    await admin.run("resume")
    status, _words = await watched.get("/readyz")
    figures = await watched.figures()
    report.equal((status, figures["slotd_draining"]), (200, 0), "and then again")
    report.equal(figures['slotd_commands_total{by="operator"}'], 2, "both commands are counted")
    await admin.disconnect()


async def _counted(alice, watched, report):
    """Three uploads and their downloads; one that breaks and goes on; some that are refused."""
    before = await watched.figures()
    for n in range(3):
        slot = await alice.slot(f"{n}.bin", SIZE)
        body = os.urandom(SIZE)
        report.equal((await web.put(slot, body)).status, 201, "an upload")
        report.check((await web.get(slot.get)).body == body, "its download")
    # Once more the last one, whole: its answer might have been lost.
    report.equal((await web.put(slot, body)).status, 201, "the same upload again")
    session = await _broken_upload(alice, watched, report)
    await refresh(alice, session["id"])
    _slot, session = await announced(alice, "given-up.bin", SIZE)
    answer = await web.request("DELETE", session["resume-url"])
    report.equal(answer.status // 100, 2, "an upload is given up by its resume URL")
    try:
        await alice.slot("large.bin", 2 * KIB * KIB)
        report.check(False, "a slot that is too large is refused")
    except Refused:
        pass
    wrong = slot.put.replace("?t=", "?t=x")
    report.equal((await web.request("PUT", wrong, body=body)).status, 401, "a wrong token")
    report.equal((await web.get(slot.get + "x")).status, 404, "no such file")
    wanted = {
        'slotd_slots_issued_total{kind="plain"}': 3,
        'slotd_slots_issued_total{kind="session"}': 2,
        "slotd_slots_issued_bytes_total": 5 * SIZE,
        'slotd_slots_refused_total{reason="file-too-large"}': 1,
        "slotd_uploads_begun_total": 4,
        "slotd_uploads_complete_total": 4,
        "slotd_upload_size_bytes_count": 4,
        "slotd_upload_size_bytes_sum": 4 * SIZE,
        "slotd_upload_life_seconds_count": 4,
        "slotd_uploads_resumed_total": 1,
        "slotd_resume_gap_seconds_count": 1,
        "slotd_resent_bytes_total": 0,
        'slotd_uploads_interrupted_total{reason="interrupted"}': 1,
        "slotd_uploads_replayed_total": 1,
        'slotd_uploads_cancelled_total{by="resume-url"}': 1,
        "slotd_downloads_total": 3,
        "slotd_download_bytes_total": 3 * SIZE,
        'slotd_requests_refused_total{reason="token-invalid"}': 1,
        'slotd_requests_refused_total{reason="unknown-file"}': 1,
        'slotd_iqs_refused_total{reason="file-too-large"}': 1,
        'slotd_iq_seconds_count{request="slot"}': 6,
        'slotd_iq_seconds_count{request="refresh"}': 1,
        'slotd_requests_total{method="GET",status="2xx"}': 3,
        'slotd_requests_total{method="GET",status="4xx"}': 1,
        'slotd_requests_total{method="PATCH",status="2xx"}': 1,
        'slotd_logins_total{outcome="done"}': 0,
        "slotd_files": 4,
        "slotd_stored_bytes": 4 * SIZE,
    }
    grown = {}

    def as_wanted(after):
        # What was looked at a moment ago is a few seconds old.
        grown.update({name: after.get(name, 0) - before.get(name, 0) for name in wanted})
        return grown == wanted
    try:
        await watched.until("the figures", as_wanted)
    except Trouble:
        pass
    wrong = {name: (got, wanted[name]) for name, got in grown.items() if got != wanted[name]}
    report.equal(wrong, {}, f"{len(wanted)} figures that are not as the work was")
    after = await watched.figures()
    report.check(all(after[f'slotd_fsync_seconds_count{{of="{of}"}}'] > 0
                     for of in ("database", "file", "directory"))
                 and after["slotd_commit_seconds_count"] > 0
                 and after["slotd_row_write_seconds_count"] > 0, "syncs and commits are timed")


async def _broken_upload(alice, watched, report):
    """Breaks in the middle, and goes on where it was."""
    slot, session = await announced(alice, "broken.bin", SIZE)
    body = os.urandom(SIZE)
    await web.put(slot, body, cut_after=SIZE // 2)
    await watched.until("the break is counted", lambda it: it.get(
        'slotd_uploads_interrupted_total{reason="interrupted"}', 0) >= 1)
    offset = int((await query(alice, session["id"]))["offset"])
    answer = await append(session["resume-url"], offset, body[offset:])
    report.equal(answer.status, 201, f"an upload that broke goes on at {offset}")
    return session


async def _promtool(watched, report):
    _status, text = await watched.get("/metrics")
    for words, told in [(["check", "metrics"], text), (["check", "rules", str(RULES)], ""),
                        (["test", "rules", TRIALS.name], "")]:
        done = subprocess.run(["promtool", *words], input=told, text=True, timeout=60,
                              cwd=TRIALS.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        complaints = "" if done.returncode == 0 and (told == "" or not done.stdout) else done.stdout
        report.equal(complaints, "", f"promtool {words[0]} {words[1]} has complaints")
    report.check("@" not in text and "/" not in re.sub(r"#.*", "", text)
                 and ".bin" not in text and "t=" not in re.sub(r"#.*|request=|component=", "", text),
                 "no account, path, file name or token in the scrape", f"{len(text)} bytes")


async def _prometheus(bed, watched, report):
    """Prometheus itself: scrapes, evaluates the rules, and answers what the dashboard asks."""
    port = free_port()
    conf = bed.dir / "prometheus.yml"
    conf.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{RULES}]\n"
        "scrape_configs:\n  - job_name: slotd\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{watched.port}']}}]\n")
    prometheus = bed.process("prometheus", [
        "prometheus", f"--config.file={conf}", f"--storage.tsdb.path={bed.sub('tsdb')}",
        f"--web.listen-address=127.0.0.1:{port}"])
    prometheus.start()
    await asyncio.to_thread(prometheus.wait_for_port, port)
    base = f"http://127.0.0.1:{port}/api/v1/"

    async def ask(what):
        answer = await web.get(base + what)
        # It listens before it is ready.
        return json.loads(answer.body) if answer.status == 200 else {"status": answer.status}

    async def value(expression):
        return await ask("query?query=" + urllib.parse.quote(expression))

    for _ in range(600):
        got = await value("count_over_time(slotd_ready[1m]) >= 5")
        if got.get("status") == "success" and got["data"]["result"]:
            break
        await asyncio.sleep(0.1)
    up = await value('up{job="slotd"}')
    report.equal([it["value"][1] for it in up["data"]["result"]], ["1"], "Prometheus scrapes slotd")
    rules = []
    for _ in range(600):
        groups = (await ask("rules")).get("data", {}).get("groups", [])
        rules = [rule for group in groups for rule in group["rules"]]
        if rules and all(rule["health"] != "unknown" for rule in rules):
            break
        await asyncio.sleep(0.1)
    report.equal([rule["name"] for rule in rules if rule["health"] != "ok"], [],
                 f"of {len(rules)} rules these are not well")
    report.equal([rule["name"] for rule in rules if rule["state"] == "firing"], [],
                 "alerts that fire")
    await _dashboard(value, report)
    prometheus.stop()


async def _dashboard(value, report):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    broken, empty = [], []
    for expression in expressions:
        for name, stands_for in VARIABLES.items():
            expression = expression.replace(name, stands_for)
        got = await value(expression)
        if got.get("status") != "success":
            broken.append((expression, got))
        elif not got["data"]["result"]:
            empty.append(expression)
    report.equal(broken, [], f"of {len(expressions)} expressions of the dashboard these are wrong")
    # With their first case come series with a reason that did not come up.
    known = re.compile(r"slotd_commands_refused|slotd_uploads_interrupted")
    report.equal([it for it in empty if not known.search(it)], [],
                 "and these find nothing, though there was work")
