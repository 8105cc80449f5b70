"""Relay: the dialogue in mod_client_proxy's README, beside that module where it is there; resources
that die, replies that nobody waits for, an even spread, and restarts of everything."""

import asyncio
import signal

import client_proxy
from bed import DOMAIN, NEIGHBOR, Trouble
from metrics import Watched
from relay_client import NS, Account, Node, shown, told

ORIGINAL = "proxy.localhost"
TARGET = f"service@{DOMAIN}"
SPREAD = 1000
# Many at once, and less than one user may have.
AT_ONCE = 50
SPREAD_SINGLY = 200
RESOURCES = ("a", "b", "c")

MIXED = (f"<query xmlns='{NS}' a='1' xml:lang='de'>Gr\u00fc\u00dfe <b xmlns='urn:other'>eins "
         "<c/>zwei</b>&amp; \U0001f980<!--not this--></query>").replace("<!--not this-->", "")
# Words, stanza of the requester (HOST is the relay), and whether it reaches a node.
DIALOGUE = [
    ("a get", f"<iq type='get' id='d1' to='HOST'><query xmlns='{NS}'/></iq>", True),
    ("a set", f"<iq type='set' id='d2' to='HOST'><query xmlns='{NS}'><x>1</x></query></iq>", True),
    ("an error for an answer",
     f"<iq type='get' id='d3' to='HOST'><query xmlns='{NS}' wants='error'/></iq>", True),
    ("mixed content, languages, other namespaces",
     f"<iq type='get' id='d4' to='HOST'>{MIXED}</iq>", True),
    ("disco#info", "<iq type='get' id='d5' to='HOST'>"
     "<query xmlns='http://jabber.org/protocol/disco#info'/></iq>", True),
    ("disco#items", "<iq type='get' id='d6' to='HOST'>"
     "<query xmlns='http://jabber.org/protocol/disco#items'/></iq>", True),
    ("a ping", "<iq type='get' id='d7' to='HOST'><ping xmlns='urn:xmpp:ping'/></iq>", True),
    ("a slot request", "<iq type='get' id='d8' to='HOST'>"
     "<request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'/></iq>", True),
    ("a message", "<message id='d9' to='HOST' type='chat'><body>hello</body></message>", False),
    ("a presence", "<presence id='d10' to='HOST'/>", False),
    ("a request to join", "<presence id='d11' to='HOST' type='subscribe'/>", False),
]


async def suite(bed, server, report):
    original = _add_original(server)
    server.start()
    server.accounts("romeo", "service")
    watched = Watched(bed, server)
    slotd = watched.slotd
    secret = bed.dir / "slotd" / "component.secret"
    slotd.tables["relay"] = {
        "jid": NEIGHBOR, "server": f"127.0.0.1:{server.neighbor_port}",
        "secret_file": str(secret), "target": TARGET}
    slotd.write()
    status, words = slotd.command("check", "--connect")
    report.check(status == 0 and f"{NEIGHBOR}: logged in" in words and f", to {TARGET}" in words,
                 "slotd check --connect logs in as the relay too", words.splitlines()[-1])
    slotd.start()
    romeo = await Account(server, "romeo", "phone").come_online()
    await _streams_up(watched)
    report.equal(told(await romeo.ask(NEIGHBOR)), "cancel/service-unavailable",
                 "while nobody is there, an ask gets")
    _status, page = await watched.get("/")
    report.check("no resource is known" in page, "and the status page says why")
    nodes = [await Node(server, name).come_online() for name in RESOURCES]
    await _known(watched, len(nodes))
    hosts = [NEIGHBOR]
    if original:
        await _original_ready(romeo, nodes)
        hosts.append(ORIGINAL)
    else:
        report.skip("the same beside mod_client_proxy", _why_not(server))
    await _dialogue(romeo, nodes, hosts, report)
    await _spread(romeo, nodes, hosts, report)
    await _of_the_target(romeo, nodes, hosts, report)
    nodes = await _dying(server, watched, romeo, nodes, hosts, report)
    await _waited_for(watched, romeo, nodes, report)
    nodes, romeo = await _restarts(server, watched, romeo, nodes, report)
    for person in [romeo, *nodes]:
        await person.disconnect()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


def _why_not(server):
    return client_proxy.why_not() if server.name == "prosody" else "it is Prosody's"


