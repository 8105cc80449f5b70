"""Commands: a real client (slixmpp) runs every ad-hoc command as an operator and as anybody else."""

import json
import os

import slixmpp

import web
from bed import DOMAIN, SERVICE
from clients import Person
from daemon import Slotd
from xmpp import Client

NODE = "urn:slotd:command:0#"
ACTIONS = "{http://jabber.org/protocol/commands}actions"
EVERYBODYS = ["my-uploads", "my-usage", "delete-my-upload"]
OPERATORS = ["overview", "uploads", "show-upload", "cancel-upload", "delete-file", "user-uploads",
             "user-usage", "purge-user", "export-user", "quota-exceptions", "set-quota",
             "clear-quota", "maintenance-note", "ban", "unban", "bans", "sweep", "rotate-keys",
             "drain", "resume", "self-test", "configuration", "reload"]
N_PURGED = int(os.environ.get("E2E_PURGED", "100"))


class Commander(Person):
    """Somebody who runs commands."""

    def __init__(self, server, user):
        super().__init__(server, user)
        self.register_plugin("xep_0004")
        self.register_plugin("xep_0050")

    async def offered(self):
        """The commands in the list, by the ends of their nodes."""
        items = await self.plugin["xep_0050"].get_commands(SERVICE)
        # slixmpp has them as a set.
        return sorted(node.removeprefix(NODE)
                      for _jid, node, _name in items["disco_items"]["items"])

    async def run(self, name, *answers):
        """Runs a command, one form after the other; the last answer's command."""
        answer = await self.plugin["xep_0050"].send_command(SERVICE, NODE + name)
        for values in answers:
            command = answer["command"]
            form = self.plugin["xep_0004"].make_form(ftype="submit")
            for field, value in values.items():
                form.add_field(var=field, value=value)
            answer = await self.plugin["xep_0050"].send_command(
                SERVICE, NODE + name, sessionid=command["sessionid"],
                action=command.xml.find(ACTIONS).get("execute"), payload=[form])
        return answer["command"]


def notes(command):
    """What it said, in one line."""
    return " / ".join(text for _kind, text in command["notes"])


def _lines(value):
    """A value of several lines; slixmpp has it as a list or as one text."""
    return value if isinstance(value, list) else value.splitlines()


def _rows(command):
    """The rows of a table; of a page that is not the only one they are fields."""
    form = command["form"]
    if form.get_items():
        return form.get_items()
    heads = form["instructions"].lower().split(" | ")
    return [dict(zip(heads, [field["label"], *field["value"].split(" | ")]))
            for name, field in form.get_fields().items() if name.startswith("row-")]


def _facts(command):
    return {field["var"]: field.get_value(convert=False) for field in command["form"]}


def show(report, name, command):
    """The transcript: what the client was shown."""
    report.note(f"{name}: {command['status']} {notes(command)}")
    form = command["form"]
    for item in form.get_items():
        report.note("    " + " | ".join(str(value) for value in item.values()))
    if not form.get_items() and form.get_fields():
        report.note("    " + ", ".join(f"{field['label'] or var}={field['value']!r}"
                                       for var, field in form.get_fields().items()))


def _audited(report, slotd):
    """The audit log names who did what: each command of the operator, and the purge file by file."""
    lines = [json.loads(line) for line in slotd.written()["audit.jsonl"].splitlines()]
    run = {line["command"] for line in lines if line["kind"] == "command-run"
           and line["by"] == f"admin@{DOMAIN}" and line["outcome"] == "done"}
    wanted = {"overview", "uploads", "cancel", "delete", "purge", "sweep", "drain", "resume",
              "rotate-keys", "self-test", "records", "set-exception", "set-note"}
    report.equal(wanted - run, set(), "operators' acts that the audit log lacks")
    purged = [line for line in lines
              if line["kind"] == "removed" and line["reason"] == "purge"]
    report.check(len(purged) >= N_PURGED, "removals by purge in the audit log", len(purged))
    kinds = {}
    for line in lines:
        kinds[line["kind"]] = kinds.get(line["kind"], 0) + 1
    report.note(f"the audit log: {kinds}")
    report.equal([lines[0]["kind"], lines[-1]["kind"]], ["started", "stopping"],
                 "its first and last line")


def _stored(slotd):
    return [name for name in slotd.files() if name.startswith("files/")]


async def _put(user, size):
    body = os.urandom(size)
    slot = await user.slot("photo.jpg", size)
    answer = await web.put(slot, body)
    assert answer.status == 201, answer.status
    return slot, body


async def suite(bed, server, report):
    server.start()
    server.accounts("admin", "alice", "bob")
    slotd = Slotd(bed, server, operators={"jids": [f"admin@{DOMAIN}"]},
                  limits={"slots_per_minute": 10_000})
    slotd.start()
    alice = await Client.login(server, "alice")
    await alice.service_up()
    admin, bob = Commander(server, "admin"), Commander(server, "bob")
    for person in (admin, bob):
        await person.come_online()
    report.equal(await admin.offered(), sorted(EVERYBODYS + OPERATORS), "an operator is offered")
    report.equal(await bob.offered(), sorted(EVERYBODYS), "everybody else is offered")
    for name in OPERATORS:
        try:
            await bob.run(name)
            refused = "nothing"
        except slixmpp.exceptions.IqError as error:
            refused = error.condition
        report.equal(refused, "forbidden", f"{name} by a normal user")
    await _everybodys(server, report, bob)
    await _operators(report, alice, admin)
    await _purge(report, slotd, alice, admin)
    for person in (admin, bob):
        await person.disconnect()
    await alice.close()
    report.equal(slotd.stop(), 0, "SIGTERM ends slotd with")
    _audited(report, slotd)


