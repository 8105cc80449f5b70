"""Clients that know nothing of slotd but a resume URL: tus-js-client in Node, tuspy, Uppy in a
browser, curl. Their connections are broken on the way; each goes on by itself."""

import asyncio
import json
import os
import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import web
from bed import ROOT, free_port
from cutter import Cutter
from daemon import Slotd
from xmpp import UPLOAD, Client

MIB = 1024 * 1024
SIZE = 6 * MIB
CUT_AFTER = 1_500_000
N_CUTS = 3
SESSION = "urn:slotd:upload-session:0"
JS = ROOT / "tests/e2e/js"
NODE_MODULES = Path(os.environ.get("NODE_MODULES", ROOT / "target/e2e-node/node_modules"))
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"

# tuspy, on a URL that it did not make.
TUSPY = """
import sys
from tusclient import client
path, url, chunk = sys.argv[1:]
uploader = client.TusClient(url).uploader(
    path, url=url, chunk_size=int(chunk), retries=8, retry_delay=0, upload_checksum=True)
uploader.upload()
print(uploader.offset)
"""


async def suite(bed, server, report):
    server.start()
    server.accounts("alice")
    slotd_port, cutter_port = free_port(), free_port()
    slotd = Slotd(bed, server, port=slotd_port,
                  http={"public_url": f"http://127.0.0.1:{cutter_port}/"})
    slotd.start()
    alice = await Client.login(server, "alice")
    await alice.service_up()
    bench = Bench(bed, alice, report, slotd_port, cutter_port)
    for part in (_curl, _tus_js, _tus_js_in_pieces, _tuspy, _uppy):
        await part(bench)
    await alice.close()


class Bench:
    """What each part needs."""

    def __init__(self, bed, alice, report, slotd_port, cutter_port):
        self.dir, self.alice, self.report = bed.sub("tus"), alice, report
        self.slotd_port, self.cutter_port = slotd_port, cutter_port

    async def slot(self, name, size):
        """A slot with a session: the GET URL and the resume URL."""
        result = await self.alice.iq(
            f"<request xmlns='{UPLOAD}' filename='{name}' size='{size}'>"
            f"<session xmlns='{SESSION}'/></request>")
        session = next(result.iter(f"{{{SESSION}}}session"))
        get = next(result.iter(f"{{{UPLOAD}}}get"))
        return get.get("url"), session.get("resume-url")

    async def cutter(self, times=N_CUTS, after=CUT_AFTER):
        """The network between the clients and slotd, which breaks `times` times."""
        cutter = Cutter(self.slotd_port, after, times)
        cutter.port = self.cutter_port
        return await cutter.start()

    async def has(self, url, content, words):
        """Checks that the file is there and whole."""
        answer = await web.get(url)
        self.report.check(answer.status == 200 and answer.body == content, words,
                          f"{answer.status}, {len(answer.body)} bytes")

    def file(self, content):
        """The content as a file."""
        path = self.dir / "holiday.bin"
        path.write_bytes(content)
        return path


