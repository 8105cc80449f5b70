"""Warm bindings: curl as mod_warm_bindings' README has it, the form in a browser, strophe.js that
goes on with the session, and what is refused."""

import asyncio
import json
import os
import signal
import ssl
import xml.etree.ElementTree as ET
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import quote_plus, urlsplit

import issued
from bed import DOMAIN, PASSWORD, Trouble, free_port, run
from clients import Person
from daemon import Slotd
from tus import CHROMIUM, JS, NODE_MODULES

ADMIN = f"admin@{DOMAIN}"
ROMEO = f"romeo@{DOMAIN}"
XHTML = "{http://www.w3.org/1999/xhtml}"
PROLOG = ("<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\" "
          "\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n")


class Juliet(Person):
    """Whom visitors write to."""

    def __init__(self, server, user):
        super().__init__(server, user)
        self.words = asyncio.Queue()

    def _message(self, message):
        self.words.put_nowait((str(message["from"]), message["body"]))


class Quiet(SimpleHTTPRequestHandler):
    """A web site that tells nothing."""

    def log_message(self, *_):
        pass


class Answer:
    """What curl got."""

    def __init__(self, text):
        head, _, self.body = text.partition("\n\n")
        lines = head.split("\n")
        self.status = int(lines[0].split()[1])
        self.fields = {name.lower(): value for name, _, value in
                       (line.partition(": ") for line in lines[1:])}


async def _curl(*words, text=None):
    """curl's answer with its head; `text` is the form."""
    data = ["--data-binary", "@-"] if text is not None else []
    child = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-i", "--max-time", "30", *data, *words, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    out, _ = await child.communicate((text or "").encode())
    return Answer(out.decode().replace("\r\n", "\n"))


def _form(**fields):
    return "&".join(f"{name}={quote_plus(value)}" for name, value in fields.items())


class Scene:
    """What each part needs."""

    def __init__(self, report, url):
        self.report, self.url = report, url

    async def post(self, who=ADMIN, password=PASSWORD, headers=(), **fields):
        """A form sent by an operator."""
        fields = {"jid": ROMEO, "password": PASSWORD, **fields}
        more = [word for header in headers for word in ("-H", header)]
        return await _curl("--basic", "-u", f"{who}:{password}", *more, self.url,
                           text=_form(**fields))

    async def refused(self, words, status, **more):
        """Such a form gets this page."""
        answer = await self.post(**more)
        self.report.equal(answer.status, status, words)
        return answer


async def suite(bed, server, report):
    bosh = server.with_bosh()
    server.start()
    server.accounts("admin", "romeo", "juliet")
    port = free_port()
    rules = {"managers": {DOMAIN: bosh}}
    slotd = Slotd(bed, server, operators={"jids": [ADMIN]},
                  admin={"listen": [f"127.0.0.1:{port}"]}, warm_binding=rules)
    ca = _authority(bed)
    # Whom the machine trusts, as other systems name it.
    slotd.process.env["SSL_CERT_FILE"] = str(ca / "ca.crt")
    slotd.start()
    juliet = Juliet(server, "juliet")
    await juliet.come_online()
    scene = Scene(report, f"http://127.0.0.1:{port}/warm")
    await _xhtml(scene)
    await _json(scene)
    await _in_a_browser(bed, scene, bosh, juliet)
    await _who_may_not(scene)
    await _what_may_not(scene)
    await _where_uploads_are(slotd, scene)
    await _over_tls(slotd, scene, ca, bosh)
    await juliet.disconnect()
    if server.name == "ejabberd":
        report.check("SCRAM-SHA-512 authentication for romeo" in server.process.log.read_text(),
                     "SCRAM-SHA-512 where the server has it")
    server.stop()
    await _reload(slotd, scene, f"http://127.0.0.1:{slotd.port}/dead", managers={DOMAIN: bosh})
    await scene.refused("a connection manager that is dead", 502)
    _told(slotd, report)
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


async def _xhtml(scene):
    report = scene.report
    form = await _curl("--basic", "-u", f"{ADMIN}:{PASSWORD}", scene.url)
    names = [field.get("name") for field in _page(form).iter(f"{XHTML}input")]
    report.equal(names, ["jid", "password", "lang", "wait", "hold", "ver", None], "the form has")
    # As the README of mod_warm_bindings has it, with the parameter that it names.
    answer = await scene.post(jid=f"{ROMEO}/balcony", language="de", wait="30", hold="1", ver="1.6")
    binding = _binding(answer)
    report.equal(binding["jid"], f"{ROMEO}/balcony", "curl gets a session of")
    report.check(0 < int(binding["rid"]) < 1 << 53 and binding["sid"], "with a name and a number")
    report.check(answer.body.startswith(PROLOG) and answer.body.count("\n") == 2,
                 "byte by byte the frame of mod_warm_bindings")
    said = [answer.fields.get(name) for name in ("content-type", "cache-control")]
    report.equal(said, ["text/html; charset=utf-8", "no-store"], "in a page that is")
    report.check(int(answer.fields["x-bosh-inactivity"]) >= 30, "to be taken up within",
                 answer.fields["x-bosh-inactivity"] + " s")


