"""How long one thing takes: a GET among slow uploads, a start, going on after a cut, a slot."""

import os
import socket
import subprocess
import time

import resume
from bed import DOMAIN, SERVICE
from peers import FILES, wait_for_service
from targets import Slotd
from tools import (KIB, LOAD_SECONDS_MAX, Failed, binary, body_file, cpu_s, load, memory_kib, run_json, settle,
                   write_urls)
from work import TARGETS, Work

# A start that takes longer has failed.
START_SECONDS_MAX = 60
# How long slotd is left alone before a kill in a quiet time, and written to before the other.
QUIET_SECONDS, WRITING_SECONDS = 2, 1
# Uploads before each kill; those that a start amidst writing needs are used up by it.
N_WRITTEN, N_WRITING, WRITERS = 16, 20000, 16


class Latency(Work):
    """How long a GET takes while many slow uploads run, and without them."""

    unit = "1000 req"

    def measure(self, name):
        target, size = self.new(name), self.size.of(name)
        n_slow, seconds = size.connections, size.n
        upload_bytes = 64 * KIB * (seconds + 4)
        target.launch(size.n_files, size.bytes)
        try:
            put, _ = target.lists()
            get = write_urls(target.dir / "files.urls", target.get_urls)
            load("put", urls=put, body=body_file(self.bed.dir, size.bytes))
            load("get", urls=get, connections=4, requests=size.n_files, seconds=seconds)
            options = {"urls": get, "connections": 4, "pause_ms": 5, "seconds": seconds}
            quiet = load("get", **options)
            target.stop()
            target.launch(n_slow, upload_bytes)
            slow = write_urls(target.dir / "slow.urls", target.put_urls[-n_slow:])
            target.warm()
            load("get", urls=get, connections=4, requests=size.n_files, seconds=seconds)
            row = self.timed(target, "slow-uploads", put_urls=slow, upload_size=upload_bytes,
                             **options)
            return {**row, "quiet_p99_ms": quiet["p99_ms"]}
        finally:
            target.stop()
            settle(*target.directories())


class Resume(Work):
    """An upload that was cut half-way and goes on: how soon, and what was sent twice."""

    base = None

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
    """From exec to the first answer, with many rows: after a stop, and after two kinds of kill."""

    base = None

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.target, self.rest = None, []

    def fill(self, name):
        """A data directory with its rows, made once for the whole run."""
        if self.target is None:
            self.target = self.new(name)
            self.target.mint(self.size.n, self.size.bytes)
            self.rest = list(self.target.put_urls)
            self.target.start()
            self.target.stop()

    def uploads(self, n):
        """PUT URLs that nobody has used."""
        taken, self.rest = self.rest[:n], self.rest[n:]
        if not taken:
            raise Failed("there are not slots enough for so many rounds")
        return write_urls(self.target.dir / "start.urls", taken)

    def measure(self, name):
        self.fill(name)
        target, process = self.target, self.target.processes[0]
        body = body_file(self.bed.dir, self.size.bytes)
        try:
            stopped = self.ready_ms()
            peak = memory_kib(target.pids(), "VmHWM")
            load("put", urls=self.uploads(N_WRITTEN), connections=1, body=body)
            time.sleep(QUIET_SECONDS)
            process.kill()
            quiet = self.ready_ms()
            self.kill_amidst_writing(process, body)
            writing = self.ready_ms()
            return {"rate": self.size.n, "after_stop_ms": stopped, "after_quiet_kill_ms": quiet,
                    "after_writing_kill_ms": writing, "peak_mib": peak / KIB}
        finally:
            target.stop()
            os.sync()

    def close(self):
        if self.target:
            settle(*self.target.directories())

    def ready_ms(self):
        """Starts slotd and asks it until it answers."""
        process, port = self.target.processes[0], self.target.port
        with open(process.log, "ab") as log:
            began = time.monotonic()
            # Without what Process does in the child before exec: that would be counted, too.
            process.child = subprocess.Popen(process.argv, cwd=process.cwd, stdout=log, stderr=log,
                                             stdin=subprocess.DEVNULL)
        while not _answers(port):
            if process.child.poll() is not None or time.monotonic() - began > START_SECONDS_MAX:
                raise Failed(f"slotd did not become ready: {process.tail(3)}")
            time.sleep(0.0005)
        return (time.monotonic() - began) * 1000

    def kill_amidst_writing(self, process, body):
        """kill -9 while many uploads are on their way to the disk."""
        n = min(N_WRITING, max(1, len(self.rest) // 8))
        words = [binary("bench-load"), "put", "--urls", self.uploads(n), "--body", body,
                 "--connections", WRITERS, "--seconds", WRITING_SECONDS * 2]
        with subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as writer:
            # Not so long that they are through.
            time.sleep(min(WRITING_SECONDS, n / 20000))
            process.kill()
            writer.wait(START_SECONDS_MAX)


def _answers(port):
    with socket.socket() as connection:
        connection.settimeout(START_SECONDS_MAX)
        if connection.connect_ex(("127.0.0.1", port)):
            return False
        connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        return connection.recv(12).startswith(b"HTTP/1.1 ")


# Prosody's own module, as installed, knows 10,000 slots and refuses the next.
PROSODY_SLOTS_MAX = 9000


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
        pids = [pid for target in targets for pid in target.pids()]
        address = f"127.0.0.1:{targets[0].server.c2s_port}"
        words = ["--server", address, "--domain", DOMAIN, "--service", service, "--window", 50,
                 "--users", self.size.connections]
        wait_for_service(targets[0].server, service)
        if self.size.n_files:
            each = -(-self.size.n_files // self.size.connections)
            run_json("bench-slots", [*words, "--slots", each, "--seconds", LOAD_SECONDS_MAX])
        before = [cpu_s(target.pids()) for target in targets]
        measured = ["--seconds", self.size.n]
        if len(targets) == 1 and targets[0].name == "prosody":
            measured += ["--slots", PROSODY_SLOTS_MAX // self.size.connections]
        counted = run_json("bench-slots", [*words, *measured])
        if counted["errors"] or not counted["slots"]:
            raise Failed(f"bench-slots: {counted}")
        per = counted["slots"] / 1000
        spent = [(cpu_s(target.pids()) - one) / per for target, one in zip(targets, before)]
        row = {"rate": counted["per_second"], "cpu": sum(spent),
               "own_cpu": counted["own_cpu_s"] / per, "p50_ms": counted["p50_ms"],
               "p99_ms": counted["p99_ms"], "peak_mib": memory_kib(pids, "VmHWM") / KIB}
        # Seconds for a thousand are milliseconds for one.
        return row if len(spent) == 1 else {**row, "component_us": spent[1] * 1000}
