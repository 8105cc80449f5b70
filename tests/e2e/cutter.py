"""A proxy on loopback that breaks connections where a test wants it, as a bad network does."""

import asyncio

PIECE = 16 * 1024


class Cutter:
    """Forwards to a port of this machine. Of each connection that sends more than `after` bytes it
    takes no more and resets it, `times` times in all."""

    def __init__(self, port, after, times):
        self.target, self.after, self.left = port, after, times
        self.port, self.n_cut = None, 0
        self._server = None

    async def start(self):
        """Listens; the port is in `port`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port or 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self):
        """Listens no more."""
        self._server.close()

    async def _serve(self, reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        up = asyncio.ensure_future(self._pass(reader, up_writer, is_counted=True))
        down = asyncio.ensure_future(self._pass(up_reader, writer))
        done, _ = await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        if up in done and not up.cancelled() and up.result():
            self.n_cut += 1
            writer.transport.abort()
            up_writer.transport.abort()
        else:
            await down
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        for each in (writer, up_writer):
            each.close()

    async def _pass(self, reader, writer, is_counted=False):
        """Whether it ended because this is a connection to be cut."""
        n_bytes = 0
        try:
            while data := await reader.read(PIECE):
                n_bytes += len(data)
                if is_counted and self.left and n_bytes > self.after:
                    self.left -= 1
                    return True
                writer.write(data)
                await writer.drain()
                if is_counted and self.left:
                    # So that what was let through arrives before the reset.
                    await asyncio.sleep(0.001)
            writer.write_eof()
        except (ConnectionError, OSError, RuntimeError):
            pass
        return False
