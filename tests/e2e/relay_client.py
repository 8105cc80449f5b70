"""slixmpp on both sides of a relay: who asks, and the resources of the account that answers."""

import asyncio
import xml.etree.ElementTree as ET

import slixmpp
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

from bed import DOMAIN, PASSWORD

NS = "urn:slotd:test:relay"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"


class Account(slixmpp.ClientXMPP):
    """One resource of an account; remembers every IQ, message and presence error that came."""

    def __init__(self, server, user, resource):
        super().__init__(f"{user}@{DOMAIN}/{resource}", PASSWORD)
        self.c2s_port = server.c2s_port
        self.ca_certs = server.bed.dir / "tls.crt"
        self.seen = []
        # Behind slixmpp's back: it answers what it does not know by itself.
        for kind in ("iq", "message", "presence"):
            self.register_handler(Callback(f"see {kind}", StanzaPath(kind), self.see))

    async def come_online(self):
        """Logs in and says so."""
        ready = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", lambda _: ready.done() or ready.set_result(None))
        self.connect("127.0.0.1", self.c2s_port)
        await asyncio.wait_for(ready, 30)
        self.send_presence()
        return self

    def see(self, stanza):
        """A stanza came."""
        self.seen.append(stanza.xml)

    async def first(self, true, within_s=20):
        """The first stanza that is such, which is forgotten then; None where none comes."""
        for _ in range(within_s * 100):
            found = next((xml for xml in self.seen if true(xml)), None)
            if found is not None:
                self.seen.remove(found)
                return found
            await asyncio.sleep(0.01)
        return None

    async def ask(self, to, kind="get", payload=f"<query xmlns='{NS}'/>", id=None, within_s=30):
        """Sends an IQ as it is; the whole answer."""
        id = id or self.new_id()
        self.send_raw(f"<iq type='{kind}' id='{id}' to='{to}'>{payload}</iq>")

        def is_answer(xml):
            return xml.get("id") == id and xml.get("type") in ("result", "error")
        return await self.first(is_answer, within_s)


class Node(Account):
    """A resource of the implementing account: it answers what is asked, or keeps it."""

    def __init__(self, server, resource):
        super().__init__(server, "service", resource)
        self.is_holding = False
        self.held, self.asked = [], []

    def see(self, stanza):
        super().see(stanza)
        xml = stanza.xml
        if not xml.tag.endswith("}iq") or xml.get("type") not in ("get", "set"):
            return
        if "/" not in (xml.get("from") or ""):
            return
        self.asked.append(xml)
        if self.is_holding:
            self.held.append(xml)
        else:
            self.answer(xml)

    def answer(self, xml):
        """With an error where the payload wants one, or else with the payload."""
        payload = next(iter(xml), None)
        kind = "result"
        inside = "" if payload is None else ET.tostring(payload, encoding="unicode")
        if payload is not None and payload.get("wants") == "error":
            kind = "error"
            inside = ("<error type='cancel'><item-not-found "
                      "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>")
        self.send_raw(f"<iq type='{kind}' id='{xml.get('id')}' to='{xml.get('from')}'>"
                      f"{inside}</iq>")

    def die(self):
        """Its connection is cut."""
        self.transport.abort()


def told(xml):
    """What an error says: `cancel/item-not-found`; nothing of anything else."""
    if xml is None:
        return "no answer"
    error = next((child for child in xml if child.tag.endswith("}error")), None)
    if error is None:
        return ""
    condition = next(child.tag[len(STANZAS):] for child in error if child.tag.startswith(STANZAS))
    return f"{error.get('type')}/{condition}"


def shown(xml, host):
    """A stanza in one line, to be compared: the relay is called RELAY, its node N, and of an error
    its type and condition are told."""
    if xml is None:
        return "-"
    # The server adds the stream's language to what says none.
    attributes = {key: value for key, value in xml.attrib.items() if not key.endswith("}lang")}
    for key in ("from", "to"):
        value = attributes.get(key, "").replace(host, "RELAY")
        user, slash, resource = value.partition("/")
        attributes[key] = f"{user}{slash}N" if user.startswith("service@") and resource else value
    head = " ".join(f"{key}='{attributes[key]}'" for key in sorted(attributes))
    inside = told(xml)
    if not inside:
        inside = (xml.text or "") + "".join(ET.canonicalize(ET.tostring(child)) for child in xml)
    return f"<{xml.tag.rpartition('}')[2]} {head}>{inside}"
