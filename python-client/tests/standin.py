"""A stand-in for a server: pyarrow's own Flight server, which answers any statement with rows made here.

It says of a result what lakegate says, and does what the real one cannot be made to do for a test: it counts its
downloads, waits, and ends early.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTITY = "ab" * 32


class _Headers(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Keeps the headers of each call."""

    def start_call(self, info: flight.CallInfo, headers: dict[str, list[str]]) -> _Kept:
        return _Kept(headers)


class _Kept(flight.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, headers: dict[str, list[str]]):
        super().__init__()
        self.headers = {name.lower(): values[0] for name, values in headers.items()}


class Standin(flight.FlightServerBase):  # type: ignore[misc]
    """Serves `batches` to whoever asks for anything."""

    def __init__(self, batches: list[pa.RecordBatch], *, told: dict[str, Any] | None = None, total_records: int = -1):
        super().__init__("grpc://127.0.0.1:0", middleware={"headers": _Headers()})
        self.batches = batches
        self.told: Any = told
        self.total_records = total_records
        self.downloads = 0
        #: What was asked with: headers of descriptions and of downloads.
        self.asked: list[dict[str, str]] = []
        self.fetched: list[dict[str, str]] = []
        #: Gives a description without a way to fetch it to whoever has this identity.
        self.not_modified: str | None = None
        #: Before this batch the server waits until it is cancelled.
        self.hang_before: int | None = None
        #: Before this batch the server fails.
        self.fail_before: int | None = None
        self.hanging = threading.Event()
        self.cancelled = threading.Event()
        self._ending = threading.Event()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def shutdown(self) -> None:
        self._ending.set()
        super().shutdown()

    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        told = self.told if isinstance(self.told, bytes) else json.dumps(self.told).encode() if self.told else b""
        headers = context.get_middleware("headers").headers
        self.asked.append(headers)
        endpoints = [flight.FlightEndpoint(b"ticket", [])]
        if self.not_modified is not None and headers.get("lakegate-if-none-match") == self.not_modified:
            told = json.dumps({"lakegate": 1, "identity": self.not_modified, "not_modified": True}).encode()
            endpoints = []
        return flight.FlightInfo(
            self.batches[0].schema, descriptor, endpoints, self.total_records, -1, app_metadata=told
        )

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        self.downloads += 1
        self.fetched.append(context.get_middleware("headers").headers)
        # Not a GeneratorStream, which sends no dictionaries.
        reader = pa.RecordBatchReader.from_batches(self.batches[0].schema, self._sent(context))
        return flight.RecordBatchStream(reader)

    def _sent(self, context: flight.ServerCallContext) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(self.batches):
            if number == self.hang_before:
                self.hanging.set()
                while not context.is_cancelled():
                    if self._ending.wait(0.01):
                        return
                self.cancelled.set()
                return
            if number == self.fail_before:
                raise flight.FlightServerError("the stand-in ends here")
            yield batch


class Resuming(Standin):
    """Says of each batch which it is, and goes on from there: batch i is message i + 1, its hash the same 16 times."""

    def __init__(self, batches: list[pa.RecordBatch], **options: Any):
        super().__init__(batches, **options)
        #: Before these batches the stream ends as if the server went away, once for each.
        self.cut_before: list[int] = []

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        self.downloads += 1
        self.fetched.append(context.get_middleware("headers").headers)
        position, _, _ = self.fetched[-1]["lakegate-resume"].partition(":")
        return flight.GeneratorStream(self.batches[0].schema, self._labelled(max(int(position) - 1, 0), context))

    def _labelled(self, start: int, context: flight.ServerCallContext) -> Iterator[tuple[pa.RecordBatch, bytes]]:
        for number in range(start, len(self.batches)):
            if number in self.cut_before:
                self.cut_before.remove(number)
                raise flight.FlightUnavailableError("the stand-in goes away")
            if number == self.hang_before:
                self.hanging.set()
                while not context.is_cancelled():
                    if self._ending.wait(0.01):
                        return
                self.cancelled.set()
                return
            yield self.batches[number], label(number + 1)


def label(message: int) -> bytes:
    """Return what goes with a message of :class:`Resuming`."""
    return message.to_bytes(8, "little") + bytes([message % 256]) * 16


def told(identity: str = IDENTITY, **more: Any) -> dict[str, Any]:
    """Return what the server says of a result in `app_metadata`."""
    return {"lakegate": 1, "identity": identity, **more}


def numbered(rows: int, *, of: int = 1000) -> list[pa.RecordBatch]:
    """Return rows `n` = 0, 1, 2 …, with a word as a dictionary that differs from batch to batch, `of` rows each."""
    schema = pa.schema(
        [pa.field("n", pa.int64(), nullable=False), pa.field("word", pa.dictionary(pa.int32(), pa.string()))]
    )
    batches = []
    for start in range(0, max(rows, 1), of):
        numbers = list(range(start, min(start + of, rows)))
        words = pa.array([word(number) for number in numbers], pa.string()).dictionary_encode()
        batches.append(pa.record_batch([pa.array(numbers, pa.int64()), words], schema=schema))
    return batches


def word(number: int) -> str | None:
    """Return the word beside a number."""
    return None if number % 7 == 0 else f"word {number // 500} {number % 3}"
