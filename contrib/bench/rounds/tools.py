"""What every measurement needs: the load generator, the kernel's figures of a process tree, and
the machine brought to the same state before each timed part."""

import json
import os
import resource
import select
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# Longer than any part may take: a peer that hangs shall not hold the whole run.
LOAD_SECONDS_MAX = 150
# Smaller ones take next to no room.
EMPTIED_BYTES = 32 * KIB
# More open files than this nobody here needs; some make a table of all that they may have.
OPEN_FILES = 40000


class Failed(Exception):
    """A part of a measurement did not work; its figure is missing."""


def binary(name):
    """A program that contrib/bench/run has built."""
    return Path(os.environ["BENCH_BINARIES"]) / name


def say(text):
    """A line of progress; the table alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def run_json(name, words):
    """Runs a generator to its end: the line of JSON that it printed."""
    words = [str(word) for word in (binary(name), *words)]
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=LOAD_SECONDS_MAX)
    if done.returncode:
        raise Failed(f"{name} {words[1]}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def _load_words(what, options):
    words = [what]
    for name, value in options.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def load(what, **options):
    """Runs the load generator to its end: what it counted."""
    counted = run_json("bench-load", _load_words(what, options))
    if counted["errors"]:
        raise Failed(f"bench-load {what}: errors {counted['errors']}")
    return counted


class Holding:
    """The load generator while it holds connections; a context manager that ends it."""

    def __init__(self, what, **options):
        words = _load_words(what, {**options, "hold": LOAD_SECONDS_MAX})
        self.child = subprocess.Popen([str(binary("bench-load")), *words],
                                      text=True, stdout=subprocess.PIPE)

    def __enter__(self):
        ready, _, _ = select.select([self.child.stdout], [], [], LOAD_SECONDS_MAX)
        line = self.child.stdout.readline() if ready else ""
        if not line:
            self.__exit__()
            raise Failed("bench-load did not bring its connections to stand")
        return json.loads(line)

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()


def allow_open_files():
    """Lets what is started here have as many open files as it may; often that is not so at first."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def tree(pid):
    """A process and all below it."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            children.setdefault(int(parent), []).append(int(entry.name))
    found, rest = [], [pid]
    while rest:
        found.append(rest.pop())
        rest += children.get(found[-1], [])
    return found


def cpu_s(pids):
    """CPU seconds of processes and of all below them so far."""
    ticks = 0
    for pid in {one for pid in pids for one in tree(pid)}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


def memory_kib(pids, field="VmRSS"):
    """The resident memory of processes and of all below them, now or (VmHWM) at its most."""
    total = 0
    for pid in {one for pid in pids for one in tree(pid)}:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return total


def touch(n_bytes):
    """Takes as much free memory as the next part will need, and gives it back.

    A virtual machine may have handed freed pages to its host; the first who takes them again pays
    several times what writing them costs.
    """
    n_bytes = min(n_bytes, _available_bytes() // 2)
    block = b"x" * n_bytes
    del block


def _available_bytes():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    return GIB


def settle(*directories):
    """After a part that wrote, and when nobody reads it any more: the disk is quiet, files are
    emptied.

    Nothing is unlinked: ext4 looks at each recently freed inode before it makes a new one.
    """
    os.sync()
    for path in (path for directory in directories for path in Path(directory).rglob("*")):
        if path.suffix in (".redb", ".log") or path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_size >= EMPTIED_BYTES:
            os.truncate(path, 0)


def body_file(directory, size):
    """A file of random bytes, made once."""
    path = Path(directory) / f"body-{size}"
    if not path.exists():
        with open(path, "wb") as file:
            for at in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size - at)))
    return path


def write_urls(path, urls):
    """A list as the load generator reads it."""
    Path(path).write_text("".join(f"{url}\n" for url in urls))
    return path
