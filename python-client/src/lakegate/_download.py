"""One download from the server, which Ctrl-C ends at once."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from typing import TYPE_CHECKING, Any

from lakegate._errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import pyarrow as pa
    from pyarrow import flight

#: Seconds between two looks at whether Ctrl-C was pressed; only Windows needs it, elsewhere waiting is interrupted.
HEARTBEAT = 0.2


class Download:
    """Batches as they come over the line.

    pyarrow's calls cannot be interrupted, so another thread makes them while this one waits: Ctrl-C reaches
    Python at once, and the call is cancelled from here. Nothing is read ahead.

    Parameters
    ----------
    open_stream
        Begins to fetch; called once.
    cancel
        Tells the server to stop what it does for this result; called where it was left before `open_stream` was
        answered.
    url
        The server's address, for errors.
    """

    def __init__(self, *, open_stream: Callable[[], flight.FlightStreamReader], cancel: Callable[[], None], url: str):
        self._open_stream = open_stream
        self._cancel = cancel
        self._url = url
        self._reader: flight.FlightStreamReader | None = None
        self._given_up = False

    def batches(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield what arrives, never a batch without rows; to leave early, or any error, cancels on the server."""
        caller = ThreadPoolExecutor(1, thread_name_prefix="lakegate-download")
        finished = False
        try:
            with translated(self._url):
                self._reader = self._open(caller)
                if self._given_up:  # by another thread, before there was a stream
                    self._reader.cancel()
                while True:
                    chunk = _interruptible(caller.submit(_next, self._reader))
                    if chunk is None:
                        finished = True
                        return
                    batch = chunk.data
                    del chunk
                    if batch is not None and batch.num_rows:
                        yield batch
                    # Else the frame's own variable would keep the last batch alive while the next one arrives.
                    del batch
        finally:
            if not finished:
                self.cancel()
            self._reader = None
            caller.shutdown(wait=False)

    def cancel(self) -> None:
        """Stop the work on the server; whoever waits for the next batch gets `Cancelled`."""
        self._given_up = True
        reader = self._reader
        if reader is not None:
            reader.cancel()

    def _open(self, caller: ThreadPoolExecutor) -> flight.FlightStreamReader:
        opening = caller.submit(self._open_stream)
        try:
            return _interruptible(opening)
        except BaseException:
            if not opening.done():
                # There is nothing to cancel yet: tell the server by another call, and the stream once it is there.
                opening.add_done_callback(_cancel_opened)
                self._cancel()
            raise


def _next(reader: flight.FlightStreamReader) -> flight.FlightStreamChunk | None:
    try:
        return reader.read_chunk()
    except StopIteration:  # which a future does not hand on
        return None


def _interruptible(future: Future[Any]) -> Any:
    """Return what a future gives; unlike `result()` without a limit, Ctrl-C ends this on each system."""
    while True:
        try:
            return future.result(HEARTBEAT)
        except StillWaiting:
            if future.done():  # since then, or it was the call itself that took too long
                return future.result()


def _cancel_opened(opening: Future[Any]) -> None:
    with contextlib.suppress(Exception):
        opening.result().cancel()
