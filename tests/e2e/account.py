"""Account: two slotd without a component secret, as two resources of one account, behind Prosody's
mod_client_proxy where it is there, and behind slotd's own relay; one is killed among the uploads."""

import asyncio
import os
from urllib.parse import urlsplit

import client_proxy
import issued
import web
from bed import DOMAIN, PASSWORD, SERVICE, Trouble, as_shipped
from clients import Person
from commands import Commander, notes
from daemon import Slotd
from sessions import NEVER, announced, asked, query, refusal
from xmpp import Client, Refused, read_slot

TARGET = f"slotd@{DOMAIN}"
N_FILES = 50
N_BEFORE_THE_KILL = 20
N_AT_A_TIME = 4
# Of a request that mod_client_proxy sends nowhere nobody hears again.
ANSWER_WITHIN_S = 2
TRIES = 60
# By chance all of so many would reach the right one of two nodes once in 64 times.
N_ASKED = 6
MOD_CLIENT_PROXY = "mod_client_proxy"
ITEM_NOT_FOUND = "cancel item-not-found unknown-session"


class Node(Slotd):
    """A slotd that is logged in as the account."""

    def __init__(self, bed, server, name):
        super().__init__(bed, server, name, account={
            "jid": TARGET, "server": f"127.0.0.1:{server.c2s_port}",
            "ca": str(bed.dir / "tls.crt"), "password_file": str(bed.sub(name) / "password"),
            "resource": name, "relay": SERVICE,
        }, operators={"jids": [f"admin@{DOMAIN}"]})
        password = self.dir / "password"
        password.write_text(PASSWORD + "\n")
        password.chmod(0o600)
        del self.tables["component"]
        self.write()


class Relay(Slotd):
    """A slotd that is the relay and nothing else."""

    def __init__(self, bed, server):
        secret = bed.sub("relay") / "component.secret"
        super().__init__(bed, server, "relay", relay={
            "jid": SERVICE, "server": f"127.0.0.1:{server.component_port}",
            "secret_file": str(secret), "target": TARGET,
        })
        del self.tables["component"]
        self.write()


async def suite(bed, server, report):
    server.start()
    server.accounts("alice", "bob", "admin", "slotd")
    nodes = [Node(bed, server, "node-1"), Node(bed, server, "node-2")]
    await _without_relay(server, nodes[0], report)
    if server.name == "prosody":
        modules = client_proxy.directory()
        if modules is None:
            report.skip("behind mod_client_proxy", client_proxy.why_not())
        else:
            shipped = as_shipped("prosody/slotd.cfg.lua")
            text = server.conf.read_text()
            proxied = text.replace(shipped, as_shipped(
                "prosody/account.cfg.lua", **{"slotd@example__org": TARGET}))
            server.stop()
            server.conf.write_text(f'plugin_paths = {{ "{modules}" }}\n{proxied}')
            server.start()
            await _behind(bed, server, nodes, MOD_CLIENT_PROXY, report)
            server.stop()
            server.conf.write_text(text)
            server.start()
    relay = Relay(bed, server)
    relay.start()
    await _behind(bed, server, nodes, "slotd's relay", report)
    report.equal(relay.stop(), 0, "SIGTERM ends the relay with")


async def _without_relay(server, node, report):
    """The log-in alone, and what strangers get who know the account's full address."""
    status, words = node.command("check", "--connect")
    report.check(status == 0 and f"{TARGET}: logged in" in words,
                 "slotd check --connect logs in as the account", words.splitlines()[-1])
    node.start()
    bob = await Client.login(server, "bob")
    outcome = ""
    for _ in range(TRIES):
        outcome = await _told(bob, "<query xmlns='http://jabber.org/protocol/disco#info'/>",
                              to=f"{TARGET}/{node.name}")
        if "is online" in node.process.tail(1000):
            break
        await asyncio.sleep(0.1)
    else:
        raise Trouble("the node never logs in")
    outcome = await _told(bob, "<request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'/>",
                          to=f"{TARGET}/{node.name}")
    report.equal(outcome, "cancel/service-unavailable", "a stranger's request to the account gets")
    await bob.close()
    report.equal(node.stop(), 0, "SIGTERM ends a node with")