def _page(answer):
    return ET.fromstring(answer.body)


def _binding(answer):
    """What a page tells, and nobody else shall."""
    binding = {field.get("class"): field.text for field in _page(answer).iter(f"{XHTML}dd")}
    issued.remember_session(binding.get("sid"), binding.get("rid"))
    return binding


async def _json(scene):
    answer = await scene.post(headers=["Accept: application/json, text/javascript"])
    told = json.loads(answer.body)
    issued.remember_session(told["sid"], str(told["rid"]))
    scene.report.check(
        set(told) == {"jid", "sid", "rid"} and told["jid"].startswith(f"{ROMEO}/")
        and answer.fields["content-type"] == "application/json", "JSON as Converse.js takes it")


async def _in_a_browser(bed, scene, bosh, juliet):
    """The operator's browser, and then the visitor's, whose page is of another origin."""
    report = scene.report
    site = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(bed.sub("site"))))
    Thread(target=site.serve_forever, daemon=True).start()
    asked = {"form": scene.url, "operator": ADMIN, "password": PASSWORD, "jid": f"{ROMEO}/page",
             "secret": PASSWORD, "bosh": bosh, "to": f"juliet@{DOMAIN}", "text": "wherefore <art> thou",
             "site": f"http://127.0.0.1:{site.server_port}/",
             "pictures": os.environ.get("PAGE_PICTURES") or str(bed.sub("pictures"))}
    child = await asyncio.create_subprocess_exec(
        "node", str(JS / "warm.cjs"), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "NODE_MODULES": str(NODE_MODULES), "CHROMIUM": CHROMIUM})
    out, _ = await asyncio.wait_for(child.communicate(json.dumps(asked).encode()), 90)
    site.shutdown()
    if not report.check(child.returncode == 0, "the browser fills in the form",
                        out.decode()[:400] if child.returncode else ""):
        return
    seen = json.loads(out)
    issued.remember_session(seen["binding"]["sid"], seen["binding"]["rid"])
    report.equal([seen["title"], seen["binding"]["jid"]], ["Success", f"{ROMEO}/page"], "and gets")
    report.equal([seen["complaints"], seen["phone"], seen["is_wider"]], [[], [], False],
                 "the form: complaints, and whether it is wider than the screen")
    report.equal(seen["attached"]["seen"], ["ATTACHED"], "strophe.js goes on with the session")
    report.equal(seen["attached"].get("pinged"), f"{ROMEO}/page", "the server answers it as")
    try:
        got = await asyncio.wait_for(juliet.words.get(), 30)
    except asyncio.TimeoutError:
        got = None
    report.equal(got, (f"{ROMEO}/page", "wherefore <art> thou"), "a second account receives")


async def _who_may_not(scene):
    answer = await scene.refused("an operator's wrong password", 401, password="wrong")
    scene.report.equal(answer.fields.get("www-authenticate"),
                       'Basic realm="HTTP Binding Warm", charset="UTF-8"', "is asked for again")
    await scene.refused("an operator that is none", 401, who=f"nobody@{DOMAIN}")
    await scene.refused("an operator of elsewhere", 401, who="admin@example.org")
    await scene.refused("an account that is no operator", 403, who=ROMEO)
    plain = await _curl(scene.url)
    scene.report.equal(plain.status, 401, "nobody")
    for header in ("Sec-Fetch-Site: cross-site", "Origin: https://evil.example"):
        await scene.refused(f"another site's page ({header})", 403, headers=[header])
    await scene.refused("no form", 415, headers=["Content-Type: text/plain"])
    scene.report.equal((await _curl("-X", "DELETE", scene.url)).status, 400, "another method")
    scene.report.equal((await _curl(f"{scene.url}/x")).status, 404, "a path below")
    rebound = await _curl("-H", "Host: evil.example", "-u", f"{ADMIN}:{PASSWORD}", scene.url)
    scene.report.equal(rebound.status, 421, "a name that was bound to loopback")


