"""A small XMPP client on a bare socket: it measures without a library's delays, and it can send
what no library would."""

import asyncio
import base64
import hashlib
import itertools
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

import issued
from bed import DOMAIN, PASSWORD, SERVICE, Trouble

UPLOAD = "urn:xmpp:http:upload:0"
DISCO_INFO = "http://jabber.org/protocol/disco#info"
DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
STREAM = "{http://etherx.jabber.org/streams}"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"


class Refused(Exception):
    """An IQ was answered with an error."""

    def __init__(self, stanza):
        error = next((child for child in stanza if child.tag.endswith("}error")), None)
        children = list(error) if error is not None else []
        self.stanza = stanza
        self.kind = error.get("type") if error is not None else None
        self.condition = next((c.tag[len(STANZAS):] for c in children
                               if c.tag.startswith(STANZAS) and not c.tag.endswith("}text")), None)
        self.text = next((c.text for c in children if c.tag == STANZAS + "text"), "")
        self.app = [c for c in children if not c.tag.startswith(STANZAS)]
        super().__init__(f"{self.kind}/{self.condition}: {self.text}")


@dataclass
class Slot:
    """A slot as the service gave it."""

    put: str
    get: str
    headers: dict = field(default_factory=dict)


class Client:
    """One logged-in resource."""

    def __init__(self, server, user):
        self.server, self.user = server, user
        self.jid = None
        self.inbox = asyncio.Queue()
        self.stray = []
        self._waiting = {}
        self._ids = itertools.count(1)
        self._task = None

    @classmethod
    async def login(cls, server, user, resource=None):
        """Connects, logs in with PLAIN (loopback), binds the resource, says it is there."""
        client = cls(server, user)
        await asyncio.wait_for(client._login(resource), 60)
        return client

    async def _login(self, resource):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.server.c2s_port)
        await self._open()
        plain = base64.b64encode(f"\0{self.user}\0{PASSWORD}".encode()).decode()
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>")
        answer = await self._next()
        if not answer.tag.endswith("}success"):
            raise Trouble(f"log-in of {self.user} failed: {ET.tostring(answer)!r}")
        await self._open()
        self._task = asyncio.ensure_future(self._read())
        wish = f"<resource>{resource}</resource>" if resource else ""
        bound = await self.iq(f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{wish}</bind>",
                              to=None, kind="set")
        self.jid = next(node.text for node in bound.iter() if node.tag.endswith("}jid"))
        self.send("<presence/>")

    async def _open(self):
        self._parser = ET.XMLPullParser(["start", "end"])
        self._depth, self._root, self._ready = 0, None, []
        self.send(f"<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' "
                  "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
        features = await self._next()
        if features.tag != STREAM + "features":
            raise Trouble(f"no stream features: {ET.tostring(features)!r}")

    async def _next(self):
        """The next element below the stream."""
        while not self._ready:
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionError("the XMPP server closed the stream")
            self._parser.feed(data)
            for event, node in self._parser.read_events():
                self._depth += 1 if event == "start" else -1
                if event == "start" and self._depth == 1:
                    self._root = node
                if event == "end" and self._depth == 1:
                    self._ready.append(node)
                    self._root.clear()
        return self._ready.pop(0)

    async def _read(self):
        try:
            while True:
                stanza = await self._next()
                waiting = self._waiting.pop(stanza.get("id"), None)
                if stanza.tag.endswith("}iq") and stanza.get("type") in ("result", "error"):
                    if waiting is None:
                        self.stray.append(stanza)
                    elif not waiting.done():
                        waiting.set_result(stanza)
                elif stanza.tag.endswith("}iq"):
                    self.send(f"<iq type='result' id={quoteattr(stanza.get('id', ''))} "
                              f"to={quoteattr(stanza.get('from', DOMAIN))}/>")
                else:
                    await self.inbox.put(stanza)
        except (ConnectionError, OSError, ET.ParseError) as error:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionError(f"stream lost: {error}"))
            self._waiting.clear()

    def send(self, text):
        """Sends text as it is."""
        self.writer.write(text.encode())

    def expect(self, id):
        """A future for the answer with this id."""
        self._waiting[id] = asyncio.get_running_loop().create_future()
        return self._waiting[id]

    def next_id(self):
        """An id not used before."""
        return f"q{next(self._ids)}"

    async def iq(self, payload, to=SERVICE, kind="get", within_s=60.0):
        """Asks; returns the result stanza or raises `Refused`."""
        id = self.next_id()
        answer = self.expect(id)
        address = f" to={quoteattr(to)}" if to else ""
        self.send(f"<iq type='{kind}' id='{id}'{address}>{payload}</iq>")
        stanza = await asyncio.wait_for(answer, within_s)
        issued.remember(ET.tostring(stanza, encoding="unicode"))
        if stanza.get("type") == "error":
            raise Refused(stanza)
        return stanza

    async def slot(self, name, size, content_type="application/octet-stream", inner="", **more):
        """Asks for a slot."""
        kind = f" content-type={quoteattr(content_type)}" if content_type is not None else ""
        result = await self.iq(f"<request xmlns='{UPLOAD}' filename={quoteattr(name)} "
                               f"size='{size}'{kind}>{inner}</request>", **more)
        return read_slot(result)

    async def service_up(self, within_s=60.0):
        """Polls until the service answers through the server; the seconds it took."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            try:
                await self.iq("<ping xmlns='urn:xmpp:ping'/>", within_s=3)
                return loop.time() - start
            except (Refused, asyncio.TimeoutError) as error:
                if loop.time() - start > within_s:
                    raise Trouble(f"the service does not answer: {error}") from None
                await asyncio.sleep(0.01)

    async def close(self):
        """Logs out."""
        if self._task:
            self._task.cancel()
        try:
            self.send("</stream:stream>")
            self.writer.close()
        except (ConnectionError, OSError, RuntimeError):
            pass


class Component(Client):
    """Another component of the server: it may send from any JID below its name."""

    def __init__(self, server, name, sender):
        super().__init__(server, name)
        self.name, self.jid = name, sender

    @classmethod
    async def attach(cls, server, name, secret, sender):
        """Connects and says its secret; IQs then come from `sender`."""
        component = cls(server, name, sender)
        await asyncio.wait_for(component._attach(secret), 60)
        return component

    async def _attach(self, secret):
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.server.neighbor_port)
        self._parser = ET.XMLPullParser(["start", "end"])
        self._depth, self._root, self._ready = 0, None, []
        self.send(f"<?xml version='1.0'?><stream:stream to='{self.name}' "
                  "xmlns='jabber:component:accept' "
                  "xmlns:stream='http://etherx.jabber.org/streams'>")
        while self._root is None:
            self._parser.feed(await self.reader.read(1))
            for event, node in self._parser.read_events():
                self._depth += 1
                self._root = node
        proof = hashlib.sha1((self._root.get("id") + secret).encode()).hexdigest()
        self.send(f"<handshake>{proof}</handshake>")
        answer = await self._next()
        if not answer.tag.endswith("}handshake"):
            raise Trouble(f"component {self.name} not let in: {ET.tostring(answer)!r}")
        self._task = asyncio.ensure_future(self._read())

    async def iq(self, payload, to=SERVICE, kind="get", within_s=60.0):
        """Asks as `sender`; returns the result stanza or raises `Refused`."""
        id = self.next_id()
        answer = self.expect(id)
        self.send(f"<iq type='{kind}' id='{id}' from={quoteattr(self.jid)} to={quoteattr(to)}>"
                  f"{payload}</iq>")
        stanza = await asyncio.wait_for(answer, within_s)
        issued.remember(ET.tostring(stanza, encoding="unicode"))
        if stanza.get("type") == "error":
            raise Refused(stanza)
        return stanza


def read_slot(result):
    """The slot in a result."""
    slot = next((node for node in result if node.tag == f"{{{UPLOAD}}}slot"), None)
    if slot is None:
        raise Trouble(f"no slot in {ET.tostring(result)!r}")
    put, get = slot.find(f"{{{UPLOAD}}}put"), slot.find(f"{{{UPLOAD}}}get")
    headers = {header.get("name"): header.text for header in put.iter(f"{{{UPLOAD}}}header")}
    return Slot(put.get("url"), get.get("url"), headers)
