"""Upload sessions beside a real server: what a client asks of its own, what a stranger gets, and an
upload that is refreshed while it runs."""

import asyncio
import os
import xml.etree.ElementTree as ET

import web
from bed import wait_until
from daemon import Slotd
from xmpp import DISCO_INFO, UPLOAD, Client, Refused, read_slot

SESSION = "urn:slotd:upload-session:0"
HASHES = "urn:xmpp:hashes:2"
MIB = 1024 * 1024
SIZE = 4 * MIB
# A name that no session has.
NEVER = "AAAAAAAAAAAAAAAAAAAAAA"
PAUSE_S = 5.5
APPEND = {"Content-Type": "application/partial-upload", "Upload-Complete": "?1"}


async def suite(bed, server, report):
    server.start()
    server.accounts("alice", "bob")
    slotd = Slotd(bed, server)
    slotd.start()
    alice = await Client.login(server, "alice", "phone")
    tablet = await Client.login(server, "alice", "tablet")
    bob = await Client.login(server, "bob")
    await alice.service_up()
    await _discovery(alice, report)
    await _slots(alice, report)
    await _refresh_of_a_running_put(alice, slotd, report)
    await _strangers(alice, bob, report)
    await _other_device(alice, tablet, report)
    await _headers_do_nothing(alice, report)
    await _cancel(alice, slotd, report)
    await _lost_reply(alice, report)
    await _digest(alice, report)
    for client in (alice, tablet, bob):
        await client.close()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")


def asked(name, id):
    """The payload of a request about a session."""
    return f"<{name} xmlns='{SESSION}' id='{id}'/>"


async def ask(client, name, id):
    """Asks about a session: the payload of the answer, if there is one."""
    result = await client.iq(asked(name, id), kind="get" if name == "session" else "set")
    return next(iter(result), None)


async def query(client, id):
    """How a session stands: its attributes."""
    return (await ask(client, "session", id)).attrib


async def announced(client, name, size, inner="", **more):
    """A slot with a session: both."""
    result = await client.iq(f"<request xmlns='{UPLOAD}' filename='{name}' size='{size}'>"
                             f"<session xmlns='{SESSION}'>{inner}</session></request>", **more)
    return read_slot(result), next(result.iter(f"{{{SESSION}}}session")).attrib


async def refresh(client, id):
    """New credentials: the slot and the session's attributes."""
    answer = await ask(client, "refresh", id)
    session = answer.find(f"{{{SESSION}}}session").attrib
    return (read_slot(answer) if answer.find(f"{{{UPLOAD}}}slot") is not None else None), session


async def refusal(client, name, id):
    """The error that a request about a session gets, in short."""
    try:
        await ask(client, name, id)
    except Refused as refused:
        apps = [app.tag.partition("}")[2] for app in refused.app if app.tag.startswith("{urn:s")]
        return " ".join([refused.kind, refused.condition, *apps])
    return "granted"


async def append(url, offset, body, **more):
    """The rest of a file, at its offset."""
    headers = {**APPEND, "Upload-Offset": str(offset)}
    return await web.request("PATCH", url, headers, body, **more)


async def _discovery(alice, report):
    info = await alice.iq(f"<query xmlns='{DISCO_INFO}'/>")
    features = {node.get("var") for node in info.iter() if node.tag.endswith("}feature")}
    wanted = {SESSION, *(f"{SESSION}#{part}" for part in ("list", "rufh", "tus", "digest"))}
    report.equal(sorted(wanted - features), [], "disco#info lacks of upload sessions' features")
    forms = {}
    for form in info.iter("{jabber:x:data}x"):
        fields = {field.get("var"): [value.text for value in field] for field in form}
        forms[fields.pop("FORM_TYPE")[0]] = fields
    report.equal(list(forms)[:2], [UPLOAD, SESSION], "the forms in their order")
    report.equal(forms.get(SESSION), {
        "slot-timeout": ["300"], "max-refreshes": ["10"], "max-session-age": ["259200"],
        "resume-protocols": ["rufh-8", "rufh-6", "rufh-5", "rufh-3", "tus-1.0"],
    }, "the form of upload sessions")


