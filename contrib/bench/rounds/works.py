"""What is measured: one class for each kind of work.

`measure(target_name, round)` returns figures by name for one target in one round, or raises
`Failed`. What is slow to set up and not measured is kept from round to round.
"""

import time
from dataclasses import dataclass

import resume
from bed import DOMAIN, SERVICE
from peers import FILES, EjabberdUpload, ProsodyShare, wait_for_service
from targets import Behind, Nginx, Sink, Slotd
from tools import (GIB, KIB, LOAD_SECONDS_MAX, MIB, Failed, Holding, body_file, cpu_s, load,
                   memory_kib, run_json, say, settle, touch, write_urls)

# Name of a target: its class and what the variant changes.
TARGETS = {
    "slotd": (Slotd, {}),
    "slotd-data": (Slotd, {"durability": "data"}),
    "slotd-none": (Slotd, {"durability": "none"}),
    "nginx": (Nginx, {}),
    "nginx-tuned": (Nginx, {"tuned": True}),
    "nginx+slotd": (Behind, {}),
    "nginx+slotd-accel": (Behind, {"accel": True}),
    "prosody": (ProsodyShare, {}),
    "ejabberd": (EjabberdUpload, {}),
    "disk": (None, {}),
    "disk+sync": (None, {"sync": True}),
    "sink": (Sink, {}),
    # Only where slots are asked for: the server with slotd in place of its own service.
    "prosody+slotd": (None, {}),
    "ejabberd+slotd": (None, {}),
}
# Nobody waits longer for one part, however slow a peer is.
PART_SECONDS = 12


@dataclass
class Size:
    """How much of a work is done: as usual, and with --quick."""

    n: int
    bytes: int
    connections: int
    n_files: int = 0


class Work:
    """One kind of work. `unit` says per what CPU time is given."""

    unit = "req"
    # What ratios are to.
    base = "nginx"

    def __init__(self, bed, size, targets, tls=False):
        self.bed, self.size, self.targets, self.tls = bed, size, targets, tls

    def new(self, name):
        """A new instance of a target."""
        kind, options = TARGETS[name]
        return kind(self.bed, **options, tls=self.tls)

    def close(self):
        """Gives back what was kept from round to round."""

    def timed(self, target, what, **options):
        """Runs a load beside a target's CPU time and memory: the figures of a row."""
        before = cpu_s(target.pids())
        counted = load(what, **options)
        return self.row(counted, cpu_s(target.pids()) - before,
                        memory_kib(target.pids(), "VmHWM"))

    def row(self, counted, server_cpu_s, peak_kib=None):
        """The figures of a row from what was counted."""
        if not counted["requests"]:
            raise Failed("no request was answered in time")
        large = self.unit == "GiB"
        per = counted["bytes"] / GIB if large else counted["requests"] / 1000
        row = {"rate": counted["mib_per_second"] if large else counted["per_second"],
               "cpu": server_cpu_s / per, "own_cpu": counted["own_cpu_s"] / per,
               "p50_ms": counted["p50_ms"], "p99_ms": counted["p99_ms"]}
        if peak_kib is not None:
            row["peak_mib"] = peak_kib / KIB
        return row


