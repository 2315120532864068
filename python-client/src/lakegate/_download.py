"""One download from the server: it goes on where its line was cut, and Ctrl-C ends it at once."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from typing import TYPE_CHECKING, Any

from lakegate import _said
from lakegate._errors import Cancelled, Conflict, InternalError, LakegateError, PermissionDenied, translated, was_cut
from lakegate._source import START

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import pyarrow as pa
    from pyarrow import flight

    from lakegate._source import Source

#: Seconds between two looks at whether Ctrl-C was pressed; only Windows needs it, elsewhere waiting is interrupted.
HEARTBEAT = 0.2
#: Seconds before the first attempt to go on, and at most before one; each waits twice as long as the one before.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
#: How often a download begins anew by itself: a server that never gives the same rows twice would keep it forever.
MOST_STARTS = 3
# Bytes of the number of a message, and of the hash over it and all before it.
_NUMBER, _HASH = 8, 16
_log = logging.getLogger("lakegate")


class StartOver(Conflict):
    """The rest of a download cannot be had; only all of it anew."""


#: Name of the threads that tell a server that nobody comes back for a result.
CANCELLING = "lakegate-cancel"


class Download:
    """Batches as they come over the line.

    pyarrow's calls cannot be interrupted, so another thread makes them while this one waits: Ctrl-C reaches
    Python at once, and the call is cancelled from here. Nothing is read ahead.

    Parameters
    ----------
    source
        Where the rows come from; it was asked.
    reconnect
        Seconds to try for, after a cut, until the next batch comes.
    on_cut
        Called for each attempt to go on.
    """

    def __init__(self, *, source: Source, reconnect: float, on_cut: Callable[[], None] = lambda: None):
        self._source = source
        self._reconnect = reconnect
        self._on_cut = on_cut
        self._reader: flight.FlightStreamReader | None = None
        self._given_up = threading.Event()
        self._handed_out = False
        self._starts = 1
        # How many messages came, and what names them; None where the server does not say.
        self._messages = 0
        self._position: str | None = None
        # Since when it tries to go on, how often it tried, and whether it has asked for a new ticket.
        self._cut_at: float | None = None
        self._attempts = 0
        self._asked_again = False

    def batches(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield what arrives, never a batch without rows; to leave early, or any error, cancels on the server.

        Raises
        ------
        StartOver
            When rows were handed out and the others cannot be had any more.
        LakegateError
            For whatever else ends it.
        """
        caller = ThreadPoolExecutor(1, thread_name_prefix="lakegate-download")
        over = False
        try:
            while True:
                chunk = self._next(caller)
                if chunk is None:
                    over = True
                    return
                batch = chunk.data
                del chunk
                if batch is not None and batch.num_rows:
                    self._handed_out = True
                    yield batch
                # Else the frame's own variable would keep the last batch alive while the next one arrives.
                del batch
        except LakegateError:
            over = not self._given_up.is_set()
            raise
        finally:
            if not over:
                self.cancel()
                if self._position is not None:
                    # The server would wait for this client to come back. Not by the executor: the garbage collector may
                    # come by here while this thread holds the lock that its `submit` takes.
                    with contextlib.suppress(RuntimeError):  # the interpreter ends
                        # No daemon: whoever leaves after Ctrl-C has to have said so. The call has a time-out.
                        threading.Thread(target=self._source.cancel, name=CANCELLING, daemon=False).start()
            self._reader = None
            caller.shutdown(wait=False)

    def cancel(self) -> None:
        """Stop the work on the server; whoever waits for the next batch gets `Cancelled`."""
        self._given_up.set()
        reader = self._reader
        if reader is not None:
            reader.cancel()

    def _next(self, caller: ThreadPoolExecutor) -> flight.FlightStreamChunk | None:
        """Return what comes next, from as many connections as that takes; None at the end."""
        while True:
            try:
                if self._reader is None:
                    self._reader = self._open(caller)
                    if self._given_up.is_set():  # by another thread, before there was a stream
                        self._reader.cancel()
                chunk = _interruptible(caller.submit(self._heard, _read, self._reader))
            except LakegateError as error:
                self._reader = None
                self._recover(error)
                continue
            if chunk is not None:
                self._arrived(chunk.app_metadata)
            return chunk

    def _open(self, caller: ThreadPoolExecutor) -> flight.FlightStreamReader:
        opening = caller.submit(self._heard, self._source.open, self._position or START)
        try:
            return _interruptible(opening)
        except BaseException:
            if not opening.done():
                # There is nothing to cancel yet: tell the server by another call, and the stream once it is there.
                opening.add_done_callback(_cancel_opened)
                self._source.cancel()
            raise

    def _heard(self, call: Callable[[Any], Any], argument: Any) -> Any:
        """Make a call on the thread for calls; its error knows whether the server itself has spoken."""
        _said.listen()
        try:
            with translated(self._source.url):
                return call(argument)
        except LakegateError as error:
            error._is_final = _said.is_final()
            raise

    def _arrived(self, label: pa.Buffer | None) -> None:
        """Take down where in the result the stream is."""
        self._cut_at, self._attempts, self._asked_again = None, 0, False
        told = b"" if label is None else label.to_pybytes()
        if len(told) != _NUMBER + _HASH:
            self._position = None
            return
        messages = int.from_bytes(told[:_NUMBER], "little") + 1
        if messages <= self._messages:
            raise InternalError("the server sent a part of the result twice")
        self._messages = messages
        # pyarrow's reader is a new one each time, and knows neither schema nor dictionaries.
        self._position = f"{messages}:{told[_NUMBER:].hex()};opening"

    def _recover(self, error: LakegateError) -> None:
        """Make ready for another attempt after an error, or raise it."""
        if self._given_up.is_set():
            raise error
        if self._position is None:
            # Rows that were here may have been handed out for longer than the ticket is good for.
            late = isinstance(error, PermissionDenied) and not self._handed_out and not self._asked_again
            if not late or not self._source.is_named:
                raise error
            self._asked_again = True
            self._source.ask_again()
            return
        resuming = self._cut_at is not None
        if resuming and isinstance(error, Conflict):
            self._start_over(error)
        elif resuming and isinstance(error, PermissionDenied) and not self._asked_again:
            # It may be the ticket that has expired; if it is the person's rights, the same is said again.
            self._asked_again = True
            self._source.ask_again()
        elif was_cut(error):
            self._wait(error)
        else:
            raise error

    def _wait(self, error: LakegateError) -> None:
        now = time.monotonic()
        if self._cut_at is None:
            self._cut_at = now
        pause = min(FIRST_PAUSE * 2**self._attempts, LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311
        left = self._cut_at + self._reconnect - now
        if left <= 0:
            raise error
        self._attempts += 1
        _log.info("the download was cut and goes on: %s", error)
        self._on_cut()
        until = now + min(pause, left)
        while (rest := until - time.monotonic()) > 0:
            if self._given_up.wait(min(rest, HEARTBEAT)):
                raise Cancelled("the download was given up")

    def _start_over(self, error: LakegateError) -> None:
        if self._handed_out or self._starts == MOST_STARTS:
            raise StartOver(
                f"the connection was cut, and the rest of the rows cannot be had; ask for the rows again ({error})"
            ) from error
        _log.warning("a download that was cut starts over: %s", error)
        self._starts += 1
        self._messages, self._position, self._cut_at = 0, None, None


def _read(reader: flight.FlightStreamReader) -> flight.FlightStreamChunk | None:
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
