"""slotd in the place of other systems' upload servers: Prosody's mod_http_upload_external (v, v2)
and mod_http_file_share in external mode (JWT), ejabberd's mod_http_upload with external_secret.
They give out the slots, slixmpp uploads by them, and slotd takes the files without any stream."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import time
from urllib.parse import quote, unquote

import slixmpp

import issued
import web
from bed import DOMAIN, wait_until
from clients import Person
from daemon import Slotd
from xmpp import Client

# A secret for each, as two systems never share one.
SECRETS = {name: f"{name}-secret-for-tests" for name in ("v", "v2", "jwt", "ejabberd")}
NAMES = ["picture.bin", "tr\u00e8s cool (1) & 100%.bin"]
KIND = "application/octet-stream"

PROSODY = """
Component "{name}.{domain}" "{module}"
	{module}_base_url = "{base}"
	{module}_secret = "{secret}"
{more}
"""
EJABBERD = """  mod_http_upload:
    host: "ejabberd.{domain}"
    put_url: "{base}"
    get_url: "{base}"
    docroot: "{docroot}"
    external_secret: "{secret}"
    access: all
"""


async def suite(bed, server, report):
    names = ["ejabberd"] if server.name == "ejabberd" else ["v", "v2", "jwt"]
    formats = {"v": ["v"], "v2": ["v2"], "jwt": ["jwt"], "ejabberd": ["v"]}
    slotd = Slotd(bed, server, external=[
        {"path": f"/{name}/", "protocol": formats[name], "domain": DOMAIN, "secret": SECRETS[name]}
        for name in names])
    del slotd.tables["component"]
    slotd.tables["access"] = {"domains": [DOMAIN]}
    slotd.write()
    status, words = slotd.command("check")
    told = [line.strip() for line in words.splitlines() if line.startswith("  external ")]
    report.check(status == 0 and len(told) == len(names), "slotd check takes the configuration",
                 "; ".join(told) if status == 0 else words)
    bases = {name: f"http://127.0.0.1:{slotd.port}/{name}/" for name in names}
    _set_up(bed, server, bases)
    server.start()
    server.accounts("alice")
    slotd.start()
    alice = Person(server, "alice")
    await alice.come_online()
    asker = await Client.login(server, "alice", "asker")
    for name in names:
        await _uploads(bed, alice, report, name, bases[name])
        await _noes(asker, report, name, bases[name])
    if "jwt" in names:
        await _late(report, bases["jwt"])
    await _reused(slotd, asker, report, names[0])
    await asker.close()
    await alice.disconnect()
    report.equal(slotd.command("audit")[0], 0, "slotd audit exits")
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


def _set_up(bed, server, bases):
    """Writes the server's side, as the README has it."""
    for name, base in bases.items():
        issued.keep(SECRETS[name])
    if server.name == "ejabberd":
        docroot = bed.sub("docroot")
        entry = EJABBERD.format(domain=DOMAIN, base=bases["ejabberd"].rstrip("/"),
                                docroot=docroot, secret=SECRETS["ejabberd"])
        conf = server.dir / "ejabberd.yml"
        conf.write_text(conf.read_text().replace("modules:\n", "modules:\n" + entry, 1))
        return
    text = server.conf.read_text().split('\nComponent "')[0]
    for name, base in bases.items():
        module = "http_file_share" if name == "jwt" else "http_upload_external"
        more = '\thttp_upload_external_protocol = "v2"' if name == "v2" else ""
        text += PROSODY.format(name=name, domain=DOMAIN, module=module, base=base,
                               secret=SECRETS[name], more=more)
    text += f'\nComponent "unused.{DOMAIN}"\n\tcomponent_secret = "unused-on-loopback"\n'
    server.conf.write_text(text)


async def _uploads(bed, alice, report, name, base):
    """slixmpp uploads as its users' programs do, and everybody gets the same bytes."""
    alice.plugin["xep_0363"].upload_service = slixmpp.JID(f"{name}.{DOMAIN}")
    for n, file_name in enumerate(NAMES):
        path = bed.dir / file_name
        # A small one, and one that comes in parts.
        body = os.urandom([50_000, 3_000_000][n])
        path.write_bytes(body)
        link = await alice.plugin["xep_0363"].upload_file(path)
        report.check(link.startswith(base), f"{name}: slixmpp uploads {n + 1}", len(body))
        issued.keep(link.split("/")[-2])
        # As the server writes it (ejabberd leaves letters raw), and as others do.
        for spelled in sorted({link, base + quote(unquote(link[len(base):]))}):
            answer = await web.get(spelled)
            how = "encoded" if spelled.isascii() else "raw"
            report.equal((answer.status, answer.sha256), (200, web.sha256(body)),
                         f"{name}: GET of {n + 1}, {how}, has the same SHA-256")
        part = await web.get(link, {"Range": "bytes=100-199"})
        report.check(part.status == 206 and part.body == body[100:200], f"{name}: Range", "")