async def _slots(alice, report):
    slot, session = await announced(alice, "a.bin", 1000)
    report.check(session["id"] not in slot.put + slot.get + session["resume-url"],
                 "the session's name is in no URL")
    told = {name: value for name, value in session.items() if name not in ("id", "resume-url")}
    report.equal(told, {"state": "pending", "offset": "0", "size": "1000",
                        "token-expires-in": "300", "expires-in": "259200", "refreshes-left": "10"},
                 "the slot tells how its session stands")
    plain = await alice.iq(f"<request xmlns='{UPLOAD}' filename='a.bin' size='1000'/>")
    report.equal([child.tag for child in plain[0]], [f"{{{UPLOAD}}}put", f"{{{UPLOAD}}}get"],
                 "a plain slot has its two children and no more")
    listed = await alice.iq(f"<sessions xmlns='{SESSION}'/>")
    report.equal([node.get("id") for node in listed[0]], [session["id"]],
                 "the list has the announced one alone")
    view = await query(alice, session["id"])
    report.check(view["resume-url"] == session["resume-url"], "a query tells the same resume URL")
    answer = await web.put(slot, os.urandom(1000))
    report.equal(answer.status, 201, "its PUT")
    answer = await ask(alice, "session", session["id"])
    digest = answer.find(f"{{{HASHES}}}hash")
    report.check(answer.get("state") == "complete" and digest is not None,
                 "complete, with the digest", answer.get("state"))
    await alice.iq(asked("refresh", session["id"]), kind="set")
    listed = await alice.iq(f"<sessions xmlns='{SESSION}' state='pending'/>")
    report.equal(len(listed[0]), 0, "pending ones after that")


