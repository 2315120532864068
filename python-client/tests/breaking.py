"""A way to a server that breaks: it carries bytes, counts those that come from the server, and cuts connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType


class Breaking:
    """Listens on a port of its own until the `with` block ends.

    Parameters
    ----------
    url
        The server's address.
    port
        Where to listen; a free one where it is 0.
    """

    def __init__(self, url: str, *, port: int = 0):
        self.target = url
        #: Bytes that came from the server in all.
        self.carried = 0
        #: Once so many bytes more have come from there, all connections are cut; None never cuts.
        self.cut_after: int | None = None
        #: Times they were cut.
        self.cuts = 0
        #: Once so many bytes have come from there, no more are carried: those who wait stay where they are.
        self.hold_after: int | None = None
        #: Set once somebody waits.
        self.held = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address to give to clients."""
        return f"grpc://127.0.0.1:{self.port}"

    def __enter__(self) -> Breaking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        # Closing alone does not wake who waits for connections.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections there are."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            parts = urlsplit(self.target)
            try:
                server = socket.create_connection((parts.hostname, parts.port))
            except OSError:  # the server is gone for now
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            threading.Thread(target=self._carry, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, True), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                sink.sendall(data)
                if counted and self._count(len(data)):
                    self.cut()
                    return
                if counted and self.hold_after is not None and self.carried >= self.hold_after:
                    self.held.set()
                    self._ended.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def _count(self, length: int) -> bool:
        with self._lock:
            self.carried += length
            if self.cut_after is None:
                return False
            self.cut_after -= length
            if self.cut_after > 0:
                return False
            self.cut_after = None
            self.cuts += 1
            return True