async def _what_may_not(scene):
    wrong = await _curl("--basic", "-u", f"{ADMIN}:{PASSWORD}", scene.url,
                        text=_form(jid=ROMEO, password="wrong"))
    scene.report.equal(wrong.status, 400, "a user's wrong password")
    await scene.refused("a user that is none", 400, jid=f"nobody@{DOMAIN}")
    await scene.refused("a domain without a connection manager", 400, jid="romeo@example.org")
    await scene.refused("too much of a form", 413, x="x" * 9000)
    markup = ["'/><x y='", "\"><y/>", "</body>", "<!--", "]]>", "&lt;", "&#0;", "\0", "\r\nX: y", "\x01"]
    for name in ("jid", "lang", "wait", "hold", "ver"):
        got = [(await scene.post(**{name: value})).status for value in markup]
        scene.report.equal(set(got), {400}, f"markup and control characters in {name}")
    # In a resource markup is as good as any other text, as long as it stays text.
    answer = await scene.post(jid=f"{ROMEO}/'><x a=\"&amp;]]>")
    scene.report.equal(_binding(answer).get("jid"), f"{ROMEO}/'><x a=\"&amp;]]>",
                       "markup in a resource stays text")


async def _reload(slotd, scene, url, **rules):
    """Puts other rules into force, and waits until they are."""
    before, scene.url = scene.url, url
    slotd.tables["warm_binding"] |= {"path": urlsplit(url).path, **rules}
    slotd.write()
    slotd.process.child.send_signal(signal.SIGHUP)
    for _ in range(600):
        if (await _curl(before)).status == 404:
            return
        await asyncio.sleep(0.05)
    raise Trouble("the reload does not come into force")


async def _where_uploads_are(slotd, scene):
    """Another path on the other listener, without a restart."""
    report = scene.report
    await _reload(slotd, scene, f"http://127.0.0.1:{slotd.port}/prebind", listen="http")
    answer = await scene.post()
    report.equal(_binding(answer).get("jid", "").split("/")[0], ROMEO, "a reload moves the form to")
    report.equal(answer.fields.get("access-control-allow-origin"), None,
                 "where uploads are no page of another site may read it")
    form = await _curl("--basic", "-u", f"{ADMIN}:{PASSWORD}", scene.url)
    report.equal(form.status, 200, "and the form is there, too")
    for password in (PASSWORD, "wrong"):
        await scene.refused("no operator, where the world asks", 401, who=ROMEO, password=password)


def _authority(bed):
    """An authority, and a certificate of localhost that it signed: their directory."""
    ca = bed.sub("authority")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run("openssl", "req", "-x509", *new, "-days", "30", "-subj", "/CN=Authority",
        "-keyout", ca / "ca.key", "-out", ca / "ca.crt")
    run("openssl", "req", *new, "-subj", "/CN=localhost", "-keyout", ca / "tls.key",
        "-out", ca / "tls.csr")
    (ca / "names").write_text("subjectAltName=DNS:localhost\n")
    run("openssl", "x509", "-req", "-in", ca / "tls.csr", "-CA", ca / "ca.crt", "-CAkey",
        ca / "ca.key", "-CAcreateserial", "-days", "30", "-extfile", ca / "names",
        "-out", ca / "tls.crt")
    return ca


async def _pass_on(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, OSError):
        pass
    finally:
        writer.close()


async def _over_tls(slotd, scene, ca, bosh):
    """A connection manager behind TLS, whose certificate has one name and not the other."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ca / "tls.crt", ca / "tls.key")

    async def connected(reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", urlsplit(bosh).port)
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))

    terminator = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    port = terminator.sockets[0].getsockname()[1]
    base = f"http://127.0.0.1:{slotd.port}"
    for host, status in (("localhost", 200), ("127.0.0.1", 502)):
        managers = {DOMAIN: f"https://{host}:{port}/http-bind"}
        await _reload(slotd, scene, f"{base}/tls-{status}", managers=managers)
        answer = await scene.refused(f"TLS as {host}", status)
        if status == 200:
            _binding(answer)
    terminator.close()


def _told(slotd, report):
    lines = [*map(json.loads, (slotd.dir / "audit.jsonl").read_text().splitlines())]
    told = [line for line in lines if line["kind"] == "warm-binding"]
    outcomes = {line["outcome"] for line in told}
    report.check({"bound", "not-authorized", "unknown-host"} <= outcomes
                 and {line["by"] for line in told} == {ADMIN}, "the audit log tells who and what",
                 f"{len(told)} lines: {', '.join(sorted(outcomes))}")
    denied = {(line["by"], line["outcome"]) for line in lines
              if line["kind"] == "warm-binding-denied"}
    report.check({(ADMIN, "wrong-password"), (ROMEO, "no-operator")} <= denied,
                 "and who was not let in", f"{sorted(denied)}")