class Gets(Work):
    """Files read from the page cache."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.filled = {}
        self.unit = "GiB" if self.size.bytes >= 4 * MIB else "1000 req"

    def fill(self, name):
        """A target with files in it, launched once for the whole run."""
        if name in self.filled:
            return self.filled[name]
        target = self.new(name)
        target.launch(self.size.n_files, self.size.bytes)
        put, get = target.lists()
        say(f"    {name}: {self.size.n_files} files of {self.size.bytes} bytes")
        load("put", urls=put, connections=16, body=body_file(self.bed.dir, self.size.bytes))
        target.stop()
        self.filled[name] = (target, get)
        return self.filled[name]

    def measure(self, name):
        """One round of one target."""
        target, urls = self.fill(name)
        target.start()
        try:
            options = {"urls": urls, "connections": self.size.connections, "size": self.size.bytes,
                       "seconds": PART_SECONDS}
            target.warm()
            load("get", requests=self.size.n_files, **options)
            return self.timed(target, "get", requests=self.size.n, **options)
        finally:
            target.stop()

    def close(self):
        for target, _ in self.filled.values():
            settle(*target.directories())


class Puts(Work):
    """Files sent, each to a slot of its own."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.unit = "GiB" if self.size.bytes >= 4 * MIB else "1000 req"

    def measure(self, name):
        """One round of one target, in a directory that nobody has written to."""
        if TARGETS[name][0] is None:
            return self.measure_disk(name)
        target = self.new(name)
        target.launch(self.size.n, self.size.bytes)
        try:
            put, _ = target.lists()
            body = body_file(self.bed.dir, self.size.bytes)
            target.warm()
            touch(self.size.n * self.size.bytes)
            return self.timed(target, "put", urls=put, connections=self.size.connections,
                              body=body, seconds=PART_SECONDS)
        finally:
            target.stop()
            settle(*target.directories())

    def measure_disk(self, name):
        """The same files without a server."""
        directory = self.bed.sub(f"disk-{time.monotonic_ns()}")
        touch(self.size.n * self.size.bytes)
        counted = load("disk", dir=directory, connections=self.size.connections,
                       requests=self.size.n, size=self.size.bytes,
                       sync=TARGETS[name][1].get("sync"))
        settle(directory)
        return self.row(counted, 0)


class Mixed(Puts):
    """One PUT for four GETs."""

    def measure(self, name):
        target = self.new(name)
        target.launch(self.size.n, self.size.bytes)
        try:
            n_puts = self.size.n - self.size.n_files
            body = body_file(self.bed.dir, self.size.bytes)
            first = write_urls(target.dir / "first.urls", target.put_urls[n_puts:])
            load("put", urls=first, body=body)
            put = write_urls(target.dir / "mixed-put.urls", target.put_urls[:n_puts])
            get = write_urls(target.dir / "mixed-get.urls", target.get_urls[n_puts:])
            target.warm()
            touch(n_puts * self.size.bytes)
            return self.timed(target, "mixed", urls=put, get_urls=get, body=body,
                              connections=self.size.connections, seconds=PART_SECONDS)
        finally:
            target.stop()
            settle(*target.directories())


class Held(Work):
    """What connections cost that do nothing: memory each, and what is given back."""

    what = "idle"

    def measure(self, name):
        target = self.new(name)
        n = self.size.connections
        target.launch(n if self.what == "stalled" else 1, self.size.bytes)
        try:
            put, get = target.lists()
            if self.what == "idle":
                load("put", urls=put, body=body_file(self.bed.dir, self.size.bytes))
            target.warm()
            before = memory_kib(target.pids())
            urls = put if self.what == "stalled" else get
            with Holding(self.what, urls=urls, connections=n) as counted:
                # What was just received may still be on its way to the disk.
                time.sleep(2)
                held = memory_kib(target.pids())
            time.sleep(10)
            if counted["connections"] < n:
                raise Failed(f"{counted['connections']} of {n} stood: {counted['errors']}")
            return {"rate": n, "kib_each": (held - before) / n, "seconds": counted["seconds"],
                    "kept_kib_each": (memory_kib(target.pids()) - before) / n}
        finally:
            target.stop()
            settle(*target.directories())


class Stalled(Held):
    """Uploads of 1 MiB that stand still after 256 KiB."""

    what = "stalled"


class Sessions(Work):
    """Upload sessions that began and broke: memory each, while nobody is connected."""

    def measure(self, name):
        target = self.new(name)
        target.mint(self.size.n, self.size.bytes, sessions=True)
        target.start()
        try:
            target.warm()
            before = memory_kib(target.pids())
            for first in range(0, self.size.n, self.size.connections):
                part = target.put_urls[first:first + self.size.connections]
                urls = write_urls(target.dir / "part.urls", part)
                with Holding("stalled", urls=urls, connections=len(part), size=self.size.bytes,
                             sent=4 * KIB) as counted:
                    if counted["connections"] < len(part):
                        raise Failed(f"uploads broke: {counted['errors']}")
                    time.sleep(0.5)
            time.sleep(10)
            each = (memory_kib(target.pids()) - before) / self.size.n
            return {"rate": self.size.n, "kept_kib_each": each}
        finally:
            target.stop()
            settle(*target.directories())