async def _refresh_of_a_running_put(alice, slotd, report):
    """The PUT is cut, what it brought is durable, and the rest goes to the new resume URL."""
    body = os.urandom(SIZE)
    slot, session = await announced(alice, "film.bin", SIZE)
    id, old_url = session["id"], session["resume-url"]
    reader, writer = await web.connect(slot.put)
    writer.write(web.head("PUT", slot.put, {"Content-Length": str(SIZE)}))
    writer.write(body[:SIZE // 2])
    await writer.drain()
    view = await _until_active(alice, id)
    report.check(view.get("active") == "true", "a query during the PUT says that it runs",
                 f"{view['offset']} of {SIZE} bytes durable")
    await asyncio.to_thread(wait_until, "half of it written",
                            lambda: _partial_bytes(slotd) == SIZE // 2)
    loop = asyncio.get_running_loop()
    start = loop.time()
    new, session = await refresh(alice, id)
    took_s = loop.time() - start
    offset = int(session["offset"])
    report.equal(offset, SIZE // 2, f"after {took_s * 1000:.0f} ms a refresh tells the final "
                 "offset, which is all that came")
    end = await asyncio.wait_for(_rest(reader), 60)
    report.check(b" 201 " not in end, "the PUT was cut", f"{len(end)} bytes of an answer")
    writer.close()
    report.check(new.get == slot.get and new.put != slot.put
                 and session["resume-url"] != old_url, "new credentials, and the same link")
    answer = await web.put(slot, body)
    report.equal(answer.status, 401, "a PUT with the old token")
    answer = await append(old_url, offset, body[offset:])
    report.equal(answer.status, 410, "a PATCH at the old resume URL")
    view = await query(alice, id)
    report.equal((view["offset"], view.get("active")), (str(offset), None),
                 "what was durable stays as it was told")
    answer = await append(session["resume-url"], offset, body[offset:])
    report.equal(answer.status, 201, "a PATCH at the new one, without asking for the offset")
    answer = await web.get(slot.get)
    report.check(answer.body == body, "the file is whole", f"{len(answer.body)} bytes")
    none, session = await refresh(alice, id)
    report.equal((none, session["state"]), (None, "complete"), "then a refresh gives no slot")


def _partial_bytes(slotd):
    sizes = slotd.files()
    return sum(sizes.get(name, 0) for name in slotd.partials())


async def _until_active(client, id):
    for _ in range(200):
        view = await query(client, id)
        if view.get("active") == "true":
            break
        await asyncio.sleep(0.02)
    return view


async def _rest(reader):
    """Whatever comes until the connection ends, however it does."""
    rest = b""
    try:
        while data := await reader.read(65536):
            rest += data
    except ConnectionError:
        pass
    return rest


async def _strangers(alice, bob, report):
    slot, session = await announced(alice, "mine.bin", 1000)
    id = session["id"]
    same = []
    for name in ("session", "refresh", "cancel"):
        kind = "get" if name == "session" else "set"
        errors = []
        for which in (id, NEVER):
            try:
                await bob.iq(asked(name, which), kind=kind)
                errors.append("granted")
            except Refused as refused:
                refused.stanza.attrib.pop("id")
                errors.append(ET.tostring(refused.stanza).replace(which.encode(), b""))
        same.append(errors[0] == errors[1] and b"unknown-session" in errors[0])
    report.equal(same, [True] * 3,
                 "another account gets unknown-session, byte for byte that of a name never given")
    listed = await bob.iq(f"<sessions xmlns='{SESSION}'/>")
    report.equal(len(listed[0]), 0, "its list has")
    view = await query(alice, id)
    report.equal((view["state"], view["refreshes-left"]), ("pending", "10"),
                 "and the session is what it was")
    answer = await web.put(slot, os.urandom(1000))
    report.equal(answer.status, 201, "its owner's PUT")


async def _other_device(alice, tablet, report):
    body = os.urandom(1000)
    slot, session = await announced(alice, "moved.bin", 1000)
    await web.put(slot, body, cut_after=400)
    new, session = await refresh(tablet, session["id"])
    offset = int(session["offset"])
    answer = await append(session["resume-url"], offset, body[offset:])
    report.equal(answer.status, 201, f"another device of the account goes on at {offset}")
    answer = await web.get(new.get)
    report.check(answer.body == body, "and the file is right", f"{len(answer.body)} bytes")


async def _headers_do_nothing(alice, report):
    """The name of a session is no credential over HTTP, wherever it stands."""
    slot, session = await announced(alice, "b.bin", 10)
    id = session["id"]
    bare = slot.get
    answers = []
    for headers in ({"X-Session-ID": id}, {"Authorization": f"Bearer {id}"},
                    {"Cookie": f"session={id}"}):
        answers.append((await web.request("PUT", bare, headers, b"0123456789")).status)
    answers.append((await web.request("PUT", f"{bare}?t={id}", {}, b"0123456789")).status)
    origin = bare.partition("/f/")[0]
    answers.append((await web.request("HEAD", f"{origin}/r/{id}")).status)
    report.equal(answers, [401, 401, 401, 401, 404],
                 "the session's name as header, bearer, cookie, token, resume URL")
    other, other_session = await announced(alice, "c.bin", 10)
    headers = {"X-Session-ID": other_session["id"]}
    answer = await web.put(slot, b"0123456789", headers)
    views = [(await query(alice, which))["state"] for which in (id, other_session["id"])]
    report.equal((answer.status, views), (201, ["complete", "pending"]),
                 "another's name in a header changes nothing")
    await ask(alice, "cancel", other_session["id"])


async def _cancel(alice, slotd, report):
    body = os.urandom(SIZE)
    slot, session = await announced(alice, "d.bin", SIZE)
    await asyncio.to_thread(wait_until, "no partial file", lambda: not slotd.partials())
    reader, writer = await web.connect(slot.put)
    writer.write(web.head("PUT", slot.put, {"Content-Length": str(SIZE)}))
    writer.write(body[:SIZE // 2])
    await writer.drain()
    await _until_active(alice, session["id"])
    await asyncio.to_thread(wait_until, "bytes of it", lambda: 0 < _partial_bytes(slotd))
    before = slotd.partials()
    await ask(alice, "cancel", session["id"])
    report.equal((len(before), slotd.partials()), (1, []),
                 "files of the upload before and after its cancel, while it runs")
    end = await asyncio.wait_for(_rest(reader), 60)
    writer.close()
    report.check(b" 201 " not in end, "its PUT is cut", f"{len(end)} bytes of an answer")
    await ask(alice, "cancel", session["id"])
    report.equal(await refusal(alice, "refresh", session["id"]),
                 "cancel item-not-found session-cancelled", "a refresh after that")
    statuses = [(await web.put(slot, body)).status,
                (await web.request("HEAD", session["resume-url"])).status,
                (await web.get(slot.get)).status]
    report.equal(statuses, [410, 410, 404], "PUT, HEAD of the resume URL, GET of the link")
    view = await query(alice, session["id"])
    report.equal(view["state"], "cancelled", "the tombstone says")


async def _lost_reply(alice, report):
    slot, session = await announced(alice, "e.bin", 1000)
    id = session["id"]
    lefts = [(await refresh(alice, id))[1]["refreshes-left"] for _ in range(6)]
    report.equal(lefts, ["9"] * 6, "refreshes left after one whose reply is lost five times")
    report.equal(await refusal(alice, "refresh", id), "wait resource-constraint",
                 "the next one has to wait")
    await asyncio.sleep(PAUSE_S)
    new, session = await refresh(alice, id)
    report.equal(session["refreshes-left"], "8", "and is one more")
    answer = await web.put(new, os.urandom(1000))
    report.equal(answer.status, 201, "its PUT")


async def _digest(alice, report):
    inner = (f"<hash xmlns='{HASHES}' algo='sha-256'>"
             "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=</hash>")
    slot, session = await announced(alice, "f.txt", 11, inner)
    answer = await web.put(slot, b"HELLO WORLD")
    view = await query(alice, session["id"])
    report.equal((answer.status, view["state"], view.get("reason")),
                 (422, "failed", "digest-mismatch"), "other bytes than the digest's")
    report.equal(await refusal(alice, "refresh", session["id"]),
                 "cancel not-acceptable session-failed", "a refresh of that")
    slot, session = await announced(alice, "f.txt", 11, inner)
    answer = await web.put(slot, b"hello world")
    report.equal(answer.status, 201, "the digest's bytes")
