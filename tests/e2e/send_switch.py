"""slotd send on a phone that changes its network in mid-upload, with XMPP and HTTP over the same
network; what its user sees meanwhile; and the XMPP server found by DNS."""

import asyncio
import json
import os
import shlex
import subprocess

import network
import web
from bed import DOMAIN, PASSWORD, SERVICE, free_port, run
from clients import Terminal
from network import SERVER, Network, address
from send import MIB, File, Sender, _begun, _link
from xmpp import Client

SIZE = 8 * MIB
RATE = "2MiB"
# Between the end of a path and the moment the phone has another.
UNAWARE_S = 0.3
# From another network's first moment until bytes come over it.
NOTICED_WITHIN_S = 2.0
TWICE_MAX = MIB
WITHIN_S = 60
DOMAINS = {"starttls.test": "_xmpp-client", "direct.test": "_xmpps-client"}
NOWHERE = "nowhere.test"


class PhoneSender(Sender):
    """Runs of slotd send on the phone."""

    def __init__(self, bed, server, net):
        super().__init__(bed, server)
        self.net = net

    def argv(self, *words):
        argv = super().argv(*words)
        argv[argv.index("--server") + 1] = f"{SERVER}:{self.server.c2s_port}"
        return argv

    def start(self, *words, **more):
        return self.net.start(self.argv(*words), text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**self.env, **more})


async def suite(bed, server, report):
    if why := network.why_not():
        report.skip("slotd send over a change of network", why)
        return
    direct_port = free_port()
    text = server.conf.read_text()
    text = text.replace('interfaces = { "127.0.0.1" }',
                        f'interfaces = {{ "127.0.0.1", "{SERVER}" }}\n'
                        f"c2s_direct_tls_ports = {{ {direct_port} }}", 1)
    text += "".join(f'\nVirtualHost "{domain}"\n' for domain in DOMAINS)
    server.conf.write_text(text)
    with Network() as net:
        net.prefer("wifi")
        server.start()
        server.accounts("alice", "bob")
        for domain in DOMAINS:
            run("prosodyctl", "--config", server.conf, "register", "alice", domain, PASSWORD)
        slotd = with_tls(bed, server)
        slotd.start()
        bob = await Client.login(server, "bob")
        await bob.service_up()
        sender = PhoneSender(bed, server, net)
        for part in (_switches, _seen, _found):
            if os.environ.get("E2E_ONLY", "") in part.__name__:
                await part(bed, net, sender, slotd, bob, report)
        await bob.close()
        slotd.stop()


def with_tls(bed, server):
    """slotd at the phones' address, with TLS, and for accounts of any domain."""
    slotd = network.slotd_at(bed, server, access={"domains": [DOMAIN, *DOMAINS]})
    slotd.tables["http"] |= {"public_url": f"https://{SERVER}:{slotd.port}/", "insecure": False,
                             "tls": {"certificate": str(bed.dir / "tls.crt"),
                                     "key": str(bed.dir / "tls.key")}}
    slotd.write()
    return slotd


def fetched(url):
    """The digest of what a link gives."""
    done = subprocess.run(["curl", "--silent", "--insecure", "--fail", url], check=True,
                          stdout=subprocess.PIPE)
    return web.sha256(done.stdout)


def lose(net, kind):
    """Wi-Fi goes in this way; the phone has no other network yet."""
    if kind == "down":
        net.unplug("wifi")
    else:
        net.cut(address("wifi", 0))


def restore(net):
    """Wi-Fi is there again, and what the phones prefer."""
    net.heal(address("wifi", 0))
    net.plug("wifi")
    net.prefer("wifi")