async def _told(client, payload, **more):
    """The error that a request gets, in short."""
    try:
        await client.iq(payload, within_s=ANSWER_WITHIN_S, **more)
    except Refused as refused:
        return f"{refused.kind}/{refused.condition}"
    except asyncio.TimeoutError:
        return "silence"
    return ""


def _node_of(nodes, url):
    """Which slotd a URL leads to."""
    port = urlsplit(url).port
    return next(node.name for node in nodes if node.port == port)


async def _behind(bed, server, nodes, relay, report):
    report.note(f"behind {relay}:")
    for node in nodes:
        node.start()
    bob = await Client.login(server, "bob", "phone")
    await _both_known(bob, nodes)
    await _commands(server, report)
    await _session(bob, nodes, report)
    if relay != MOD_CLIENT_PROXY:
        await _found(server, bob, report)
    alice = Person(server, "alice")
    await alice.come_online()
    info = await alice.plugin["xep_0363"].find_upload_service(timeout=10)
    report.equal(str(info["from"]), SERVICE, "slixmpp discovers")
    await _uploads(bed, alice, nodes, relay, report)
    await alice.disconnect()
    await bob.close()
    await _alone(server, report)
    codes = [node.stop() for node in nodes]
    report.equal(codes, [0, 0], f"behind {relay}, SIGTERM ends both nodes with")


async def _both_known(bob, nodes):
    """Until both give out slots."""
    seen = set()
    for _ in range(10 * TRIES):
        try:
            slot = await bob.slot("a.bin", 1, within_s=ANSWER_WITHIN_S)
            seen.add(_node_of(nodes, slot.put))
        except (Refused, asyncio.TimeoutError):
            await asyncio.sleep(0.1)
        if len(seen) == len(nodes):
            return
    raise Trouble(f"of the nodes only {seen} give out slots")


async def _commands(server, report):
    """A command of one stage goes to whichever node."""
    admin = Commander(server, "admin")
    await admin.come_online()
    offered = await admin.offered()
    report.check("overview" in offered, "an operator is offered commands", len(offered))
    command = await admin.run("overview")
    report.check(command["status"] == "completed", "an operator's command of one stage",
                 notes(command) or command["status"])
    await admin.disconnect()


async def _session(bob, nodes, report):
    """A session is known to the node that began it: the other says so, and it is asked again."""
    body = os.urandom(100_000)
    slot, session = await announced(bob, "film.bin", len(body), within_s=ANSWER_WITHIN_S)
    node = _node_of(nodes, slot.put)
    others = 0
    for _ in range(TRIES):
        try:
            answer = await bob.iq(asked("refresh", session["id"]), kind="set",
                                  within_s=ANSWER_WITHIN_S)
            break
        except Refused as refused:
            apps = [app.tag.partition("}")[2] for app in refused.app]
            outcome = " ".join([refused.kind, refused.condition, *apps])
            if outcome != ITEM_NOT_FOUND:
                raise Trouble(f"a refresh gets {outcome}") from None
            others += 1
    slot = read_slot(answer[0])
    report.equal(_node_of(nodes, slot.put), node,
                 f"refreshed (the other node said {others} times that it knows no such session), by")
    answer = await web.put(slot, body)
    report.equal(answer.status, 201, "the PUT of the refreshed slot")
    answer = await web.get(slot.get)
    report.check(answer.sha256 == web.sha256(body), "and the same bytes come back")


async def _found(server, bob, report):
    """Our relay finds the node that has a session, or a command under way."""
    _, session = await announced(bob, "found.bin", 1000)
    lost = 0
    for _ in range(N_ASKED):
        try:
            await query(bob, session["id"])
        except Refused:
            lost += 1
    report.equal(lost, 0, f"of {N_ASKED} queries of a session those that did not find its node")
    report.equal(await refusal(bob, "session", NEVER), ITEM_NOT_FOUND, "a session that nobody has")
    admin = Commander(server, "admin")
    await admin.come_online()
    form = {"who": f"carol@{DOMAIN}", "for": "1 hour", "why": "a test"}
    ends = [(await admin.run("ban", form))["status"] for _ in range(N_ASKED)]
    report.equal(ends, N_ASKED * ["completed"], "commands of two stages with two nodes")
    await admin.disconnect()