class Latency(Work):
    """How long a GET takes while many slow uploads run, and without them."""

    unit = "1000 req"

    def measure(self, name):
        target = self.new(name)
        n_files, n_slow, seconds = self.size.n_files, self.size.connections, self.size.n
        upload_bytes = 64 * KIB * (seconds + 4)
        target.launch(n_files, self.size.bytes)
        try:
            put, _ = target.lists()
            get = write_urls(target.dir / "files.urls", target.get_urls)
            load("put", urls=put, body=body_file(self.bed.dir, self.size.bytes))
            options = {"urls": get, "connections": 4, "pause_ms": 5, "seconds": seconds}
            quiet = load("get", **options)
            target.stop()
            target.launch(n_slow, upload_bytes)
            slow = write_urls(target.dir / "slow.urls", target.put_urls[-n_slow:])
            target.warm()
            row = self.timed(target, "slow-uploads", put_urls=slow, upload_size=upload_bytes,
                             **options)
            return {**row, "quiet_p99_ms": quiet["p99_ms"]}
        finally:
            target.stop()
            settle(*target.directories())


class Resume(Work):
    """An upload that was cut half-way and goes on: how soon, and what was sent twice."""

    def measure(self, name):
        target = self.new(name)
        target.mint(1, self.size.bytes, sessions=True)
        target.start()
        try:
            return resume.measure(target.put_urls[0], target.resume_urls[0], self.size.bytes)
        finally:
            target.stop()
            settle(*target.directories())


class Start(Work):
    """From its start to its first answer, with many rows in its store."""

    def measure(self, name):
        target = self.new(name)
        target.mint(self.size.n, self.size.bytes)
        began = time.monotonic()
        target.start()
        try:
            seconds = time.monotonic() - began
            return {"rate": self.size.n, "seconds": seconds,
                    "peak_mib": memory_kib(target.pids(), "VmHWM") / KIB}
        finally:
            target.stop()