async def _everybodys(server, report, bob):
    bobs = await Client.login(server, "bob")
    slot, body = await _put(bobs, 100_000)
    uploads = await bob.run("my-uploads")
    show(report, "my-uploads", uploads)
    rows = _rows(uploads)
    report.equal([row["file"] for row in rows], ["photo.jpg"], "my-uploads shows the file")
    show(report, "my-usage", await bob.run("my-usage"))
    choice = {"upload": rows[0]["upload"]}
    done = await bob.run("delete-my-upload", choice, {"confirm": "1"})
    show(report, "delete-my-upload", done)
    answer = await web.get(slot.get)
    report.equal(answer.status, 404, "after delete-my-upload GET gives")
    await bobs.close()


async def _operators(report, alice, admin):
    slot, body = await _put(alice, 50_000)
    waiting = await alice.slot("waiting.bin", 1_000_000)
    show(report, "overview", await admin.run("overview"))
    uploads = await admin.run("uploads", {"state": "open"})
    show(report, "uploads", uploads)
    rows = _rows(uploads)
    report.equal([row["file"] for row in rows], ["waiting.bin"], "uploads shows the open one")
    report.check(waiting.put not in str(uploads) and slot.get not in str(uploads),
                 "and no link", "")
    choice = {"upload": rows[0]["upload"]}
    show(report, "show-upload", await admin.run("show-upload", choice))
    cancelled = await admin.run("cancel-upload", choice, {"confirm": "1"})
    show(report, "cancel-upload", cancelled)
    answer = await web.put(waiting, bytes(1_000_000))
    report.equal(answer.status, 410, "PUT to the cancelled upload")
    alices = {"account": f"alice@{DOMAIN}"}
    show(report, "user-uploads", await admin.run("user-uploads", alices))
    show(report, "user-usage", await admin.run("user-usage", alices))
    deleted = await admin.run("delete-file", {"upload": slot.get}, {"confirm": "1"})
    show(report, "delete-file", deleted)
    answer = await web.get(slot.get)
    report.equal(answer.status, 404, "after delete-file GET gives")
    await _orders(report, alice, admin)
    for name in ("sweep", "self-test", "configuration", "reload", "drain"):
        done = await admin.run(name)
        show(report, name, done)
        if name == "self-test":
            report.equal(notes(done), "All is well", "the server answered the ping of self-test")
        if name == "reload":
            report.check(notes(done).startswith("Nothing changed"), "reload says what it did",
                         notes(done))
    try:
        await alice.slot("refused.bin", 1)
        refused = "nothing"
    except Exception as error:
        refused = str(error)
    report.check("resource-constraint" in refused, "a slot while drained is refused", refused)
    report.check("New disks until noon" in refused, "with the note", refused)
    cleared = await admin.run("maintenance-note", {"note": ""})
    show(report, "maintenance-note", cleared)
    show(report, "resume", await admin.run("resume"))
    before = await alice.slot("before.bin", 10)
    show(report, "rotate-keys", await admin.run("rotate-keys", {"confirm": "1"}))
    answer = await web.put(before, bytes(10))
    report.equal(answer.status, 201, "PUT to a slot of before the rotation")
    await _put(alice, 10)
    keys = _facts(await admin.run("overview"))["keys"]
    report.equal(keys, "2", "signing keys after a rotation")


async def _orders(report, alice, admin):
    """What operators say: quota exceptions, the note; and what is known of a user."""
    alices = f"alice@{DOMAIN}"
    show(report, "set-quota", await admin.run("set-quota", {"account": alices, "size": "10 B"}))
    try:
        await alice.slot("refused.bin", 1_000_000)
        refused = "nothing"
    except Exception as error:
        refused = str(error)
    report.check("resource-constraint" in refused, "a slot above the exception", refused)
    listed = await admin.run("quota-exceptions")
    show(report, "quota-exceptions", listed)
    report.equal([row["account"] for row in _rows(listed)], [alices], "the exception is listed")
    show(report, "clear-quota", await admin.run("clear-quota", {"listed": alices}))
    noted = await admin.run("maintenance-note", {"note": "New disks until noon"})
    show(report, "maintenance-note", noted)
    exported = await admin.run("export-user", {"account": alices})
    report.note(f"export-user: {exported['status']} {notes(exported)}")
    lines = _lines(_facts(exported)["records"])
    records = [json.loads(line) for line in lines]
    report.equal({record["record"] for record in records}, {"account", "upload"},
                 "export-user gives records of")
    report.note("    " + lines[0])
    found = await admin.run("uploads", {"state": "stuck", "age": "0"})
    show(report, "uploads that are stuck", found)


async def _purge(report, slotd, alice, admin):
    for _ in range(N_PURGED):
        await _put(alice, 1000)
    report.check(len(_stored(slotd)) >= N_PURGED, "alice's files are there", len(_stored(slotd)))
    purged = await admin.run("purge-user", {"account": f"alice@{DOMAIN}"}, {"confirm": "1"})
    show(report, "purge-user", purged)
    report.equal(_stored(slotd), [], "after purge-user files are left")
    usage = _facts(await admin.run("user-usage", {"account": f"alice@{DOMAIN}"}))
    report.equal((usage["files"], usage["used"]), ("0", "0 B"), "and nothing was used")