async def _slot(asker, name, size):
    slot = await asker.slot("a.bin", size, KIND, to=f"{name}.{DOMAIN}")
    token = slot.headers.get("Authorization") or slot.put.partition("?")[2]
    issued.keep(token.rpartition(" ")[2].rpartition("=")[2], slot.get.split("/")[-2])
    return slot


def _sign(name, message):
    return hmac.new(SECRETS[name].encode(), message.encode(), hashlib.sha256)


async def _noes(asker, report, name, base):
    """What was not signed for gets nothing, and does not use the slot up."""
    body = os.urandom(1000)
    slot = await _slot(asker, name, len(body))
    put, _, query = slot.put.partition("?")
    path = unquote(put[len(base):])

    async def send(url, headers=None, content=body):
        answer = await web.request("PUT", url, {"Content-Type": KIND, **(headers or {})}, content)
        return answer.status

    report.equal(await send(put), 403, f"{name}: PUT without a token")
    last = slot.headers.get("Authorization", query)
    other = last[:-1] + ("0" if last[-1] != "0" else "1")
    if name == "jwt":
        bad = {"Authorization": other}
        report.equal(await send(put, bad), 403, f"{name}: PUT with an altered token")
        report.equal(await send(put, slot.headers, body + b"1"), 413, f"{name}: PUT of more")
        weak = _sign(name, f"{path} {len(body)}").hexdigest()
        report.equal(await send(f"{put}?v={weak}", bad), 403, f"{name}: downgrade to v")
        report.equal(await send(f"{put}?v={weak}"), 403, f"{name}: downgrade to v alone")
    else:
        report.equal(await send(f"{put}?{other}"), 403, f"{name}: PUT with an altered token")
        report.equal(await send(slot.put, content=body + b"1"), 403, f"{name}: PUT of more")
    if name == "v2":
        weak = _sign(name, f"{path} {len(body)}").hexdigest()
        report.equal(await send(f"{put}?v={weak}"), 403, f"{name}: downgrade to v")
        report.equal(await send(f"{put}?{other}&v={weak}"), 403, f"{name}: downgrade beside v2")
        wrong = {"Content-Type": "text/html"}
        report.equal(await send(slot.put, wrong), 403, f"{name}: PUT of another type")
    report.equal(await send(slot.put, slot.headers), 201, f"{name}: the slot is still good")
    report.equal(await send(slot.put, slot.headers), 201, f"{name}: the same PUT again")
    changed = os.urandom(len(body))
    report.equal(await send(slot.put, slot.headers, changed), 409, f"{name}: PUT of other bytes")
    answer = await web.get(slot.get)
    report.check(answer.body == body, f"{name}: the file is unchanged", answer.status)


async def _late(report, base):
    """Prosody's token a second too late, and one that is good, both made as Prosody makes them."""
    def segment(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    for offset, status in [(-1, 403), (300, 201)]:
        claims = {"sub": f"alice@{DOMAIN}", "slot": f"made-{offset}", "filename": "a.bin",
                  "filesize": 4, "filetype": KIND, "iat": int(time.time()) - 300,
                  "exp": int(time.time()) + offset}
        message = segment({"alg": "HS256", "typ": "JWT"}) + "." + segment(claims)
        tag = base64.urlsafe_b64encode(_sign("jwt", message).digest()).rstrip(b"=").decode()
        token = {"Authorization": f"Bearer {message}.{tag}"}
        issued.keep(f"{message}.{tag}")
        answer = await web.request("PUT", f"{base}made-{offset}/a.bin", token, b"late")
        report.equal(answer.status, status, f"jwt: a token that ends in {offset} s")


async def _reused(slotd, asker, report, name):
    """Once a file's time is over, its old PUT URL puts nothing behind its link any more."""
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    slotd.tables["retention"].update(keep_for="1 second", sweep_every="1 second")
    slotd.write()
    slotd.start()
    body = os.urandom(1000)
    slot = await _slot(asker, name, len(body))
    answer = await web.request("PUT", slot.put, {"Content-Type": KIND}, body)
    report.equal(answer.status, 201, f"{name}: PUT of what goes soon")
    deletions = slotd.dir / "deletions.jsonl"
    await asyncio.to_thread(
        wait_until, "the sweep", lambda: deletions.exists() and deletions.read_text().count("\n"))
    report.equal((await web.get(slot.get)).status, 404, f"{name}: GET when it is gone")
    for what, content in [("the same", body), ("other", os.urandom(1000))]:
        answer = await web.request("PUT", slot.put, {"Content-Type": KIND}, content)
        report.equal(answer.status, 410, f"{name}: PUT of {what} bytes on a path that was used")
    report.equal((await web.get(slot.get)).status, 404, f"{name}: and nothing is there")
