"""What connections and upload sessions cost of memory while they do nothing."""

import resource
import time

from tools import KIB, Failed, Holding, body_file, load, memory_kib, say, settle
from work import Work

# What was just received may still be on its way to the disk.
STANDING_SECONDS = 2
# A server has so long to give memory back when its connections are gone.
GIVEN_BACK_AFTER_S = 4
# slotd lets in as many connections as leave each a descriptor for its file, beside an eighth of all
# descriptors, for files that are kept open, and a few.
FILES_BESIDE, FILES_EACH = 200, 2


def connections_possible(wanted):
    """As many connections as the limit of open files lets every target have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return wanted
    possible = min(wanted, (most * 7 // 8 - FILES_BESIDE) // FILES_EACH)
    if possible < wanted:
        say(f"    {possible} connections, not {wanted}: no more than {most} open files are allowed"
            " to a process (ulimit -Hn)")
    return possible


class Idle(Work):
    """Connections that made one request each and stay."""

    what = "idle"

    def measure(self, name):
        n = connections_possible(self.size.of(name).connections)
        return self.hold(name, self.what, n)

    def hold(self, name, what, n):
        """What `n` connections cost, and what of it is kept when they are gone."""
        target, stalled = self.new(name), what == "stalled"
        target.launch(n if stalled else 1, self.size.bytes)
        try:
            put, get = target.lists()
            if not stalled:
                load("put", urls=put, connections=1,
                     body=body_file(self.bed.dir, self.size.bytes))
            target.warm()
            before = memory_kib(target.pids())
            with Holding(what, urls=put if stalled else get, connections=n) as counted:
                if counted["connections"] < n:
                    raise Failed(f"{counted['connections']} of {n} stood: {counted['errors']}")
                time.sleep(STANDING_SECONDS)
                held = memory_kib(target.pids())
            time.sleep(GIVEN_BACK_AFTER_S)
            kept = memory_kib(target.pids())
            return {"rate": n, "kib_each": (held - before) / n, "total_mib": held / KIB,
                    "seconds": counted["seconds"], "kept_kib_each": (kept - before) / n}
        finally:
            target.stop()
            settle(*target.directories())


class Stalled(Idle):
    """Uploads of 1 MiB that stand still after 256 KiB."""

    what = "stalled"


class Connections(Idle):
    """slotd's memory by the number of connections: the targets are `KIND-N`."""

    base = None

    def measure(self, name):
        *tls, what, n = name.split("-")
        self.tls = bool(tls)
        return self.hold("slotd", what, connections_possible(int(n)))


class Sessions(Work):
    """Upload sessions that began and broke: what is kept of each while nobody is connected."""

    base = None

    def measure(self, name):
        target, size = self.new(name), self.size
        target.mint(size.n, size.bytes, sessions=True)
        target.start()
        try:
            target.warm()
            before = memory_kib(target.pids())
            put, _ = target.lists()
            # Few at a time: what many connections cost is another work.
            load("broken", urls=put, connections=size.connections, size=size.bytes)
            time.sleep(GIVEN_BACK_AFTER_S)
            kept = memory_kib(target.pids()) - before
            return {"rate": size.n, "kept_kib_each": kept / size.n, "total_mib": kept / KIB}
        finally:
            target.stop()
            settle(*target.directories())
