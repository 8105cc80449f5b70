"""slotd behind nginx with TLS, and slotd with its own TLS: a real client and a bare one each."""

import asyncio
import os
import re

import web
from bed import DOMAIN, PASSWORD, Trouble, free_port, run
from daemon import Slotd
from servers import Apache, Nginx
from xmpp import Client

CLIENT_ADDRESS = "203.0.113.9"


async def suite(bed, server, report):
    server.start()
    server.accounts("alice", "bob")
    await _behind_nginx(bed, server, report)
    if os.geteuid() == 0:
        await _files_by_proxy(bed, server, report, "x-accel-redirect")
        await _files_by_proxy(bed, server, report, "x-sendfile")
    else:
        report.skip("files by the proxy", "a group of its own needs root")
    await _own_tls(bed, server, report)


async def _behind_nginx(bed, server, report):
    port = free_port()
    nginx = Nginx(bed, port)
    slotd = Slotd(bed, server, "slotd-proxied", port=port,
                  http={"public_url": f"https://localhost:{nginx.port}/",
                        "trusted_proxies": ["127.0.0.1"]})
    slotd.start()
    nginx.start()
    await _one_upload(bed, server, report, "behind nginx")
    alice = await Client.login(server, "alice")
    await alice.service_up()
    slot = await alice.slot("address.bin", 10)
    answer = await web.request("PUT", slot.put, slot.headers | {"X-Forwarded-For": CLIENT_ADDRESS},
                               b"0123456789")
    report.equal(answer.status, 201, "behind nginx: a client that claims another address")
    # nginx adds the peer it saw; both are trusted or named, so the client's claim is what counts
    # only because loopback is trusted here.
    seen = set(re.findall(rf"{re.escape(CLIENT_ADDRESS)}", slotd.process.tail(10_000)))
    report.check(seen == {CLIENT_ADDRESS}, "the log has the address X-Forwarded-For names",
                 seen or "no such line")
    logs = nginx.process.tail(10_000) + "".join(
        log.read_text() for log in nginx.dir.glob("*.log"))
    report.check("address.bin" not in logs, "nginx's logs have no links")
    await alice.close()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


async def _files_by_proxy(bed, server, report, accel):
    """http.accel: the proxy sends the files, with all that slotd would have said of them."""
    port, where = free_port(), f"files by {accel}"
    data_dir = bed.sub(f"slotd-{accel}") / "data"
    proxy = (Nginx(bed, port, "slotd-accel.conf", data_dir, user="www-data")
             if accel == "x-accel-redirect" else Apache(bed, port, data_dir))
    slotd = Slotd(bed, server, f"slotd-{accel}", data_dir=data_dir, port=port, group="www-data",
                  http={"public_url": f"https://localhost:{proxy.port}/",
                        "trusted_proxies": ["127.0.0.1"], "accel": accel})
    slotd.start()
    proxy.start()
    await _one_upload(bed, server, report, where)
    alice = await Client.login(server, "alice")
    await alice.service_up()
    body = os.urandom(300_000)
    slot = await alice.slot("page.html", len(body))
    await web.put(slot, body)
    await alice.close()
    own = slot.get.replace(f"https://localhost:{proxy.port}/", f"http://localhost:{port}/")
    told = await web.request("GET", own, {"X-Forwarded-For": "203.0.113.9"})
    report.check(("x-accel-redirect" in told.headers or "x-sendfile" in told.headers)
                 and told.body == b"", f"{where}: slotd sends none of the bytes itself", "")
    head, whole = await web.request("HEAD", own), await web.get(slot.get)
    report.equal(whole.sha256, web.sha256(body), f"{where}: SHA-256 received")
    report.equal(_differences(head.headers, whole.headers), set(),
                 f"{where}: what of slotd's header is missing or other")
    report.check(not {"x-accel-redirect", "x-sendfile"} & set(whole.headers),
                 f"{where}: nobody is told the path", "")
    await _conditions(slot.get, whole.headers["etag"], body, report, where)
    direct = f"https://localhost:{proxy.port}/slotd-files/00/x"
    report.equal((await web.get(direct)).status, 404, f"{where}: the location itself")
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


def _differences(ours, passed_on):
    """The fields of ours that did not get through as they are."""
    def lasting(value):
        # How long a cache may keep the file grows shorter by the second.
        return re.sub(r"age=[0-9]+", "age=N", value)
    names = set(ours) - {"date", "connection", "last-modified"}
    return {name for name in names if lasting(passed_on.get(name, "")) != lasting(ours[name])}


async def _conditions(url, etag, body, report, where):
    """Parts and preconditions, whoever judges them."""
    for fields, expected in [
            ({"Range": "bytes=5-9"}, (206, body[5:10])),
            ({"Range": "bytes=5-9", "If-Range": etag}, (206, body[5:10])),
            ({"Range": "bytes=5-9", "If-Range": '"other"'}, (200, body)),
            ({"Range": "bytes=5-9", "If-Match": etag}, (206, body[5:10])),
            ({"If-Match": '"other"'}, (412, None)),
            ({"If-None-Match": etag}, (304, b"")),
            ({"Range": "bytes=300000-"}, (416, None))]:
        answer = await web.get(url, fields)
        got = (answer.status, answer.body if expected[1] is not None else None)
        report.check(got == expected, f"{where}: {fields}", answer.status)


async def _own_tls(bed, server, report):
    port = free_port()
    bed.certificate()
    slotd = Slotd(bed, server, "slotd-tls", port=port,
                  http={"public_url": f"https://localhost:{port}/",
                        "tls": {"certificate": str(bed.dir / "tls.crt"),
                                "key": str(bed.dir / "tls.key")}})
    slotd.start()
    await _one_upload(bed, server, report, "own TLS")
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


async def _one_upload(bed, server, report, where):
    alice = await Client.login(server, "alice")
    await alice.service_up()
    body = os.urandom(3_000_000)
    slot = await alice.slot("secure.bin", len(body))
    report.check(slot.put.startswith("https://") and slot.get.startswith("https://"),
                 f"{where}: the slot's URLs are https", "")
    answer = await web.put(slot, body)
    report.equal(answer.status, 201, f"{where}: PUT of {len(body)} bytes")
    answer = await web.get(slot.get)
    report.equal(answer.sha256, web.sha256(body), f"{where}: SHA-256 received")
    part = await web.get(slot.get, {"Range": "bytes=5-9"})
    report.equal((part.status, part.body), (206, body[5:10]), f"{where}: Range")
    await alice.close()
    path = bed.dir / f"{where}.bin".replace(" ", "-")
    path.write_bytes(body)
    try:
        # A real client that verifies certificates.
        await asyncio.to_thread(
            run, "go-sendxmpp", "-n", "-u", f"alice@{DOMAIN}", "-p", PASSWORD,
            "-j", f"127.0.0.1:{server.c2s_port}", "-h", path, f"bob@{DOMAIN}", timeout=60,
            cwd=bed.dir, env={**os.environ, "HOME": str(bed.dir),
                              "SSL_CERT_FILE": str(bed.dir / "tls.crt")})
        report.check(True, f"{where}: go-sendxmpp uploads, the certificate verified", "")
    except Trouble as trouble:
        report.check(False, f"{where}: go-sendxmpp uploads, the certificate verified", trouble)
