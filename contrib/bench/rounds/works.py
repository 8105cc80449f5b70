"""The works by their names, each with its sizes and its targets, and how long they take."""

from dataclasses import dataclass, field

from memory import Connections, Idle, Sessions, Stalled
from moments import Latency, Resume, Slots, Start
from tools import KIB, MIB
from transfers import Gets, Mixed, Puts
from work import Size

LARGE, SMALL = 256 * MIB, 100 * KIB
# Prosody moves 50 MiB a second, and its cache holds 1,024 uploads: behind a miss it reads the list
# of all slots. With more files than these it would be a hundred times slower, and nothing else here
# would be told by it.
FEW = {"prosody": Size(2, 64 * MIB, 2, 1)}
SOME = {"prosody": Size(1000, SMALL, 16, 100), "ejabberd": Size(8000, SMALL, 16, 2000)}
PUTS = {"prosody": Size(600, SMALL, 16)}
PUTS_64 = {"prosody": Size(600, SMALL, 64)}

PLAIN = ["slotd", "nginx", "nginx-tuned", "ejabberd", "prosody"]
WRITTEN = ["slotd", "slotd-data", "slotd-none", *PLAIN[1:], "disk", "disk+sync"]
TLS = ["slotd", "nginx"]
PROXIED = ["nginx", "slotd", "nginx+slotd", "nginx+slotd-accel"]
OWN = ["slotd"]
XMPP = ["prosody", "ejabberd", "prosody+slotd", "ejabberd+slotd"]
HELD = [*(f"idle-{n}" for n in (10, 100, 1000, 10000)),
        *(f"{kind}-{n}" for kind in ("stalled", "tls-stalled") for n in (10, 100, 1000))]


@dataclass
class Entry:
    """A work: its class, the size it usually has and the one with --quick, its targets, and about
    how many seconds one round of one target takes on a quiet machine of two cores."""

    kind: type
    usual: Size
    quick: Size
    targets: list
    seconds: float
    options: dict = field(default_factory=dict)


WITH_TLS = {"tls": True}
WORKS = {
    "get-256m": Entry(Gets, Size(32, LARGE, 2, 4, FEW), Size(8, 8 * MIB, 2, 2), PLAIN, 4),
    "get-100k": Entry(Gets, Size(60000, SMALL, 16, 2000, SOME), Size(500, SMALL, 16, 100), PLAIN,
                      4),
    "put-256m": Entry(Puts, Size(8, LARGE, 2, 0, FEW), Size(4, 8 * MIB, 2), WRITTEN, 5),
    "put-100k": Entry(Puts, Size(4000, SMALL, 16, 0, PUTS), Size(200, SMALL, 16), WRITTEN, 3),
    "put-100k-64": Entry(Puts, Size(4000, SMALL, 64, 0, PUTS_64), Size(200, SMALL, 64), WRITTEN,
                         3),
    "mixed": Entry(Mixed, Size(4000, SMALL, 16, 2000, {"prosody": Size(300, SMALL, 16, 100)}),
                   Size(200, SMALL, 16, 100), PLAIN, 4),
    "tls-get-256m": Entry(Gets, Size(8, LARGE, 2, 2), Size(8, 8 * MIB, 2, 2), TLS, 4, WITH_TLS),
    "tls-get-100k": Entry(Gets, Size(20000, SMALL, 16, 2000), Size(500, SMALL, 16, 100), TLS, 4,
                          WITH_TLS),
    "tls-put-256m": Entry(Puts, Size(4, LARGE, 2), Size(4, 8 * MIB, 2), TLS, 5, WITH_TLS),
    "tls-put-100k": Entry(Puts, Size(4000, SMALL, 16), Size(200, SMALL, 16), TLS, 3, WITH_TLS),
    "proxied-get-256m": Entry(Gets, Size(16, LARGE, 2, 4), Size(8, 8 * MIB, 2, 2), PROXIED, 5),
    "proxied-get-100k": Entry(Gets, Size(30000, SMALL, 16, 2000), Size(500, SMALL, 16, 100),
                              PROXIED, 4),
    "proxied-put-100k": Entry(Puts, Size(4000, SMALL, 16), Size(200, SMALL, 16), PROXIED[:3], 3),
    "stalled": Entry(Stalled, Size(0, MIB, 1000), Size(0, MIB, 50), PLAIN, 8),
    "tls-stalled": Entry(Stalled, Size(0, MIB, 1000), Size(0, MIB, 50), TLS, 9, WITH_TLS),
    "idle": Entry(Idle, Size(0, KIB, 10000), Size(0, KIB, 100), PLAIN[:2] + PLAIN[3:], 10),
    "sessions": Entry(Sessions, Size(10000, SMALL, 8), Size(100, SMALL, 8), OWN, 8),
    "latency": Entry(Latency, Size(5, SMALL, 200, 2000, {"prosody": Size(5, SMALL, 200, 100)}),
                     Size(1, SMALL, 20, 100), PLAIN, 13),
    "resume": Entry(Resume, Size(1, 64 * MIB, 1), Size(1, 4 * MIB, 1), OWN, 2),
    "slots": Entry(Slots, Size(5, SMALL, 8), Size(1, SMALL, 2), XMPP, 9),
    "slots-quiet": Entry(Slots, Size(5, SMALL, 8), Size(1, SMALL, 2), XMPP, 9, {"quiet": True}),
    "slots-open": Entry(Slots, Size(5, SMALL, 8, 40000), Size(1, SMALL, 2, 100), XMPP, 25),
    "start": Entry(Start, Size(100000, SMALL, 1), Size(1000, SMALL, 1), OWN, 6),
    "connections": Entry(Connections, Size(0, MIB, 1), Size(0, MIB, 1), HELD, 9),
}
# Without --only: all but what draws the picture.
USUAL = [name for name in WORKS if name != "connections"]

# What a target needs beside that: starting, slots over XMPP, and being slow.
SECONDS_MORE = {"prosody": 5, "ejabberd": 6}
# Once for a run: files to read, rows.
SECONDS_ONCE = {Gets: 3, Start: 10}


def seconds(plan, n_rounds):
    """About how long a plan takes."""
    total = 0
    for name, targets in plan.items():
        entry = WORKS[name]
        total += SECONDS_ONCE.get(entry.kind, 0) * len(targets)
        for target in targets:
            slow = 0 if entry.kind is Slots else SECONDS_MORE.get(target, 0)
            total += n_rounds * (entry.seconds + slow)
    return total


def needs(plan):
    """Which of nginx, prosody, ejabberd a plan needs."""
    names = {part for targets in plan.values() for target in targets
             for part in target.replace("-", "+").split("+")}
    return [name for name in ("nginx", "prosody", "ejabberd") if name in names]
