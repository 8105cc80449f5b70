"""What a service manager does for slotd: listens for its words, and for its connections."""

import os
import socket


class Manager:
    """A NOTIFY_SOCKET: what slotd said, in order."""

    def __init__(self, bed, name="notify"):
        self.path = bed.dir / f"{name}.socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)
        self.said = []

    def env(self, watchdog_s=None):
        """For the process."""
        env = {"NOTIFY_SOCKET": str(self.path)}
        if watchdog_s:
            env["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        return env

    def hear(self):
        """Everything that was said so far, a line each."""
        while True:
            try:
                self.said += self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.said

    def count(self, word):
        """How often it was said."""
        return self.hear().count(word)


class Keeper:
    """A listening socket that outlives the process that serves it."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.socket.getsockname()[1]

    def hand_to(self, process):
        """Makes a process of the bed start with it, as its third descriptor."""
        at = self.socket.fileno()
        os.set_inheritable(at, True)
        process.fds = (at,)
        words = f'exec 3<&{at}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
        process.argv = ["bash", "-c", words, "bash", *process.argv]
