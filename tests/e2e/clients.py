"""Real clients: each finds the service, uploads, and the file reaches the other account whole."""

import asyncio
import os
import re
import shutil
import subprocess

import slixmpp

import web
from bed import DOMAIN, PASSWORD, Trouble, run
from daemon import Slotd

URL = re.compile(r"https?://\S+")
ARRIVES_WITHIN_S = 30


class Person(slixmpp.ClientXMPP):
    """Somebody with slixmpp."""

    def __init__(self, server, user):
        super().__init__(f"{user}@{DOMAIN}", PASSWORD)
        self.c2s_port = server.c2s_port
        self.ca_certs = server.bed.dir / "tls.crt"
        for plugin in ("xep_0030", "xep_0066", "xep_0199", "xep_0363"):
            self.register_plugin(plugin)
        self.links = asyncio.Queue()
        self.add_event_handler("message", self._message)

    def _message(self, message):
        for link in URL.findall(message["body"]):
            self.links.put_nowait(link)

    async def come_online(self):
        """Logs in and says so."""
        ready = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", lambda _: ready.done() or ready.set_result(None))
        self.connect("127.0.0.1", self.c2s_port)
        await asyncio.wait_for(ready, 30)
        self.send_presence()

    async def send_file(self, path, to):
        """Uploads and sends the link, as its users' programs do."""
        link = await self.plugin["xep_0363"].upload_file(path)
        self.send_link(link, to)
        return link

    def send_link(self, link, to):
        """Sends a link."""
        message = self.make_message(mto=f"{to}@{DOMAIN}", mbody=link, mtype="chat")
        message["oob"]["url"] = link
        message.send()


async def suite(bed, server, report):
    server.start()
    server.accounts("alice", "bob")
    slotd = Slotd(bed, server)
    slotd.start()
    bob = Person(server, "bob")
    await bob.come_online()
    for name, send in [("slixmpp", _slixmpp), ("go-sendxmpp", _go_sendxmpp),
                       ("profanity", _profanity)]:
        path = bed.dir / f"from {name}.bin"
        body = os.urandom(3_000_000)
        path.write_bytes(body)
        start = asyncio.get_running_loop().time()
        words = ""
        try:
            words = await send(bed, server, path)
            link = await asyncio.wait_for(bob.links.get(), ARRIVES_WITHIN_S)
        except asyncio.TimeoutError:
            report.check(False, f"{name}: the link reaches bob", f"no link\n{words}")
            continue
        except Exception as error:  # whatever a client's library throws is a failed upload
            report.check(False, f"{name}: sends the file", f"{type(error).__name__}: {error}")
            continue
        took_s = asyncio.get_running_loop().time() - start
        answer = await web.get(link)
        report.check(answer.sha256 == web.sha256(body), f"{name} to slixmpp: same SHA-256",
                     f"{len(answer.body)} bytes in {took_s:.2f} s")
    await _to_go_sendxmpp(bed, server, report, bob)
    await bob.disconnect()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


async def _slixmpp(_bed, server, path):
    alice = Person(server, "alice")
    await alice.come_online()
    await alice.send_file(path, "bob")
    await alice.disconnect()
    return ""


def _go_argv(server, user, *words):
    return ["go-sendxmpp", "-n", "-u", f"{user}@{DOMAIN}", "-p", PASSWORD,
            "-j", f"127.0.0.1:{server.c2s_port}", *words]


async def _go_sendxmpp(bed, server, path):
    return await asyncio.to_thread(
        run, *_go_argv(server, "alice", "-h", path, f"bob@{DOMAIN}"), timeout=60, cwd=bed.dir,
        env={**os.environ, "HOME": str(bed.dir)})


async def _to_go_sendxmpp(bed, server, report, bob):
    """The other way round: go-sendxmpp listens, slixmpp sends."""
    server.account("carol")
    path = bed.dir / "for carol.bin"
    body = os.urandom(1_000_000)
    path.write_bytes(body)
    listener = bed.process("go-sendxmpp-listen", _go_argv(server, "carol", "-l"),
                           env={"HOME": str(bed.dir)})
    listener.start()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ARRIVES_WITHIN_S
    links = []
    link = await bob.send_file(path, "carol")
    while not links and loop.time() < deadline:
        # What was sent before carol listened may never be shown to her.
        bob.send_link(link, "carol")
        await asyncio.sleep(0.2)
        links = URL.findall(listener.tail())
    listener.stop()
    if not report.check(links, "slixmpp to go-sendxmpp: the link arrives", ""):
        return
    answer = await web.get(links[0])
    report.equal(answer.sha256, web.sha256(body), "slixmpp to go-sendxmpp: SHA-256")


class Terminal:
    """A terminal program under a tmux of its own."""

    def __init__(self, bed, name, script):
        self.socket = str(bed.dir / f"{name}.tmux")
        start = bed.dir / f"{name}.sh"
        start.write_text(script)
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "160", "-y", "50",
                   f"sh {start}")
        bed.cleanups.append(self.close)

    def _tmux(self, *words):
        return subprocess.run(["tmux", "-S", self.socket, *words], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def type(self, line):
        """Types a line."""
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def interrupt(self):
        """Ctrl-C."""
        self._tmux("send-keys", "C-c")

    def screen(self):
        """What is seen."""
        return "\n".join(line for line in self._tmux("capture-pane", "-p").splitlines()
                         if line.strip())

    async def sees(self, *words, within_s=ARRIVES_WITHIN_S):
        """Waits until one of the words is seen."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while not any(word in self.screen() for word in words):
            if loop.time() > deadline:
                raise Trouble(f"never saw {words}:\n{self.screen()}")
            await asyncio.sleep(0.05)

    def close(self):
        """Ends the tmux server and what runs in it."""
        self._tmux("kill-server")


async def _profanity(bed, server, path):
    home = bed.sub("profanity-home")
    plain = home / "from-profanity.bin"
    shutil.copy(path, plain)
    terminal = Terminal(bed, "profanity", f"export HOME={home} XDG_CONFIG_HOME={home} "
                        f"XDG_DATA_HOME={home} LANG=C.UTF-8\nexec profanity\n")
    await terminal.sees("Type '/help'")
    terminal.type(f"/connect alice@{DOMAIN} server 127.0.0.1 port {server.c2s_port} tls trust")
    await terminal.sees("Enter password")
    terminal.type(PASSWORD)
    await terminal.sees("logged in successfully")
    terminal.type(f"/msg bob@{DOMAIN} hello")
    await terminal.sees("hello")
    for _ in range(ARRIVES_WITHIN_S // 5):
        # Until it has looked at the server's services it says, in another window, there are none.
        terminal.type(f"/sendfile {plain}")
        try:
            await terminal.sees("http://", "failed", "Unable", within_s=5)
            break
        except Trouble:
            continue
    screen = terminal.screen()
    terminal.type("/quit")
    return screen
