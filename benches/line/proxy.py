"""A line that does not exist: bytes pass after a delay, at a rate, from an address, are counted, and can be cut.

It runs as a process of its own. After `listening on HOST:PORT` it answers each line it is given with one line:

* `count` with the bytes passed so far, `{"down": …, "up": …}`; down is from the server to the client,
* `cut N` with `armed`: all connections end at once when N more bytes have come down. New ones are let in.

Only what comes down is held to the rate, as downloads are what is measured. Bytes are those of the stream, without the
headers of IP and TCP.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass, field

READ_BYTES = 64 * 1024
#: Bytes on their way where nothing limits the rate: 25 ms of a fast network.
FAR_BYTES = 8 * 1024 * 1024
#: Fewest bytes on their way, and how long a slow line's queue is (that of the shaped link is as long).
NEAR_BYTES = 64 * 1024
QUEUE_SECONDS = 0.05


class Bucket:
    """Lets so many bytes a second pass, in the order in which they asked, and `burst` bytes at once after a pause."""

    def __init__(self, bytes_per_second: float, burst: int = NEAR_BYTES):
        self._seconds_per_byte = 1 / bytes_per_second
        self._pause = burst / bytes_per_second
        self._free_at = 0.0

    def reserve(self, size: int, now: float) -> float:
        """Return when so many bytes may pass that ask at `now`, in seconds of the same clock."""
        self._free_at = max(self._free_at, now - self._pause) + size * self._seconds_per_byte
        return max(now, self._free_at)


@dataclass
class Proxy:
    """One listening address that stands for one server.

    `delay` is that of one way in seconds, `bits` the rate of what comes down in bits a second, `source` the address
    that the server sees.
    """

    host: str
    port: int
    delay: float = 0.0
    bits: float | None = None
    source: str | None = None
    down: int = 0
    up: int = 0
    cut_at: int | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make the bucket all connections share, and say how much may be on its way."""
        self._bucket = Bucket(self.bits / 8) if self.bits else None
        self._room = FAR_BYTES
        if self.bits:
            self._room = max(NEAR_BYTES, int(self.bits / 8 * (self.delay + QUEUE_SECONDS)))

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> asyncio.Server:
        """Listen; the address is that of the server's socket."""
        return await asyncio.start_server(self._connected, host, port, limit=READ_BYTES)

    def cut(self, after: int) -> None:
        """End all connections once so many more bytes have come down."""
        self.cut_at = self.down + after
        if after == 0:
            self._end()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        local = (self.source, 0) if self.source else None
        try:
            far = await asyncio.open_connection(self.host, self.port, local_addr=local, limit=READ_BYTES)
        except OSError:
            writer.close()
            return
        ends = {writer, far[1]}
        self._open |= ends
        try:
            await asyncio.gather(self._pump(reader, far[1], down=False), self._pump(far[0], writer, down=True))
        finally:
            self._open -= ends
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool) -> None:
        way = Way(self._room)
        taking = asyncio.create_task(self._take(reader, way))
        try:
            while (piece := await way.get()) is not None:
                due, data = piece
                if down and self._bucket:
                    due = self._bucket.reserve(len(data), due)
                await until(due)
                self._passed(len(data), down=down)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()
        finally:
            taking.cancel()

    async def _take(self, reader: asyncio.StreamReader, way: Way) -> None:
        """Take what a side sends for as long as there is room for it on the way."""
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                await way.put(asyncio.get_running_loop().time() + self.delay, data)
        await way.put(asyncio.get_running_loop().time() + self.delay, None)

    def _passed(self, size: int, *, down: bool) -> None:
        if not down:
            self.up += size
            return
        self.down += size
        if self.cut_at is not None and self.down >= self.cut_at:
            self._end()
            raise ConnectionResetError

    def _end(self) -> None:
        self.cut_at = None
        for end in self._open:
            end.transport.abort()


class Way:
    """What is on its way in one direction: pieces with the moment at which each arrives, bounded by their bytes."""

    def __init__(self, room: int):
        self._room = room
        self._bytes = 0
        self._pieces: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        self._left = asyncio.Event()

    async def put(self, due: float, data: bytes | None) -> None:
        """Send a piece, or the end, once there is room."""
        while self._bytes >= self._room:
            self._left.clear()
            await self._left.wait()
        if data is None:
            self._pieces.put_nowait(None)
            return
        self._bytes += len(data)
        self._pieces.put_nowait((due, data))

    async def get(self) -> tuple[float, bytes] | None:
        """Return the next piece, or None after the last."""
        piece = await self._pieces.get()
        if piece is not None:
            self._bytes -= len(piece[1])
            self._left.set()
        return piece


async def until(due: float) -> None:
    """Wait for a moment of the loop's clock."""
    wait = due - asyncio.get_running_loop().time()
    if wait > 0:
        await asyncio.sleep(wait)


async def answer(proxy: Proxy) -> None:
    """Answer the lines of standard input until it ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        word, *number = line.split()
        if word == "cut":
            proxy.cut(int(number[0]))
            print("armed", flush=True)
        else:
            print(json.dumps({"down": proxy.down, "up": proxy.up}), flush=True)


async def run(given: argparse.Namespace) -> None:
    """Serve until standard input ends."""
    host, port = given.to.rsplit(":", 1)
    proxy = Proxy(host, int(port), delay=given.delay, bits=given.bits, source=given.source)
    async with await proxy.serve(given.listen) as server:
        print("listening on {}:{}".format(*server.sockets[0].getsockname()[:2]), flush=True)
        await answer(proxy)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--to", required=True, help="HOST:PORT of the server")
    arguments.add_argument("--listen", default="127.0.0.1", help="address to listen on")
    arguments.add_argument("--delay", type=float, default=0.0, help="of one way, seconds")
    arguments.add_argument("--bits", type=float, help="a second, of what comes down")
    arguments.add_argument("--source", help="address to connect from")
    asyncio.run(run(arguments.parse_args()))
