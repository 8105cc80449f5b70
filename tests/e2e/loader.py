"""Asks for one file at a steady rate, each time over a connection of its own: a program, so that
its pace is not the suite's. `loader.py PORT PATH RATE` goes on until its input ends. Prints a line
at the first answer, and at the end what came of it all as JSON."""

import itertools
import json
import socket
import sys
import threading
import time

THREADS = 16
PATIENCE_S = 30


def main():
    """Shares the requests among the threads, each at its own times."""
    port, path, rate = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    request = (f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
               "Connection: close\r\n\r\n").encode()
    failures, times = [], []
    ended = threading.Event()
    _ask(port, request)
    print("asking", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    began = time.monotonic()

    def ask_on(thread):
        for n in itertools.count(thread, THREADS):
            if ended.wait(max(0.0, began + n / rate - time.monotonic())):
                return
            start = time.monotonic()
            try:
                answer = _ask(port, request)
                if not answer.startswith(b"HTTP/1.1 200"):
                    failures.append(repr(answer[:60]))
            except OSError as error:
                failures.append(repr(error))
            times.append(time.monotonic() - start)

    threads = [threading.Thread(target=ask_on, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"failures": failures, "requests": len(times),
                      "slowest_s": max(times, default=0.0), "seconds": time.monotonic() - began}))


def _ask(port, request):
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as stream:
        stream.sendall(request)
        answer = b""
        while piece := stream.recv(65536):
            answer += piece
        return answer


if __name__ == "__main__":
    main()