async def _switches(bed, net, sender, slotd, bob, report):
    for kind, away_s in [("silent", UNAWARE_S), ("down", 0), ("down, and nothing else", 3)]:
        file = File(bed, f"{kind}.bin", SIZE)
        sending = sender.start(file.path, "--to", f"bob@{DOMAIN}", "--json", "--rate-max", RATE)
        await _begun(slotd, SIZE // 3)
        loop = asyncio.get_running_loop()
        lose(net, kind.split(",")[0])
        await asyncio.sleep(away_s)
        with net.witness(address("lte", 0)) as witness:
            net.prefer("lte")
            moved_at = loop.time()
            while witness.n_bytes == 0 and loop.time() < moved_at + WITHIN_S:
                await asyncio.sleep(0.01)
            noticed_s = loop.time() - moved_at
        status, out, err = await sender.end(sending)
        restore(net)
        if not report.check(status == 0, f"{kind}: exit status", f"{status} {err.strip()}"):
            continue
        told = json.loads(out)
        report.note(out.strip())
        body, url, _ = await _link(bob)
        report.check(body == url == told["url"], f"{kind}: the message arrives")
        report.equal(fetched(told["url"]), file.sha256, f"{kind}: the same bytes are there")
        report.check(noticed_s < NOTICED_WITHIN_S, f"{kind}: bytes come over the other network",
                     f"{noticed_s:.2f} s after it was there")
        report.check(told["sent_twice_bytes"] <= TWICE_MAX, f"{kind}: bytes sent twice, at most "
                     f"{TWICE_MAX}", told["sent_twice_bytes"])
        report.check(told["network_changes"] == 1 and told["attempts"] == 2,
                     f"{kind}: one change of network, two transfers",
                     f"{told['network_changes']}, {told['attempts']}")


async def _seen(bed, net, sender, slotd, bob, report):
    """The bar in mid-switch, on terminals of each width."""
    for columns in (120, 80, 40):
        files = [File(bed, f"a holiday film of {columns} columns, {n}.mp4", 4 * MIB)
                 for n in (1, 2)]
        words = shlex.join(sender.argv(*(file.path for file in files), "--to", f"bob@{DOMAIN}",
                                       "--rate-max", "1MiB"))
        # It waits for a line, so that the terminal has its width before the bar has.
        script = (f"read _\nexport SLOTD_PASSWORD={PASSWORD} HOME={sender.home} LANG=C.UTF-8 "
                  f"XDG_STATE_HOME={sender.home}/state\n{words}\necho status $?\nsleep 600\n")
        with net._in(net.phones):
            terminal = Terminal(bed, f"seen-{columns}", script)
        terminal._tmux("resize-window", "-x", str(columns), "-y", "20")
        terminal.type("")
        await _begun(slotd, MIB)
        screens = [terminal.screen()]
        lose(net, "silent")
        await asyncio.sleep(1.8)
        screens.append(terminal.screen())
        colored = terminal._tmux("capture-pane", "-p", "-e")
        net.prefer("lte")
        await asyncio.sleep(1.2)
        screens.append(terminal.screen())
        await terminal.sees("status 0", within_s=WITHIN_S)
        screens.append(terminal.screen())
        restore(net)
        for at, screen in zip(("before", "in mid-switch", "after", "at the end"), screens):
            report.note(f"{columns} columns, {at}:\n{screen}")
        report.check("\x1b[3" not in colored, f"{columns} columns: no colors", repr(colored[-300:]))
        report.check("stalled for 1 s" in screens[1], f"{columns} columns: a stall is told")
        lines = [line for line in screens[3].splitlines() if "/4.0 MiB" in line]
        report.equal(lines, [], f"{columns} columns: no bar is left at the end")
        report.equal(screens[3].count("status 0"), 1, f"{columns} columns: both files are sent")
        terminal.close()
        for _ in files:
            await _link(bob)


async def _found(bed, net, sender, _slotd, _bob, report):
    """The XMPP server's SRV records, for STARTTLS and for TLS from the first byte."""
    server, host = sender.server, "xmpp.example.test"
    text = server.conf.read_text()
    direct_port = int(text.partition("c2s_direct_tls_ports = { ")[2].split(" ")[0])
    ports = {"_xmpp-client": server.c2s_port, "_xmpps-client": direct_port}
    records = [f"--srv-host={service}._tcp.{domain},{host},{ports[service]},5"
               for domain, service in DOMAINS.items()]
    records.append(f"--srv-host=_xmpp-client._tcp.{NOWHERE}")
    names = bed.process("dnsmasq", [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
        "--user=root", "--pid-file=", "--bind-interfaces", "--except-interface=lo",
        f"--listen-address={SERVER}", "--local=/test/", f"--host-record={host},{SERVER}",
        "--log-queries", *records])
    names.start()
    resolv = bed.dir / "resolv.conf"
    resolv.write_text(f"nameserver {SERVER}\n")
    await asyncio.sleep(0.5)
    for domain in [*DOMAINS, NOWHERE]:
        file = File(bed, f"{domain}.bin", 100_000)
        argv = sender.argv(file.path, "--no-message", "--service", SERVICE, "--quiet")
        argv[argv.index("--account") + 1] = f"alice@{domain}"
        at = argv.index("--server")
        del argv[at:at + 2]
        # A mount namespace of its own, in which the name server is this one.
        script = f"mount --bind {resolv} /etc/resolv.conf && exec {shlex.join(argv)}"
        sending = net.start(["unshare", "--mount", "sh", "-c", script], text=True, env=sender.env,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
        status, out, err = await sender.end(sending)
        if domain == NOWHERE:
            report.check(status == 1 and "names no XMPP server" in err,
                         "a domain that says it has no XMPP server is not tried",
                         f"{status} {err.strip()}")
            continue
        if report.check(status == 0, f"{DOMAINS[domain]}._tcp.{domain} leads to the server",
                        f"{status} {err.strip()}"):
            report.equal(fetched(out.strip()), file.sha256, "and the same bytes are there")
    names.stop()
