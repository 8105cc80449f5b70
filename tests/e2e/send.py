"""slotd send, the client: each way to lose an upload, and what arrives all the same."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time

import web
from bed import DOMAIN, PASSWORD, free_port
from clients import Terminal
from cutter import Cutter
from daemon import BINARY, Slotd
from xmpp import Client

MIB = 1024 * 1024
SIZE = 6 * MIB
# A pace at which there is time to break something.
RATE = "2MiB"
ROOMS = "rooms.localhost"
FILES = "files.localhost"
OOB = "{jabber:x:oob}"
WITHIN_S = 90


class Sender:
    """Runs of slotd send in one home."""

    def __init__(self, bed, server, user="alice"):
        self.bed, self.server, self.user = bed, server, user
        self.home = bed.sub(f"send-{user}")
        self.env = {**os.environ, "SLOTD_PASSWORD": PASSWORD, "HOME": str(self.home),
                    "XDG_STATE_HOME": str(self.home / "state")}

    def argv(self, *words):
        """The command line."""
        return [BINARY, "send", "--account", f"{self.user}@{DOMAIN}", "--server",
                f"127.0.0.1:{self.server.c2s_port}", "--ca", str(self.bed.dir / "tls.crt"),
                *(str(word) for word in words)]

    def start(self, *words, **more):
        """Starts a run."""
        return subprocess.Popen(self.argv(*words), text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**self.env, **more})

    async def end(self, run):
        """(exit status, standard output, standard error) of a run."""
        out, err = await asyncio.to_thread(run.communicate, timeout=WITHIN_S)
        return run.returncode, out, err

    async def run(self, *words, **more):
        """A whole run."""
        return await self.end(self.start(*words, **more))

    def records(self):
        """What is kept for later runs."""
        return sorted((self.home / "state/slotd").glob("*.json"))


class File:
    """Random bytes in a file."""

    def __init__(self, bed, name, size=SIZE):
        self.path = bed.dir / name
        self.path.write_bytes(os.urandom(size))
        self.sha256 = web.sha256(self.path.read_bytes())


class Hole(Cutter):
    """A network that is gone without a word: what is to be cut stays open, and nothing passes."""

    async def start(self):
        """Listens, with little room for what nobody reads."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        listener.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=64 * 1024)
        self.port = listener.getsockname()[1]
        return self

    async def _pass(self, reader, writer, is_counted=False):
        if await super()._pass(reader, writer, is_counted):
            self.n_cut += 1
            await asyncio.Event().wait()
        return False


async def suite(bed, server, report):
    with_extras(server)
    server.start()
    server.accounts("alice", "bob")
    slotd = Slotd(bed, server)
    slotd.start()
    bob = await Client.login(server, "bob")
    await bob.service_up()
    sender = Sender(bed, server)
    parts = [_sends, _refusals, _killed, _service_restarts, _server_restarts, _hole,
             _terminal, _prompt]
    if server.name == "prosody":
        parts += [_room, _plain]
    for part in parts:
        if os.environ.get("E2E_ONLY", "") in part.__name__:
            if bob is None or bob.writer.is_closing() or bob._task.done():
                bob = await Client.login(server, "bob")
            await part(bed, server, sender, slotd, bob, report)
    await bob.close()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


def with_extras(server):
    """Prosody with rooms, and an upload service of its own that knows no sessions."""
    if server.name != "prosody":
        return
    port = free_port()
    text = server.conf.read_text().replace("http_ports = {}", f"http_ports = {{ {port} }}")
    text += (f'\nComponent "{ROOMS}" "muc"\n\trestrict_room_creation = false\n'
             f'\nComponent "{FILES}" "http_file_share"\n'
             f'\thttp_external_url = "http://127.0.0.1:{port}/"\n'
             f'\thttp_host = "127.0.0.1"\n'
             f'\thttp_file_share_access = {{ "{DOMAIN}" }}\n')
    server.conf.write_text(text)


