"""Files sent and files read, as fast as it goes."""

import time

from tools import MIB, body_file, load, say, settle, touch, write_urls
from work import PART_SECONDS, TARGETS, Work


class Transfers(Work):
    """What is told in MiB a second where files are large, and in requests where they are small."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.unit = "GiB" if self.size.bytes >= 4 * MIB else "1000 req"


class Gets(Transfers):
    """Files read from the page cache."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.filled = {}

    def fill(self, name):
        """A target with files in it, launched once for the whole run."""
        if name not in self.filled:
            size, target = self.size.of(name), self.new(name)
            target.launch(size.n_files, size.bytes)
            put, get = target.lists()
            say(f"    {name}: {size.n_files} files of {size.bytes} bytes")
            load("put", urls=put, connections=size.connections,
                 body=body_file(self.bed.dir, size.bytes))
            target.stop()
            self.filled[name] = (target, get)
        return self.filled[name]

    def measure(self, name):
        size, (target, urls) = self.size.of(name), self.fill(name)
        target.start()
        try:
            options = {"urls": urls, "connections": size.connections, "size": size.bytes,
                       "seconds": PART_SECONDS}
            target.warm()
            load("get", requests=size.n_files, **options)
            return self.timed(target, "get", requests=size.n, **options)
        finally:
            target.stop()

    def close(self):
        for target, _ in self.filled.values():
            settle(*target.directories())


class Puts(Transfers):
    """Files sent, each to a slot of its own."""

    def measure(self, name):
        """One round of one target, in a directory that nobody has written to."""
        if TARGETS[name][0] is None:
            return self.measure_disk(name)
        size, target = self.size.of(name), self.new(name)
        target.launch(size.n, size.bytes)
        try:
            put, _ = target.lists()
            body = body_file(self.bed.dir, size.bytes)
            target.warm()
            touch(size.n * size.bytes)
            return self.timed(target, "put", urls=put, connections=size.connections,
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


class Mixed(Transfers):
    """One PUT for four GETs."""

    def measure(self, name):
        size, target = self.size.of(name), self.new(name)
        target.launch(size.n, size.bytes)
        try:
            n_puts = size.n - size.n_files
            body = body_file(self.bed.dir, size.bytes)
            first = write_urls(target.dir / "first.urls", target.put_urls[n_puts:])
            load("put", urls=first, body=body)
            put = write_urls(target.dir / "mixed-put.urls", target.put_urls[:n_puts])
            get = write_urls(target.dir / "mixed-get.urls", target.get_urls[n_puts:])
            target.warm()
            touch(n_puts * size.bytes)
            return self.timed(target, "mixed", urls=put, get_urls=get, body=body,
                              connections=size.connections, seconds=PART_SECONDS)
        finally:
            target.stop()
            settle(*target.directories())