class Slots(Work):
    """Slot requests of several users, through an XMPP server: its CPU time and the component's.

    `n_files` slots are asked for before: they stay open, which costs some servers more than others.
    All log as they are installed, a line a slot, unless `quiet`: then warnings alone.
    """

    unit, base = "1000 slots", "own"

    def __init__(self, *args, quiet=False, **more):
        super().__init__(*args, **more)
        self.logs = {"logs_as_installed": not quiet}

    def measure(self, name):
        server_name, _, component = name.partition("+")
        server = TARGETS[server_name][0](self.bed, **self.logs)
        server.start()
        targets = [server]
        try:
            server.server.accounts(*(f"u{n}" for n in range(self.size.connections)))
            if component:
                port = server.server.component_port
                targets.append(Slotd(self.bed, component_port=port, **self.logs))
                targets[-1].start()
            return self.ask(targets, SERVICE if component else FILES)
        finally:
            for target in reversed(targets):
                target.stop()

    def ask(self, targets, service):
        """Asks for slots as fast as they are issued: each target's CPU time apart."""
        address = f"127.0.0.1:{targets[0].server.c2s_port}"
        words = ["--server", address, "--domain", DOMAIN, "--service", service, "--window", 50,
                 "--users", self.size.connections]
        wait_for_service(targets[0].server, service)
        if self.size.n_files:
            run_json("bench-slots", [*words, "--slots", -(-self.size.n_files // self.size.connections),
                                     "--seconds", LOAD_SECONDS_MAX])
        before = [cpu_s(target.pids()) for target in targets]
        counted = run_json("bench-slots", [*words, "--seconds", self.size.n])
        spent = [cpu_s(target.pids()) - then for target, then in zip(targets, before)]
        if counted["errors"] or not counted["slots"]:
            raise Failed(f"bench-slots: {counted}")
        per = counted["slots"] / 1000
        row = {"rate": counted["per_second"], "cpu": sum(spent) / per,
               "own_cpu": counted["own_cpu_s"] / per, "p50_ms": counted["p50_ms"],
               "p99_ms": counted["p99_ms"],
               "peak_mib": memory_kib([pid for target in targets for pid in target.pids()],
                                      "VmHWM") / KIB}
        return {**row, "component_cpu": spent[1] / per} if spent[1:] else row


PLAIN = ["slotd", "nginx", "nginx-tuned", "ejabberd", "prosody"]
WRITTEN = ["slotd", "slotd-data", "slotd-none", *PLAIN[1:], "disk", "disk+sync"]
TLS = ["slotd", "nginx"]
PROXIED = ["nginx", "slotd", "nginx+slotd", "nginx+slotd-accel"]
OWN = ["slotd"]
XMPP = ["prosody", "ejabberd", "prosody+slotd", "ejabberd+slotd"]
LARGE, SMALL = 256 * MIB, 100 * KIB

# Name: class, usual size, size with --quick, targets, further options.
WORKS = {
    "get-256m": (Gets, Size(32, LARGE, 2, 4), Size(8, 8 * MIB, 2, 2), PLAIN, {}),
    "get-100k": (Gets, Size(60000, SMALL, 16, 2000), Size(2000, SMALL, 16, 100), PLAIN, {}),
    "put-256m": (Puts, Size(8, LARGE, 2), Size(4, 8 * MIB, 2), WRITTEN, {}),
    "put-100k": (Puts, Size(4000, SMALL, 16), Size(200, SMALL, 16), WRITTEN, {}),
    "put-100k-64": (Puts, Size(4000, SMALL, 64), Size(200, SMALL, 64), WRITTEN, {}),
    "mixed": (Mixed, Size(4000, SMALL, 16, 2000), Size(200, SMALL, 16, 100), PLAIN, {}),
    "tls-get-256m": (Gets, Size(8, LARGE, 2, 2), Size(8, 8 * MIB, 2, 2), TLS, {"tls": True}),
    "tls-get-100k": (Gets, Size(20000, SMALL, 16, 2000), Size(500, SMALL, 16, 100), TLS,
                     {"tls": True}),
    "tls-put-100k": (Puts, Size(4000, SMALL, 16), Size(200, SMALL, 16), TLS, {"tls": True}),
    "proxied-get-256m": (Gets, Size(16, LARGE, 2, 4), Size(8, 8 * MIB, 2, 2), PROXIED, {}),
    "proxied-get-100k": (Gets, Size(30000, SMALL, 16, 2000), Size(1000, SMALL, 16, 100), PROXIED,
                         {}),
    "proxied-put-100k": (Puts, Size(4000, SMALL, 16), Size(200, SMALL, 16), PROXIED[:3], {}),
    "stalled": (Stalled, Size(0, MIB, 1000), Size(0, MIB, 50), PLAIN, {}),
    "idle": (Held, Size(0, 1 * KIB, 10000), Size(0, 1 * KIB, 100), PLAIN[:2] + PLAIN[3:], {}),
    "sessions": (Sessions, Size(10000, SMALL, 1000), Size(100, SMALL, 50), OWN, {}),
    "latency": (Latency, Size(10, SMALL, 200, 2000), Size(2, SMALL, 20, 100), PLAIN, {}),
    "resume": (Resume, Size(0, 64 * MIB, 1), Size(0, 4 * MIB, 1), OWN, {}),
    "slots": (Slots, Size(5, SMALL, 8), Size(1, SMALL, 2), XMPP, {}),
    "slots-quiet": (Slots, Size(5, SMALL, 8), Size(1, SMALL, 2), XMPP, {"quiet": True}),
    "slots-open": (Slots, Size(5, SMALL, 8, 40000), Size(1, SMALL, 2, 100), XMPP, {}),
    "start": (Start, Size(100000, SMALL, 1), Size(1000, SMALL, 1), OWN, {}),
}
