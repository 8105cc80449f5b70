"""The upload services that XMPP servers bring along: their slots come over XMPP."""

import asyncio
import time

from servers import Ejabberd, Prosody
from targets import Target
from xmpp import DISCO_INFO, Client, Refused

# The service's name; the shipped configurations have the other one for slotd.
FILES = "files.localhost"
USER = "loader"
# Slot requests under way at a time; Prosody answers each in turn anyway.
WINDOW = 50
# How long a component may take to be let in.
SERVICE_SECONDS_MAX = 30


class Peer(Target):
    """An XMPP server with its own upload service."""

    server_class = None

    def __init__(self, bed, **options):
        super().__init__(bed, **options)
        unique = type(self.name, (self.server_class,), {"name": f"{self.dir.name}-server"})
        self.server = unique(bed)
        self._configure()
        self.processes = [self.server.process]

    def _configure(self):
        raise NotImplementedError

    def directories(self):
        return [self.server.dir]

    def start(self):
        self.server.start()
        self.server.process.wait_for_port(self.port)

    def launch(self, n_slots, size):
        self.start()
        if not self.put_urls:
            self.server.account(USER)
        asyncio.run(self._mint(n_slots, size))

    async def _mint(self, n_slots, size):
        client = await Client.login(self.server, USER)
        for first in range(0, n_slots, WINDOW):
            asked = range(first, min(first + WINDOW, n_slots))
            slots = await asyncio.gather(
                *(client.slot(f"{n}.bin", size, to=FILES) for n in asked))
            self.put_urls += [_with_token(slot) for slot in slots]
            self.get_urls += [slot.get for slot in slots]
        await client.close()


def wait_for_service(server, service):
    """Waits until a service answers through the server."""
    async def ping():
        client = await Client.login(server, "u0")
        began = time.monotonic()
        while True:
            try:
                return await client.iq(f"<query xmlns='{DISCO_INFO}'/>", to=service, within_s=3)
            except (Refused, asyncio.TimeoutError):
                if time.monotonic() - began > SERVICE_SECONDS_MAX:
                    raise
                await asyncio.sleep(0.05)
    asyncio.run(ping())


def _with_token(slot):
    """A line for the load generator: the token follows the URL where the service wants a header."""
    token = slot.headers.get("Authorization")
    return f"{slot.put}\t{token}" if token else slot.put


class ProsodyShare(Peer):
    """Prosody's mod_http_file_share, without quotas."""

    name = "prosody"
    server_class = Prosody

    def _configure(self):
        conf = self.server.conf
        text = conf.read_text().replace("http_ports = {}", f"http_ports = {{ {self.port} }}")
        if not self.options.get("logs_as_installed"):
            text = text.replace('log = { info = "*console" }', 'log = { warn = "*console" }')
        text += (f'\nhttp_interfaces = {{ "127.0.0.1" }}\nhttp_default_host = "{FILES}"\n'
                 f'Component "{FILES}" "http_file_share"\n'
                 f'http_host = "127.0.0.1"\n'
                 f'http_external_url = "http://127.0.0.1:{self.port}/"\n'
                 'http_file_share_size_limit = 1024*1024*1024\n'
                 'http_file_share_daily_quota = 1024*1024*1024*1024\n')
        conf.write_text(text)


class EjabberdUpload(Peer):
    """ejabberd's mod_http_upload, without quotas, with a longer queue of connections."""

    name = "ejabberd"
    server_class = Ejabberd

    def _configure(self):
        path = self.server.dir / "ejabberd.yml"
        share = (f'modules:\n  mod_http_upload:\n    host: "{FILES}"\n    max_size: infinity\n    access: all\n'
                 f'    put_url: "http://127.0.0.1:{self.port}/upload"\n'
                 f'    docroot: "{self.server.dir}/upload"\n')
        listener = (f'listen:\n  -\n    port: {self.port}\n    ip: "127.0.0.1"\n'
                    '    module: ejabberd_http\n    backlog: 4096\n    request_handlers:\n'
                    '      /upload: mod_http_upload\n')
        text = path.read_text()
        if not self.options.get("logs_as_installed"):
            text = text.replace("loglevel: info", "loglevel: warning")
        text = text.replace("\nmodules:\n", f"\n{share}", 1)
        path.write_text(text.replace("\nlisten:\n", f"\n{listener}", 1))