async def _link(bob):
    """The next message with a link: (body, URL of its out-of-band data, type)."""
    while True:
        stanza = await asyncio.wait_for(bob.inbox.get(), 30)
        body = stanza.find("{jabber:client}body")
        if stanza.tag.endswith("}message") and body is not None:
            url = stanza.find(f"{OOB}x/{OOB}url")
            return body.text, url.text if url is not None else None, stanza.get("type")


async def _arrives(bob, file, result, report, words):
    """A run's result, its message and its file are right; the object that it told."""
    status, out, err = result
    if not report.check(status == 0, f"{words}: exit status", f"{status} {err.strip()[-300:]}"):
        return None
    told = json.loads(out)
    body, url, _ = await _link(bob)
    report.equal((body == told["url"], url == told["url"]), (True, True),
                 f"{words}: the link is in body and out-of-band data")
    answer = await web.get(told["url"])
    report.check(answer.sha256 == file.sha256 == told["sha256"],
                 f"{words}: the same bytes are there", f"{len(answer.body)} bytes")
    return told


async def _sends(bed, _server, sender, _slotd, bob, report):
    file = File(bed, "a film (1).mp4")
    result = await sender.run(file.path, "--to", f"bob@{DOMAIN}", "--json")
    told = await _arrives(bob, file, result, report, "a file")
    if told:
        report.equal((told["resumed"], told["sent_twice_bytes"], told["attempts"], told["to"]),
                     (False, 0, 1, [f"bob@{DOMAIN}"]), "a file: nothing twice")
    report.check(PASSWORD not in result[2] and "/r/" not in result[2] and "t=" not in result[2],
                 "no secret is told", result[2].strip())
    report.equal(sender.records(), [], "nothing is kept of what is done")
    files = [File(bed, f"{n}.txt", 1000 + n) for n in range(3)]
    status, out, _ = await sender.run(*(file.path for file in files), "--no-message")
    report.equal((status, len(out.splitlines())), (0, 3), "three files, a link each")
    for file, link in zip(files, out.splitlines()):
        answer = await web.get(link)
        report.check(answer.sha256 == file.sha256 and answer.headers["content-type"] == "text/plain",
                     f"{file.path.name} has its bytes and its type", answer.status)


async def _refusals(bed, _server, sender, slotd, _bob, report):
    file = File(bed, "small.bin", 1000)
    status, _, err = await sender.run(file.path, "--no-message", SLOTD_PASSWORD="wrong")
    report.check(status == 3 and "refuses the password" in err and "wrong" not in err,
                 "a wrong password is exit status 3", f"{status} {err.strip()}")
    large = bed.dir / "large.bin"
    with open(large, "wb") as sparse:
        sparse.truncate(200 * MIB)
    status, _, err = await sender.run(large, "--no-message")
    report.check(status == 4 and "larger than" in err, "a file too large is exit status 4",
                 f"{status} {err.strip()}")
    status, _, err = await sender.run(file.path, "--to", f"nobody@{DOMAIN}")
    report.check(status == 4 and "nobody@" in err, "to an account that is not there: 4",
                 err.strip().splitlines()[-1])
    status, out, _ = await sender.run(file.path, "--no-message")
    report.check(status == 0 and out.strip() in err, "its upload is not made twice", out.strip())
    argv = sender.argv(file.path, "--no-message")
    at = argv.index("--ca")
    del argv[at:at + 2]
    run = subprocess.Popen(argv, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, env=sender.env)
    status, _, err = await sender.end(run)
    report.check(status == 3 and "not to be trusted" in err and "--ca" in err,
                 "a certificate of nobody's is refused", f"{status} {err.strip()}")