def _add_original(server):
    """Has Prosody load its own module too, where there is one."""
    path = client_proxy.directory() if server.name == "prosody" else None
    if path is None:
        return False
    text = server.conf.read_text()
    server.conf.write_text(f'plugin_paths = {{ "{path}" }}\n{text}\n'
                           f'Component "{ORIGINAL}" "client_proxy"\n'
                           f'\ttarget_address = "{TARGET}"\n')
    return True


async def _streams_up(watched):
    series = [f'slotd_streams{{component="{host}"}}' for host in (NEIGHBOR, "upload.localhost")]
    await watched.until("both streams are up",
                        lambda it: all(it.get(name) == 1 for name in series))


async def _known(watched, n):
    await watched.until(f"{n} resources are known",
                        lambda it: it["slotd_relay_resources"] == n)


async def _original_ready(romeo, nodes):
    """It asks for presence once, as Prosody starts, when its target's host may not be there yet:
    presence is sent to it by hand. It tells nobody how many it knows."""
    for node in nodes:
        node.send_presence(pto=ORIGINAL)
    for _ in range(300):
        if not told(await romeo.ask(ORIGINAL)):
            return
        await asyncio.sleep(0.1)
    raise Trouble("mod_client_proxy knows no resource")


async def _dialogue(romeo, nodes, hosts, report):
    """Each stanza, what a node sees of it, and what comes back."""
    for words, stanza, reaches in DIALOGUE:
        outcomes = [await _exchange(romeo, nodes, host, stanza, reaches) for host in hosts]
        passed, back = outcomes[0]
        report.check((passed != "-") == reaches and back != "-", f"{words} gets its answer",
                     f"{passed} ... {back}")
        if len(hosts) == 2:
            report.check(outcomes[0] == outcomes[1], f"{words}: the same with mod_client_proxy",
                         "" if outcomes[0] == outcomes[1] else outcomes[1])


async def _exchange(romeo, nodes, host, stanza, reaches):
    for person in [romeo, *nodes]:
        person.seen.clear()
    id = stanza.split("id='")[1].split("'")[0]
    romeo.send_raw(stanza.replace("HOST", host))
    back = await romeo.first(lambda xml: xml.get("id") == id
                             and xml.get("type") in ("result", "error"), 10)
    passed = None
    for node in nodes:
        for xml in node.seen:
            if xml.get("id") == id and xml.get("type") in ("get", "set"):
                passed = xml
    return shown(passed, host), shown(back, host)


async def _spread(romeo, nodes, hosts, report):
    """Many at once go where the least is under way, one after the other go anywhere."""
    for n_asks, at_once in [(SPREAD, AT_ONCE), (SPREAD_SINGLY, 1)]:
        for host in hosts:
            for node in nodes:
                node.asked.clear()
            turns = asyncio.Semaphore(at_once)

            async def one():
                async with turns:
                    return told(await romeo.ask(host))
            answers = await asyncio.gather(*(one() for _ in range(n_asks)))
            counts = [len(node.asked) for node in nodes]
            words = f"{n_asks} asks, {at_once} at once, over {len(nodes)} resources"
            if host == ORIGINAL:
                report.note(f"mod_client_proxy, {words}: {counts}")
                continue
            report.equal([word for word in answers if word], [], "errors among them")
            off = max(abs(count - n_asks / len(nodes)) for count in counts)
            # Five standard deviations of what chance alone would give.
            chance = 5 * (n_asks * 2 / 9) ** 0.5
            report.check(sum(counts) == n_asks and off <= chance, f"{words}: even", counts)


async def _of_the_target(romeo, nodes, hosts, report):
    """What the account behind it cannot do: speak to anybody who has not asked, or ask itself."""
    node = nodes[0]
    for host in hosts:
        romeo.seen.clear()
        address = f"{host}/{romeo.boundjid.full}"
        payload = f"<query xmlns='{NS}'/>"
        for kind in ("result", "error"):
            node.send_raw(f"<iq type='{kind}' id='unsolicited' to='{address}'>{payload}</iq>")
        asked = told(await node.ask(address))
        own = told(await node.ask(host))
        # What was sent before it has arrived, if it arrives.
        answer = told(await romeo.ask(host))
        strays = [xml for xml in romeo.seen if xml.get("id") == "unsolicited"]
        if host == ORIGINAL:
            report.note(f"mod_client_proxy: {len(strays)} of 2 unsolicited replies reach romeo")
        else:
            report.equal(len(strays), 0, "unsolicited replies that reach romeo")
            report.equal(answer, "", "what was asked is answered all the same")
        name = "mod_client_proxy" if host == ORIGINAL else "the relay"
        report.equal((asked, own), ("cancel/feature-not-implemented", "cancel/bad-request"),
                     f"what a node asks through {name}, and of {name} itself, gets")