async def _run(*words, within_s=120, **env):
    """A program's last line of output, and its exit status."""
    child = await asyncio.create_subprocess_exec(
        *map(str, words), env={**os.environ, **env}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        output, _ = await asyncio.wait_for(child.communicate(), within_s)
    finally:
        if child.returncode is None:
            child.kill()
    lines = output.decode(errors="replace").strip().splitlines()
    return child.returncode, lines[-1] if lines else ""


async def _curl(bench):
    cutter = await bench.cutter(times=0)
    content = os.urandom(SIZE)
    path = bench.file(content)
    get, resume = await bench.slot("curl.bin", SIZE)
    half = bench.dir / "half.bin"
    half.write_bytes(content[:SIZE // 2])
    draft = ("-H", "Upload-Draft-Interop-Version: 8",
             "-H", "Content-Type: application/partial-upload")

    async def curl(*words):
        status, line = await _run("curl", "-sS", "-o", os.devnull, "-w",
                                  "%{http_code} %header{upload-offset} %header{upload-complete}",
                                  *words, resume)
        return line if status == 0 else f"curl says {status}: {line}"

    bench.report.equal(await curl("-I"), "204 0 ?0", "curl: HEAD of a fresh upload")
    answer = await curl("-X", "PATCH", *draft, "-H", "Upload-Offset: 0", "-H",
                        "Upload-Complete: ?0", "--data-binary", f"@{half}")
    bench.report.equal(answer.split()[0], "204", "curl: PATCH of the first half")
    answer = await curl("-X", "PATCH", *draft, "-H", "Upload-Offset: 0", "-H",
                        "Upload-Complete: ?0", "--data-binary", f"@{half}")
    bench.report.equal(answer, f"409 {SIZE // 2} ?0", "curl: the same once more")
    rest = bench.dir / "rest.bin"
    rest.write_bytes(content[SIZE // 2:])
    answer = await curl("-X", "PATCH", *draft, "-H", f"Upload-Offset: {SIZE // 2}", "-H",
                        "Upload-Complete: ?1", "--data-binary", f"@{rest}")
    bench.report.equal(answer.split()[0], "201", "curl: PATCH of the rest")
    bench.report.equal(await curl("-I"), f"204 {SIZE} ?1", "curl: HEAD of the finished upload")
    await bench.has(get, path.read_bytes(), "curl: the file is whole")
    await cutter.close()


async def _tus_js(bench, chunk=0, name="tus-js-client, one PATCH"):
    cutter = await bench.cutter()
    content = os.urandom(SIZE)
    path = bench.file(content)
    get, resume = await bench.slot("tus.bin", SIZE)
    status, line = await _run("node", JS / "tus.cjs", path, resume, chunk,
                              NODE_MODULES=str(NODE_MODULES))
    bench.report.check(status == 0, f"{name}: goes to its end", line)
    told = json.loads(line) if status == 0 else {"requests": []}
    bench.report.check(cutter.n_cut == N_CUTS and told["requests"].count("HEAD") > N_CUTS,
                       f"{name}: {N_CUTS} broken connections, each gone on from", line)
    await bench.has(get, content, f"{name}: the file is whole")
    await cutter.close()


async def _tus_js_in_pieces(bench):
    await _tus_js(bench, 2 * MIB, "tus-js-client, 2 MiB a PATCH")


async def _tuspy(bench):
    name = "tuspy, with checksums"
    cutter = await bench.cutter()
    content = os.urandom(SIZE)
    path = bench.file(content)
    get, resume = await bench.slot("tuspy.bin", SIZE)
    status, line = await _run(sys.executable, "-c", TUSPY, path, resume, 2 * MIB)
    bench.report.equal((status, line), (0, str(SIZE)), f"{name}: goes to its end")
    bench.report.equal(cutter.n_cut, N_CUTS, f"{name}: broken connections on the way")
    await bench.has(get, content, f"{name}: the file is whole")
    await cutter.close()


async def _uppy(bench):
    """Uppy's page is of another origin, so the browser asks for leave first (CORS)."""
    name = "Uppy in Chromium"
    pages = bench.dir / "pages"
    pages.mkdir()
    shutil.copy(JS / "uppy.html", pages)
    for file in ("uppy.min.js", "uppy.min.css"):
        shutil.copy(NODE_MODULES / "uppy/dist" / file, pages)
    handler = partial(_Quiet, directory=str(pages))
    site = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=site.serve_forever, daemon=True).start()
    cutter = await bench.cutter(times=2, after=700_000)
    content = bytes(at % 251 for at in range(SIZE))
    get, resume = await bench.slot("uppy.bin", SIZE)
    picture = bench.dir / "uppy.png"
    status, line = await _run(
        "node", JS / "uppy.cjs", f"http://127.0.0.1:{site.server_port}/uppy.html", resume, SIZE,
        os.environ.get("UPPY_PICTURE", picture),
        NODE_MODULES=str(NODE_MODULES), CHROMIUM=CHROMIUM)
    told = json.loads(line) if status == 0 else {}
    bench.report.check(told.get("successful") == 1 and not told.get("complaints"),
                       f"{name}: goes to its end", line[:300])
    bench.report.equal(cutter.n_cut, 2, f"{name}: broken connections on the way")
    await bench.has(get, content, f"{name}: the file is whole")
    site.shutdown()
    await cutter.close()


class _Quiet(SimpleHTTPRequestHandler):
    """Serves a directory and says nothing."""

    def log_message(self, *_):
        pass
