"""Two networks and a way between them: namespaces for slotd's machine, a router, and phones that
have one address in each network. No way leads out.

    phones  wifi 198.18.1.0/24 --+
            lte  198.18.2.0/24 --+-- router -- 198.18.0.2 slotd, XMPP server, this process

The namespaces have no names: they end with the last process that is in them, so nothing is left
behind however a suite ends. Whoever enters a `Network` moves into slotd's machine, and so do all
processes and threads it starts from then on: loopback there is loopback for the bed. Sockets of
phones are opened in the phones' namespace and stay there.

A path is cut at the router, where packets vanish in both directions and neither end is told; or
the phones' interface goes down; or packets are held on their way and delivered late.
"""

import asyncio
import contextlib
import ctypes
import itertools
import os
import socket
import struct
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from bed import Trouble, free_port, run
from daemon import Slotd

SERVER = "198.18.0.2"
NETWORKS = {"wifi": 1, "lte": 2}
PHONES_MAX = 200
# Of each network's way up.
RATE_MBIT = 40
# A phone's: so much may be on its way, and be lost with it.
SEND_BUFFER = 64 * 1024

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def why_not():
    """Why there can be no namespaces here; None where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    home = _here()
    try:
        os.close(_new())
    except OSError as error:
        return f"no network namespaces: {error.strerror}"
    finally:
        _enter(home)
        os.close(home)
    return None


def _here():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(namespace):
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _new():
    """A namespace of its own, which this thread is then in."""
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return _here()


class Network:
    """The namespaces; a context manager, within which this process is on slotd's machine."""

    def __init__(self, rate_mbit=RATE_MBIT, n_phones=1):
        if n_phones > PHONES_MAX:
            raise Trouble(f"{n_phones} phones, {PHONES_MAX} at most")
        self.rate_mbit, self.n_phones = rate_mbit, n_phones
        self.home = None

    def __enter__(self):
        self.home = _here()
        try:
            self.router, self.phones, self.server = _new(), _new(), _new()
            self._cable()
            with self._in(self.router):
                self.rules = _Rules()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error):
        _enter(self.home)
        if hasattr(self, "rules"):
            self.rules.close()
        for name in ("server", "phones", "router", "home"):
            if getattr(self, name, None) is not None:
                os.close(getattr(self, name))
                setattr(self, name, None)

    @contextlib.contextmanager
    def _in(self, namespace):
        """For what does not wait: whoever runs meanwhile would be there too."""
        _enter(namespace)
        try:
            yield
        finally:
            _enter(self.server)

    def _cable(self):
        def place(namespace):
            return f"/proc/{os.getpid()}/fd/{namespace}"
        run("ip", "link", "add", "srv0", "type", "veth", "peer", "name", "srv", "netns",
            place(self.router))
        self._ip(self.server, "link set lo up", f"addr add {SERVER}/24 dev srv0",
                 "link set srv0 up", "route add default via 198.18.0.1")
        self._ip(self.router, "addr add 198.18.0.1/24 dev srv", "link set srv up")
        with self._in(self.router):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self._ip(self.phones, "link set lo up")
        for name, net in NETWORKS.items():
            with self._in(self.phones):
                run("ip", "link", "add", f"{name}0", "type", "veth", "peer", "name", name,
                    "netns", place(self.router))
            self._ip(self.router, f"addr add 198.18.{net}.1/24 dev {name}", f"link set {name} up")
            self._ip(self.phones, *(f"addr add {address(name, n)}/24 dev {name}0"
                                    for n in range(self.n_phones)),
                     f"rule add from 198.18.{net}.0/24 lookup {100 + net}")
            self.plug(name)
            self.release(name)

    def _ip(self, namespace, *lines):
        with self._in(namespace):
            run("ip", "-batch", "-", input="\n".join(lines) + "\n")

    def plug(self, name):
        """The phones' interface is up, with its route."""
        net = NETWORKS[name]
        self._ip(self.phones, f"link set {name}0 up",
                 f"route replace default via 198.18.{net}.1 dev {name}0 table {100 + net}")

    def unplug(self, name):
        """The phones' interface goes down."""
        self._ip(self.phones, f"link set {name}0 down")

    def prefer(self, name):
        """Phones' connections that name no address of theirs take this network from now on."""
        net = NETWORKS[name]
        self._ip(self.phones, f"route replace default via 198.18.{net}.1 dev {name}0")

    def start(self, argv, **more):
        """A program on the phones, as subprocess.Popen starts it."""
        with self._in(self.phones):
            return subprocess.Popen(argv, **more)

    def hold(self, name):
        """What phones send is held on its way from now on."""
        self._shape(name, "1kbit", burst="2kb")

    def release(self, name):
        """What was held goes on its way, at the network's rate."""
        self._shape(name, f"{self.rate_mbit}mbit")
        # The queue is looked at when something joins it.
        with self._in(self.phones), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kick:
            kick.bind((address(name, 0), 0))
            kick.sendto(b"", (SERVER, 9))

    def _shape(self, name, rate, burst="64kb"):
        with self._in(self.phones):
            run("tc", "qdisc", "replace", "dev", f"{name}0", "root", "tbf", "rate", rate,
                "burst", burst, "limit", "4mb")

    def cut(self, whose):
        """From now on the router drops what comes from there or goes there: an address."""
        self.rules.blackhole(whose, there=True)

    def heal(self, whose):
        """The end of `cut`."""
        self.rules.blackhole(whose, there=False)

    def witness(self, source):
        """Counts what reaches slotd's machine from an address, from now on; a context manager."""
        return _Witness(source)

    def socket(self, source):
        """A phone's socket."""
        with self._in(self.phones):
            opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.bind((source, 0))
        return opened

    async def connect(self, source, url):
        """A phone's connection to where the URL points."""
        opened = self.socket(source)
        try:
            parts = urlsplit(url)
            await asyncio.get_running_loop().sock_connect(opened, (parts.hostname, parts.port))
            return await asyncio.open_connection(sock=opened)
        except BaseException:
            opened.close()
            raise