async def _begun(slotd, at_least=MIB, within_s=30):
    """Waits until so many bytes of an upload are there."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while loop.time() < deadline:
        sizes = [size for name, size in slotd.files().items() if name.startswith("parts/")]
        if any(at_least <= size for size in sizes):
            return
        await asyncio.sleep(0.02)
    raise TimeoutError("no upload under way")


async def _killed(bed, _server, sender, slotd, bob, report):
    file = File(bed, "killed.bin")
    words = (file.path, "--to", f"bob@{DOMAIN}", "--json")
    for with_signal, wanted in [(signal.SIGKILL, -9), (signal.SIGINT, 130)]:
        run = sender.start(*words, "--rate-max", RATE)
        await _begun(slotd)
        await asyncio.sleep(0.5)
        run.send_signal(with_signal)
        status, _, err = await sender.end(run)
        report.equal(status, wanted, f"ended by {with_signal.name} in mid-upload")
    report.check("same command" in err, "and says how to go on", err.strip().splitlines()[-1])
    [record] = sender.records()
    text = record.read_text()
    report.check(PASSWORD not in text and "/r/" not in text and record.stat().st_mode & 0o77 == 0,
                 "the record is its owner's and holds no secret", oct(record.stat().st_mode))
    told = await _arrives(bob, file, await sender.run(*words), report, "run again")
    if told:
        report.check(told["resumed"] and told["sent_twice_bytes"] < SIZE // 4,
                     "it goes on where it was", f"{told['sent_twice_bytes']} bytes sent twice")
    report.equal(sender.records(), [], "and nothing is kept then")


async def _service_restarts(bed, _server, sender, slotd, bob, report):
    for how in ("stop", "kill"):
        file = File(bed, f"restart-{how}.bin")
        run = sender.start(file.path, "--to", f"bob@{DOMAIN}", "--json", "--rate-max", RATE)
        await _begun(slotd)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(getattr(slotd, how))
        await asyncio.to_thread(slotd.start)
        told = await _arrives(bob, file, await sender.end(run), report,
                              f"slotd restarted ({how}) in mid-upload")
        if told:
            # One that is stopped waits for what is under way.
            wanted = 1 if how == "stop" else 2
            report.check(told["attempts"] >= wanted, f"({how}) in so many parts",
                         f"{told['attempts']}, {told['sent_twice_bytes']} bytes sent twice")


async def _server_restarts(bed, server, sender, slotd, bob, report):
    """Both end in mid-upload, and the slot's time is over when they are back."""
    slotd.tables["limits"] = {"idle_for": "3 seconds"}
    slotd.write()
    slotd.stop()
    slotd.start()
    await bob.service_up()
    file = File(bed, "both.bin")
    run = sender.start(file.path, "--to", f"bob@{DOMAIN}", "--json", "--rate-max", RATE)
    await _begun(slotd)
    await asyncio.sleep(0.5)
    slotd.kill()
    await asyncio.to_thread(server.process.stop, signal.SIGKILL)
    await asyncio.sleep(4)
    server.start()
    slotd.start()
    bob = await Client.login(server, "bob")
    told = await _arrives(bob, file, await sender.end(run), report,
                          f"{server.name} and slotd gone until the slot's time was over")
    if told:
        report.check(1 <= told["refreshes"], "it took a refresh over a new stream",
                     f"{told['refreshes']} refreshes, {told['sent_twice_bytes']} bytes twice")
    await bob.close()
    del slotd.tables["limits"]
    slotd.write()
    slotd.stop()
    slotd.start()


async def _hole(bed, _server, sender, slotd, bob, report):
    """The way to slotd swallows everything, and another one is open."""
    hole = await Hole(slotd.port, 3 * MIB, 1).start()
    before = slotd.tables["http"]["public_url"]
    slotd.tables["http"]["public_url"] = f"http://127.0.0.1:{hole.port}/"
    slotd.write()
    slotd.stop()
    slotd.start()
    await bob.service_up()
    file = File(bed, "hole.bin", 24 * MIB)
    began = time.monotonic()
    result = await sender.run(file.path, "--to", f"bob@{DOMAIN}", "--json")
    took_s = time.monotonic() - began
    told = await _arrives(bob, file, result, report, "a way that swallows everything")
    if told:
        report.check(hole.n_cut == 1 and told["attempts"] == 2 and took_s < 40,
                     "it is noticed, and the upload goes on",
                     f"{took_s:.1f} s in all, {told['sent_twice_bytes'] / MIB:.1f} MiB sent twice")
    await hole.close()
    slotd.tables["http"]["public_url"] = before
    slotd.write()
    slotd.stop()
    slotd.start()


