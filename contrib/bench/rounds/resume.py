"""An upload that is cut half-way and goes on by its resume URL, as a client sees it."""

import socket
import time
from urllib.parse import urlsplit

from tools import MIB, Failed

# A client sends in such pieces; it knows no more of what arrived when it is cut.
PIECE_BYTES = 64 << 10


def _connect(url):
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    return connection, f"{target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"


def _answer(connection):
    """Status and fields of an answer; whatever interim ones come first."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                raise Failed("the connection was closed without an answer")
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        status = int(first.split()[1])
        if status >= 200:
            fields = (line.partition(":") for line in lines)
            return status, {name.lower(): value.strip() for name, _, value in fields}


def _send_half(url, size):
    """A PUT whose connection is reset half-way: the bytes that were handed to the kernel."""
    connection, target = _connect(url)
    connection.sendall(f"PUT {target}Content-Length: {size}\r\n\r\n".encode())
    piece, sent = b"x" * PIECE_BYTES, 0
    while sent < size // 2:
        connection.sendall(piece)
        sent += len(piece)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    return sent


def measure(put_url, resume_url, size):
    """Cuts, asks for the offset, sends the rest: the figures."""
    sent = _send_half(put_url, size)
    began = time.monotonic()
    connection, target = _connect(resume_url)
    connection.sendall(f"HEAD {target}Tus-Resumable: 1.0.0\r\n\r\n".encode())
    status, fields = _answer(connection)
    if "upload-offset" not in fields:
        raise Failed(f"HEAD of the resume URL: {status} {fields}")
    offset = int(fields["upload-offset"])
    rest = size - offset
    connection.sendall(f"PATCH {target}Tus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
                       "Content-Type: application/offset+octet-stream\r\n"
                       f"Content-Length: {rest}\r\n\r\nx".encode())
    ready = time.monotonic() - began
    connection.sendall(b"x" * (rest - 1))
    status, fields = _answer(connection)
    if status not in (200, 201, 204):
        raise Failed(f"PATCH: {status} {fields}")
    connection.close()
    return {"rate": size / MIB, "ready_ms": ready * 1000, "twice_kib": (sent - offset) / 1024}