def address(name, n):
    """The n-th phone's address in a network."""
    return f"198.18.{NETWORKS[name]}.{10 + n}"


class _Witness:
    """Sees packets on slotd's machine, whatever becomes of them there."""

    def __init__(self, source):
        self.source, self.n_bytes = socket.inet_aton(source), 0

    def __enter__(self):
        self.tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self.tap.setblocking(False)
        self.tap.bind(("srv0", 0x0800))
        asyncio.get_running_loop().add_reader(self.tap, self._look)
        return self

    def __exit__(self, *_error):
        asyncio.get_running_loop().remove_reader(self.tap)
        self.tap.close()

    def _look(self):
        packet = self.tap.recv(65536)
        if packet[12:16] != self.source or packet[9] != socket.IPPROTO_TCP:
            return
        ip_bytes = (packet[0] & 15) * 4
        self.n_bytes += len(packet) - ip_bytes - (packet[ip_bytes + 12] >> 4) * 4


class _Rules:
    """The router's rules, over netlink: a command each would take longer than a switch may."""

    NEWRULE, DELRULE, ERROR = 32, 33, 2
    REQUEST, ACK, CREATE = 1, 4, 0x400
    DST, SRC, PRIORITY = 1, 2, 6
    BLACKHOLE = 6

    def __init__(self):
        self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.netlink.bind((0, 0))
        self.numbers = itertools.count(1)

    def close(self):
        self.netlink.close()

    def blackhole(self, whose, there):
        """Both ways; that it is so already is no trouble."""
        for attribute in (self.SRC, self.DST):
            lengths = (32, 0) if attribute == self.DST else (0, 32)
            payload = struct.pack("=BBBBBBBBI", socket.AF_INET, *lengths, 0, 0, 0, 0,
                                  self.BLACKHOLE, 0)
            payload += struct.pack("=HH4s", 8, attribute, socket.inet_aton(whose))
            payload += struct.pack("=HHI", 8, self.PRIORITY, 10)
            kind = self.NEWRULE if there else self.DELRULE
            flags = self.REQUEST | self.ACK | (self.CREATE | 0x200 if there else 0)
            head = struct.pack("=IHHII", 16 + len(payload), kind, flags, next(self.numbers), 0)
            self.netlink.send(head + payload)
            errno = -struct.unpack_from("=i", self.netlink.recv(4096), 16)[0]
            if errno not in (0, 2, 17):
                raise Trouble(f"rule for {whose}: {os.strerror(errno)}")


def slotd_at(bed, server, **tables):
    """slotd where phones reach it; to be called within the network."""
    port = free_port()
    http = {"listen": [f"127.0.0.1:{port}", f"{SERVER}:{port}"],
            "public_url": f"http://{SERVER}:{port}/", "insecure": True}
    limits = {"slots_per_minute": 100_000, "open_sessions_max": 100, "stop_within": "1 second"}
    return Slotd(bed, server, port=port, http=http, limits=limits | tables.pop("limits", {}),
                 **tables)
