"""A stand-in for the line between server and people: it carries and counts bytes, and breaks where it is told to."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

#: Bytes that are carried at a time.
PIECE = 1 << 14


class ThinLine:
    """Listens on a free port of this machine for the length of a `with` block.

    How much goes over it in a second is the server's matter, which sends what `[[line]]` of its configuration says.

    Parameters
    ----------
    server
        Address of the server that it leads to.
    """

    def __init__(self, server: str):
        parts = urlsplit(server)
        self._server = (parts.hostname, parts.port)
        self._lock = threading.Lock()
        self._left: int | None = None
        #: Bytes that came down from the server, and that went up to it.
        self.down = 0
        self.up = 0
        line = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                line._carry(self.request)

        self._listener = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
        self._listener.daemon_threads = True

    @property
    def url(self) -> str:
        """The address to give to clients."""
        return f"grpc://127.0.0.1:{self._listener.server_address[1]}"

    @property
    def carried(self) -> int:
        """Bytes in both directions."""
        return self.down + self.up

    def breaks_after(self, size: int) -> None:
        """Break once, when so many bytes more have come down."""
        with self._lock:
            self._left = size

    def __enter__(self) -> ThinLine:
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown()
        self._listener.server_close()

    def _carry(self, client: socket.socket) -> None:
        """Carry what both sides of one connection send, until one of them ends it or the line breaks."""
        with socket.create_connection(self._server) as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    piece = source.recv(PIECE)
                    if not piece or self._is_broken(len(piece), down=source is server):
                        return
                    (client if source is server else server).sendall(piece)

    def _is_broken(self, size: int, *, down: bool) -> bool:
        """Count bytes, and tell whether the line breaks under them."""
        with self._lock:
            if not down:
                self.up += size
                return False
            self.down += size
            if self._left is None:
                return False
            self._left -= size
            if self._left > 0:
                return False
            self._left = None
            return True