async def _dying(server, watched, romeo, nodes, hosts, report):
    """A resource dies with requests pending."""
    for host in reversed(hosts):
        for node in nodes:
            node.is_holding = node is nodes[0]
            node.held.clear()
        kinds = ["get", "get", "set"] * 10
        within_s = 30 if host == NEIGHBOR else 3
        asks = [asyncio.ensure_future(romeo.ask(host, kind, within_s=within_s)) for kind in kinds]
        while not any(xml.get("type") == "set" for xml in nodes[0].held):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        held = [xml.get("type") for xml in nodes[0].held]
        nodes[0].die()
        answers = [told(answer) for answer in await asyncio.gather(*asks)]
        counts = {word: answers.count(word) for word in sorted(set(answers))}
        words = f"a resource dies with {held.count('get')} gets and {held.count('set')} sets pending"
        if host == ORIGINAL:
            report.note(f"mod_client_proxy, {words}, answers within {within_s} s: {counts}")
        else:
            wanted = {"": len(kinds) - held.count("set"),
                      "wait/recipient-unavailable": held.count("set")}
            report.equal(counts, wanted, f"{words}: the gets are asked again, the sets are told")
        nodes[0] = await Node(server, RESOURCES[0]).come_online()
        await _known(watched, len(nodes))
        if ORIGINAL in hosts:
            await _original_ready(romeo, nodes)
    return nodes


async def _waited_for(watched, romeo, nodes, report):
    """Requests wait so long, which can be changed while all goes on."""
    slotd = watched.slotd
    slotd.tables["relay"].update(answer_within="1 second", target=f"romeo@{DOMAIN}")
    slotd.write()
    slotd.process.child.send_signal(signal.SIGHUP)
    await watched.until("the configuration is read again",
                        lambda it: it['slotd_reloads_total{outcome="taken"}'] == 1)
    slotd.tables["relay"]["target"] = TARGET
    slotd.write()
    report.check("relay.target takes a restart" in slotd.process.log.read_text(),
                 "another target in the file is told to take a restart")
    for node in nodes:
        node.is_holding = True
        node.held.clear()
    report.equal(told(await romeo.ask(NEIGHBOR, id="late")), "wait/remote-server-timeout",
                 "an ask that nobody answers gets, after a reload of relay.answer_within,")
    romeo.seen.clear()
    for node in nodes:
        node.is_holding = False
        for xml in node.held:
            node.answer(xml)
    report.equal(told(await romeo.ask(NEIGHBOR)), "", "the next one is answered")
    late = [xml for xml in romeo.seen if xml.get("id") == "late"]
    report.equal(len(late), 0, "answers that came too late and passed")
    figures = await watched.figures()
    fates = {series.split('"')[1]: int(value) for series, value in figures.items()
             if series.startswith("slotd_relayed_total")}
    report.check(fates["timed-out"] == 1 and fates["dropped"] >= 3 and fates["retry"] >= 1,
                 "metrics count it", fates)
    report.equal(figures["slotd_relay_pending"], 0, "asks that still wait")


async def _restarts(server, watched, romeo, nodes, report):
    """Both ends of the stream go and come: the resources are found again."""
    slotd = watched.slotd
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    slotd.start()
    await _known(watched, len(nodes))
    report.equal(told(await romeo.ask(NEIGHBOR)), "",
                 f"after a restart of slotd the {len(nodes)} resources that stayed are found")
    for person in [romeo, *nodes]:
        await person.disconnect()
    await asyncio.to_thread(server.stop)
    server.start()
    romeo = await Account(server, "romeo", "phone").come_online()
    nodes = [await Node(server, name).come_online() for name in RESOURCES]
    await _known(watched, len(nodes))
    report.equal(told(await romeo.ask(NEIGHBOR)), "",
                 f"after a restart of {server.name} the {len(nodes)} resources are found")
    said = slotd.process.log.read_text()
    report.equal(said.count("panicked"), 0, "panics in slotd's log")
    return nodes, romeo
