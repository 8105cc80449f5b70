"""What slotd is to show: each promise with the ratio or the figure that it needs."""

import statistics
from dataclasses import dataclass


@dataclass
class Promise:
    """`target`'s figure in `work`, or its ratio to the figure of `of` in the same round, is at
    least or at most `limit`. `of` is another target, or `@` and another figure of the same."""

    words: str
    work: str
    target: str
    figure: str
    of: str
    sense: str
    limit: float

    def values(self, rounds):
        """One value for each round that has what it needs."""
        found = []
        for one in rounds:
            row = one.get(self.target, {})
            if self.of.startswith("@"):
                below = row.get(self.of[1:])
            else:
                below = one.get(self.of, {}).get(self.figure) if self.of else 1
            if below and self.figure in row:
                found.append(row[self.figure] / below)
        return found

    def is_kept(self, value):
        """Whether that is enough."""
        return value >= self.limit if self.sense == ">=" else value <= self.limit


LARGE_GET, SMALL_GET, LARGE_PUT = "get-256m", "get-100k", "put-256m"
SMALL_PUT, MANY_PUT = "put-100k", "put-100k-64"
PROMISES = [
    Promise("GET 256 MiB, throughput", LARGE_GET, "slotd", "rate", "nginx", ">=", 1.3),
    Promise("GET 256 MiB, CPU", LARGE_GET, "slotd", "cpu", "nginx", "<=", 0.75),
    Promise("GET 100 KiB, requests", SMALL_GET, "slotd", "rate", "nginx", ">=", 1.2),
    Promise("GET 100 KiB, CPU", SMALL_GET, "slotd", "cpu", "nginx", "<=", 0.72),
    Promise("PUT 256 MiB, none", LARGE_PUT, "slotd-none", "rate", "nginx-tuned", ">=", 1.1),
    Promise("PUT 256 MiB, none, CPU", LARGE_PUT, "slotd-none", "cpu", "nginx-tuned", "<=", 0.9),
    Promise("PUT 256 MiB, full", LARGE_PUT, "slotd", "rate", "nginx", ">=", 2.5),
    Promise("PUT 100 KiB x 16, none", SMALL_PUT, "slotd-none", "rate", "nginx", ">=", 1.9),
    Promise("PUT 100 KiB x 16, none", SMALL_PUT, "slotd-none", "rate", "nginx-tuned", ">=", 1.2),
    Promise("PUT 100 KiB x 16, full", SMALL_PUT, "slotd", "rate", "disk+sync", ">=", 0.9),
    Promise("PUT 100 KiB x 16, full", SMALL_PUT, "slotd", "rate", "nginx", ">=", 0.65),
    Promise("PUT 100 KiB x 64, full", MANY_PUT, "slotd", "rate", "disk+sync", ">=", 0.9),
    Promise("PUT 100 KiB x 64, full", MANY_PUT, "slotd", "rate", "nginx", ">=", 0.65),
    Promise("GET 256 MiB", LARGE_GET, "slotd", "rate", "prosody", ">=", 10),
    Promise("GET 100 KiB", SMALL_GET, "slotd", "rate", "prosody", ">=", 10),
    Promise("PUT 256 MiB, full", LARGE_PUT, "slotd", "rate", "prosody", ">=", 10),
    Promise("PUT 100 KiB, full", SMALL_PUT, "slotd", "rate", "prosody", ">=", 10),
    Promise("GET 256 MiB", LARGE_GET, "slotd", "rate", "ejabberd", ">=", 1.3),
    Promise("GET 100 KiB", SMALL_GET, "slotd", "rate", "ejabberd", ">=", 2),
    Promise("PUT 256 MiB, full", LARGE_PUT, "slotd", "rate", "ejabberd", ">=", 1.2),
    Promise("PUT 256 MiB, none", LARGE_PUT, "slotd-none", "rate", "ejabberd", ">=", 2),
    Promise("PUT 100 KiB, full", SMALL_PUT, "slotd", "rate", "ejabberd", ">=", 2),
    Promise("slots through Prosody", "slots", "prosody+slotd", "rate", "prosody", ">=", 2.3),
    Promise("slotd's CPU us a slot", "slots", "prosody+slotd", "component_us", "", "<=", 28),
    Promise("slots through ejabberd", "slots", "ejabberd+slotd", "rate", "ejabberd", ">=", 3.3),
    Promise("slotd's CPU us a slot", "slots", "ejabberd+slotd", "component_us", "", "<=", 15),
    Promise("1,000 stalled uploads, KiB each", "stalled", "slotd", "kib_each", "", "<=", 32),
    Promise("the same with TLS", "tls-stalled", "slotd", "kib_each", "", "<=", 64),
    Promise("10,000 live sessions, MiB", "sessions", "slotd", "total_mib", "", "<=", 20),
    Promise("GET among 200 uploads, p99", "latency", "slotd", "p99_ms", "nginx", "<=", 1.5),
    Promise("the same, to its quiet p99", "latency", "slotd", "p99_ms", "@quiet_p99_ms", "<=", 3),
    Promise("start, 100,000 rows, ms", "start", "slotd", "after_stop_ms", "", "<=", 100),
    Promise("... after a quiet kill -9", "start", "slotd", "after_quiet_kill_ms", "", "<=", 100),
    Promise("... after one amidst writing", "start", "slotd", "after_writing_kill_ms", "", "<=",
            100),
]


def plan():
    """The works that the promises need, each with its targets."""
    found = {}
    for one in PROMISES:
        targets = found.setdefault(one.work, [])
        also = [one.of] if one.of and not one.of.startswith("@") else []
        # What is only to be compared with has little to tell in few columns: memory beside nginx.
        also += ["nginx"] if one.work == "stalled" else []
        targets += [name for name in [one.target, *also] if name not in targets]
    return found


def lines(results):
    """The table: a line for each promise about the works that were done, its cells as text; and
    how many are not kept."""
    out, n_broken = [["work", "against", "wanted", "median", "least - most", ""]], 0
    for one in (one for one in PROMISES if one.work in results):
        values = one.values(results[one.work]["rounds"])
        unit = "x" if one.of else ""
        wanted = f"{one.sense} {one.limit:g}{unit}"
        against = {"@quiet_p99_ms": "quiet", "": "-"}.get(one.of, one.of)
        if values:
            median = statistics.median(values)
            word = "yes" if one.is_kept(median) else "NO"
            cells = [f"{median:.2f}{unit}", f"{min(values):.2f} - {max(values):.2f}", word]
        else:
            cells = ["-", "-", "missing"]
        n_broken += cells[-1] != "yes"
        out.append([one.words, against, wanted, *cells])
    return out, n_broken