async def _uploads(bed, alice, nodes, relay, report):
    """50 files, each sent until it is there; after 20 of them one node is killed."""
    links, troubles, places = {}, {}, asyncio.Semaphore(N_AT_A_TIME)
    killed = asyncio.Event()

    async def send(number, path):
        async with places:
            for _ in range(TRIES):
                try:
                    links[number] = await alice.plugin["xep_0363"].upload_file(
                        path, timeout=ANSWER_WITHIN_S)
                    break
                except Exception as error:  # whatever a client's library throws is tried again
                    name = type(error).__name__
                    troubles[name] = troubles.get(name, 0) + 1
            if len(links) >= N_BEFORE_THE_KILL and not killed.is_set():
                killed.set()
                nodes[0].kill()

    files = {}
    for number in range(N_FILES):
        path = bed.dir / f"photo-{number}.bin"
        path.write_bytes(os.urandom(20_000 + number))
        files[number] = path
    await asyncio.gather(*(send(number, path) for number, path in files.items()))
    by_node = {node.name: [number for number, link in links.items()
                           if _node_of(nodes, link) == node.name] for node in nodes}
    counts = {name: len(numbers) for name, numbers in by_node.items()}
    report.equal(len(links), N_FILES, f"files sent behind {relay}, one node killed after "
                                      f"{N_BEFORE_THE_KILL} of")
    report.check(all(counts.values()), "both nodes served some", counts)
    report.note(f"tried again: {troubles or 'nothing'}")
    report.check(killed.is_set() and not nodes[0].process.running(), "one was killed in between")
    report.equal(await _whole(files, links, by_node["node-2"]), counts["node-2"],
                 "files that the other node has")
    nodes[0].start()
    report.equal(await _whole(files, links, by_node["node-1"]), counts["node-1"],
                 "files that the killed one has when it is back")
    nodes[0].stop()


async def _whole(files, links, numbers):
    """How many come back as they were sent."""
    n_whole = 0
    for number in numbers:
        issued.remember(links[number])
        answer = await web.get(links[number])
        n_whole += answer.sha256 == web.sha256(files[number].read_bytes())
    return n_whole


async def _alone(server, report):
    """With one node what takes several steps works each time, across a restart of the server."""
    bob = await Client.login(server, "bob", "phone")
    slot, session = await _patiently(lambda: announced(
        bob, "alone.bin", 1000, within_s=ANSWER_WITHIN_S))
    await bob.close()
    server.stop()
    server.start()
    bob = await Client.login(server, "bob", "phone")
    took_s = await bob.service_up()
    report.note(f"there again {took_s:.1f} s after the XMPP server")
    answer = await bob.iq(asked("refresh", session["id"]), kind="set")
    answer = await web.put(read_slot(answer[0]), bytes(1000))
    report.equal(answer.status, 201, "an upload session goes on across the restart, and its PUT")
    report.equal(await refusal(bob, "session", NEVER), ITEM_NOT_FOUND, "a session that nobody has")
    admin = Commander(server, "admin")
    await admin.come_online()
    command = await admin.run("ban", {"who": f"carol@{DOMAIN}", "for": "1 hour", "why": "a test"})
    report.check(command["status"] == "completed", "an operator's command of two stages",
                 notes(command))
    command = await admin.run("unban", {"who": f"carol@{DOMAIN}"})
    report.check(command["status"] == "completed", "and another", notes(command))
    command = await admin.run("self-test")
    report.equal(notes(command), "All is well", "the server answered the ping of the self-test")
    await admin.disconnect()
    await bob.close()


async def _patiently(ask):
    """Asks again where nobody answers."""
    for _ in range(TRIES):
        try:
            return await ask()
        except asyncio.TimeoutError:
            continue
    raise Trouble("nobody answers")