async def _terminal(bed, _server, sender, slotd, _bob, report):
    """The bar, as it is seen."""
    file = File(bed, "seen.bin", 4 * MIB)
    script = bed.dir / "once.sh"
    argv = " ".join(f"'{word}'" for word in sender.argv(file.path, "--no-message",
                                                         "--rate-max", "1MiB"))
    home = f"export HOME={sender.home} XDG_STATE_HOME={sender.home}/state LANG=C.UTF-8"
    script.write_text(f"trap : INT\n{home}\nexport SLOTD_PASSWORD={PASSWORD}\n{argv}\necho status $?\n")
    terminal = Terminal(bed, "send", f"set +m\ntrap : INT\nsh {script}\nexec sh\n")
    # KiB/s where the machine is slower than the limit.
    await terminal.sees("iB/s")
    await _begun(slotd, MIB // 2)
    seen = terminal.screen()
    report.check("seen.bin" in seen and "%" in seen and "left" in seen, "a bar in mid-upload", seen)
    slotd.kill()
    await terminal.sees("trying again")
    report.check(True, "trouble is told beside it", terminal.screen())
    slotd.start()
    await terminal.sees("resumed at")
    terminal.interrupt()
    await terminal.sees("status 130")
    seen = terminal.screen()
    report.check("same command" in seen, "Ctrl-C, and what to do then", seen)
    terminal.type(f"sh {script}")
    await terminal.sees("status 0", within_s=60)
    seen = terminal.screen()
    report.check("sent 4.0 MiB" in seen and "http://" in seen, "and its end, with the link", seen)
    terminal.close()


async def _prompt(bed, _server, sender, _slotd, _bob, report):
    """The password typed at a terminal, and not seen."""
    file = File(bed, "typed.bin", 1000)
    argv = " ".join(f"'{word}'" for word in sender.argv(file.path, "--no-message"))
    terminal = Terminal(bed, "prompt", f"export HOME={sender.home}\nunset SLOTD_PASSWORD\n"
                        f"{argv}\necho status $?\nsleep 60\n")
    await terminal.sees("Password of")
    terminal.type(PASSWORD)
    await terminal.sees("status 0")
    seen = terminal.screen()
    report.check(PASSWORD not in seen and "http://" in seen, "a password is asked for, unseen", seen)
    terminal.close()


async def _room(bed, _server, sender, _slotd, bob, report):
    room = f"friends@{ROOMS}"
    bob.send(f"<presence to='{room}/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
    while True:
        stanza = await asyncio.wait_for(bob.inbox.get(), 30)
        if stanza.tag.endswith("}message"):
            break
    form = "<x xmlns='jabber:x:data' type='submit'/>"
    await bob.iq(f"<query xmlns='http://jabber.org/protocol/muc#owner'>{form}</query>", to=room,
                 kind="set")
    file = File(bed, "room.bin", 100_000)
    status, out, err = await sender.run(file.path, "--to", room)
    report.equal(status, 0, f"a link into a room, where our name is taken: exit status {err[-300:]}")
    body, url, kind = await _link(bob)
    report.equal((body, url, kind), (out.strip(), out.strip(), "groupchat"),
                 "the room shows body and out-of-band data")
    bob.send(f"<presence to='{room}/alice' type='unavailable'/>")


async def _plain(bed, _server, sender, slotd, bob, report):
    """A service that knows XEP-0363 and nothing else."""
    file = File(bed, "plain.bin", 300_000)
    words = (file.path, "--to", f"bob@{DOMAIN}", "--json", "--service", FILES)
    told = await _arrives(bob, file, await sender.run(*words), report, "mod_http_file_share")
    if told:
        report.equal(told["refreshes"], 0, "without a session")
    report.equal(sender.records(), [], "nothing is kept that could not be gone on with")
