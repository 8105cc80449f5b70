"""Import: a thousand files uploaded through the server's own module; after `slotd import` every link
of them leads to the same bytes, served by slotd."""

import asyncio
import json
import os
from urllib.parse import urlsplit

import web
from bed import DOMAIN, free_port
from daemon import BINARY, Slotd
from xmpp import Client, Refused

FILES = "files.localhost"
N_FILES = 1000
# Slot requests and transfers under way at a time.
WINDOW = 25
SIZE_MAX = 4096
NAMES = [("photo {n}.jpg", "image/jpeg"), ("Gr\u00fc\u00dfe {n}.txt", "text/plain"),
         ("100%25 {n}.png", "image/png"), ("it's (a) [b] & c+d {n}.bin", None), ("noextension{n}", None)]


def _prosody_share(server, port):
    """Prosody's mod_http_file_share without quotas; the directory to import."""
    text = server.conf.read_text().replace("http_ports = {}", f"http_ports = {{ {port} }}")
    server.conf.write_text(
        text + f'\nhttp_interfaces = {{ "127.0.0.1" }}\nhttp_default_host = "{FILES}"\n'
        f'Component "{FILES}" "http_file_share"\n'
        f'http_host = "127.0.0.1"\nhttp_external_url = "http://127.0.0.1:{port}/"\n'
        'http_file_share_daily_quota = 1024*1024*1024\n')
    return server.dir / "data" / FILES.replace(".", "%2e")


def _ejabberd_upload(server, port):
    """ejabberd's mod_http_upload; the directory to import."""
    path, docroot = server.dir / "ejabberd.yml", server.dir / "upload"
    share = (f'modules:\n  mod_http_upload:\n    host: "{FILES}"\n    access: all\n'
             f'    put_url: "http://127.0.0.1:{port}/upload"\n    docroot: "{docroot}"\n')
    listener = (f'listen:\n  -\n    port: {port}\n    ip: "127.0.0.1"\n'
                '    module: ejabberd_http\n    backlog: 1024\n    request_handlers:\n'
                '      /upload: mod_http_upload\n')
    text = path.read_text().replace("\nmodules:\n", f"\n{share}", 1)
    path.write_text(text.replace("\nlisten:\n", f"\n{listener}", 1))
    return docroot


async def suite(bed, server, report):
    port = free_port()
    prepare = {"prosody": _prosody_share, "ejabberd": _ejabberd_upload}[server.name]
    directory = prepare(server, port)
    server.start()
    await asyncio.to_thread(server.process.wait_for_port, port)
    server.accounts("alice")
    alice = await Client.login(server, "alice")
    uploads = await _upload(alice)
    report.equal(len(uploads), N_FILES, f"files uploaded through {server.name}'s own module")
    types = await _types(uploads)
    await alice.close()
    server.stop()

    # The links are below a path that the module chose.
    prefix = urlsplit(uploads[0][0]).path.split("/")[1]
    slotd = Slotd(bed, server, external={"path": f"/{prefix}/", "domain": DOMAIN})
    await asyncio.to_thread(_import, slotd, directory, report)
    slotd.start()
    await _links(slotd, port, uploads, types, report)
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


async def _in_windows(jobs):
    room = asyncio.Semaphore(WINDOW)

    async def do(job):
        async with room:
            return await job
    return await asyncio.gather(*map(do, jobs))


async def _upload(alice):
    """[(link, content)] of what was taken."""
    async def one(n):
        name, kind = NAMES[n % len(NAMES)]
        body = os.urandom(1 + n * SIZE_MAX // N_FILES)
        slot = await alice.slot(name.format(n=n), len(body), kind, to=FILES)
        answer = await web.put(slot, body)
        return (slot.get, body) if answer.status == 201 else None
    await _service_up(alice)
    return [done for done in await _in_windows(map(one, range(N_FILES))) if done]


async def _service_up(alice):
    """Until the module is there for its users."""
    for _ in range(100):
        try:
            return await alice.slot("first", 1, to=FILES)
        except (Refused, asyncio.TimeoutError):
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{FILES} gives no slots")


async def _types(uploads):
    """What the old server serves of each kind of name, by its link."""
    answers = [(link, await web.get(link)) for link, _ in uploads[:len(NAMES)]]
    return {link: answer.headers.get("content-type") for link, answer in answers}


def _import(slotd, directory, report):
    status, words = slotd.command("audit", "--repair")
    report.equal(status, 0, "an empty store")
    status, words = slotd.command("import", directory, "--dry-run", "--json")
    report.equal((status, json.loads(words)["taken"]["files"]), (0, N_FILES),
                 "slotd import --dry-run: exit status, and files to be taken")
    report.equal(slotd.files_complete(), 0, "and has taken")
    cut = slotd.bed.process("import", [BINARY, "import", directory, "--config", slotd.conf])
    cut.start()
    while cut.running() and slotd.files_complete() < N_FILES // 3:
        pass
    cut.kill()
    n_cut = slotd.files_complete()
    report.check(0 < n_cut < N_FILES, "a kill -9 in the middle", f"{n_cut} files")
    report.equal(slotd.command("audit")[0], 0, "after which slotd audit exits")
    status, words = slotd.command("import", directory)
    report.check(status == 0, "slotd import exits with", f"{status}\n{words}")
    status, words = slotd.command("import", directory, "--json")
    told = json.loads(words)
    report.equal((status, told["taken"]["files"], told["here"]["files"], told["refused"]),
                 (0, 0, N_FILES, 0), "the same again: exit status, taken, there already, refused")
    status, words = slotd.command("audit", "--deep")
    report.check(status == 0, "slotd audit --deep", words.splitlines()[-1])


async def _links(slotd, port, uploads, types, report):
    here = [link.replace(f":{port}/", f":{slotd.port}/") for link, _ in uploads]
    answers = await _in_windows(map(web.get, here))
    n_same = sum(answer.status == 200 and answer.body == body
                 for answer, (_, body) in zip(answers, uploads))
    report.equal(n_same, N_FILES, f"of {N_FILES} old links serve the same bytes")
    ours = {link: answer.headers.get("content-type")
            for (link, _), answer in zip(uploads[:len(NAMES)], answers)}
    report.equal(list(ours.values()), list(types.values()), "their types are the old server's")
    written = "".join(slotd.written().values())
    n_leaked = sum(urlsplit(link).path.split("/")[-2] in written for link in here)
    report.equal(n_leaked, 0, f"old links in what it wrote ({len(written)} characters)")
    other = await web.get(here[0] + "x")
    report.equal(other.status, 404, "another link is none")
