"""The test bed: one temporary directory, the processes in it, and their end.

Everything a suite starts is started here, listens on loopback at a port that was free, and is gone
when the bed is closed, whatever happened. When something fails, the bed shows the ends of the logs.
"""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CONTRIB = ROOT / "contrib"
DOMAIN = "localhost"
SERVICE = "upload.localhost"
# Another component of the same server.
NEIGHBOR = "neighbor.localhost"
SECRET = "only-for-tests-on-loopback"
PASSWORD = "a-password"
LOG_TAIL_LINES = 40


class Trouble(Exception):
    """The bed itself did not work: nothing was tested."""


def free_port():
    """A loopback port nobody listens on, below those the kernel hands to outgoing connections."""
    for _ in range(200):
        port = random.randrange(12000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Trouble("no free port found")


def listens(port):
    """Whether somebody answers at the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(what, true, within_s=30.0, every_s=0.02):
    """Polls until `true()` is, and says how long it took."""
    start = time.monotonic()
    while not true():
        if time.monotonic() - start > within_s:
            raise Trouble(f"{what}: not within {within_s:.0f} s")
        time.sleep(every_s)
    return time.monotonic() - start


def fill(text, **words):
    """Puts the words in the places of a template, `@LIKE_THIS@`."""
    for name, value in words.items():
        text = text.replace(f"@{name.upper()}@", str(value))
    return text


def as_shipped(path, **swaps):
    """A snippet of contrib/ with the test's names in the place of the examples."""
    text = (CONTRIB / path).read_text()
    for old, new in [("upload.example.org", SERVICE), ("PUT-YOUR-SECRET-HERE", SECRET),
                     *((key.replace("__", "."), value) for key, value in swaps.items())]:
        text = text.replace(old, str(new))
    return text


def _die_with_parent():
    """So that no server outlives a suite that was killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Process:
    """One program under the bed, startable again and again with the same command."""

    def __init__(self, bed, name, argv, env=None, cwd=None):
        self.bed, self.name, self.argv = bed, name, [str(word) for word in argv]
        self.env = {**os.environ, **(env or {})}
        self.cwd = cwd or bed.dir
        self.log = bed.dir / f"{name}.log"
        self.child = None
        # Descriptors that it inherits.
        self.fds = ()

    def start(self):
        """Starts the program; its output is appended to its log."""
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                self.argv, env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, pass_fds=self.fds, preexec_fn=_die_with_parent)

    def running(self):
        """Whether it runs."""
        return self.child is not None and self.child.poll() is None

    def wait_for_port(self, port, within_s=30.0):
        """Waits until it answers at the port; an early end is told at once."""
        def answers():
            if not self.running():
                raise Trouble(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")
            return listens(port)
        return wait_until(f"{self.name} at port {port}", answers, within_s)

    def stop(self, with_signal=signal.SIGTERM, within_s=20.0):
        """Ends it; returns its exit status (negative: the signal)."""
        if self.child is None:
            return None
        if self.child.poll() is None:
            self.child.send_signal(with_signal)
            try:
                self.child.wait(within_s)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
                print(f"  {self.name} did not stop within {within_s:.0f} s and was killed")
        return self.child.returncode

    def kill(self):
        """kill -9."""
        return self.stop(signal.SIGKILL)

    def tail(self, n_lines=LOG_TAIL_LINES):
        """The last lines of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-n_lines:])


class Bed:
    """The temporary directory and the processes in it; a context manager."""

    def __init__(self, name):
        self.dir = Path(tempfile.mkdtemp(prefix=f"slotd-e2e-{name}-"))
        os.chmod(self.dir, 0o755)
        self.processes = []
        self.cleanups = []
        # Each slotd: what they wrote is searched for secrets when a suite has ended.
        self.daemons = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _traceback):
        if kind is not None:
            self.show_logs()
        self.close()

    def process(self, name, argv, **more):
        """Registers a program; it is stopped when the bed is closed."""
        process = Process(self, name, argv, **more)
        self.processes.append(process)
        return process

    def show_logs(self):
        """Prints the end of every log."""
        for process in self.processes:
            print(f"----- {process.name} (last {LOG_TAIL_LINES} lines)\n{process.tail()}")
        sys.stdout.flush()

    def close(self):
        """Stops everything and removes the directory."""
        for process in reversed(self.processes):
            process.stop(within_s=5)
        for cleanup in reversed(self.cleanups):
            cleanup()
        shutil.rmtree(self.dir, ignore_errors=True)

    def sub(self, name):
        """A directory in the bed."""
        path = self.dir / name
        path.mkdir(exist_ok=True)
        os.chmod(path, 0o755)
        return path

    def certificate(self):
        """A self-signed certificate for loopback: the directory with tls.crt, tls.key, tls.pem."""
        if not (self.dir / "tls.pem").exists():
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=localhost",
                "-addext", "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1",
                "-keyout", self.dir / "tls.key", "-out", self.dir / "tls.crt")
            pem = (self.dir / "tls.key").read_text() + (self.dir / "tls.crt").read_text()
            (self.dir / "tls.pem").write_text(pem)
        return self.dir


def run(*argv, ok=(0,), **more):
    """Runs a short command; anything but an expected exit status is trouble, with its output."""
    if "input" not in more:
        more["stdin"] = subprocess.DEVNULL
    done = subprocess.run([str(word) for word in argv], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode not in ok:
        raise Trouble(f"{argv[0]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout
