"""What every kind of work is made of: targets by their names, sizes, the figures of a row."""

from dataclasses import dataclass, field

from peers import EjabberdUpload, ProsodyShare
from targets import Behind, Nginx, Sink, Slotd
from tools import GIB, KIB, MIB, Failed, cpu_s, load, memory_kib

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
# No timed part goes on for longer, however slow a peer is.
PART_SECONDS = 12


@dataclass
class Size:
    """How much of a work is done. `slow` has smaller ones, for targets that need minutes for what
    the others do in seconds."""

    n: int
    bytes: int
    connections: int
    n_files: int = 0
    slow: dict = field(default_factory=dict)

    def of(self, target):
        """This target's."""
        return self.slow.get(target, self)

    def told(self):
        """In few words."""
        files = f"{self.n_files} files, " if self.n_files else ""
        large = self.bytes >= MIB
        size = f"{self.bytes // (MIB if large else KIB)} {'MiB' if large else 'KiB'}"
        return f"{files}{self.n} x {size}, {self.connections} connections"


class Work:
    """One kind of work. `unit` says per what CPU time is given.

    `measure` returns figures by name for one target in one round, or raises `Failed`. What is slow
    to set up and not measured is kept from round to round, until `close`.
    """

    unit = "req"
    # What ratios are to.
    base = "nginx"

    def __init__(self, bed, size, tls=False):
        self.bed, self.size, self.tls = bed, size, tls

    def measure(self, name):
        """One round of one target."""
        raise NotImplementedError

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
