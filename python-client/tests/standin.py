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


class _Heard(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Notes the headers with which descriptions are asked for."""

    def __init__(self, heard: list[dict[str, list[str]]]):
        self._heard = heard

    def start_call(self, info: flight.CallInfo, headers: dict[str, list[str]]) -> None:
        if info.method == flight.FlightMethod.GET_FLIGHT_INFO:
            self._heard.append(headers)


class Standin(flight.FlightServerBase):  # type: ignore[misc]
    """Serves `batches` to whoever asks for anything."""

    def __init__(self, batches: list[pa.RecordBatch], *, told: dict[str, Any] | None = None, total_records: int = -1):
        heard: list[dict[str, list[str]]] = []
        super().__init__("grpc://127.0.0.1:0", middleware={"heard": _Heard(heard)})
        self.batches = batches
        self.told: Any = told
        self.total_records = total_records
        self.downloads = 0
        self.headers = heard
        #: What those are told and sent who say what they have.
        self.grown: tuple[dict[str, Any], list[pa.RecordBatch]] | None = None
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
        told, ticket = self.told, b"whole"
        if self.grown is not None and "lakegate-have" in self.headers[-1]:
            told, ticket = self.grown[0], b"grown"
        told = told if isinstance(told, bytes) else json.dumps(told).encode() if told else b""
        endpoint = flight.FlightEndpoint(ticket, [])
        return flight.FlightInfo(
            self.batches[0].schema, descriptor, [endpoint], self.total_records, -1, app_metadata=told
        )

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        self.downloads += 1
        # Not a GeneratorStream, which sends no dictionaries.
        batches = self.grown[1] if self.grown is not None and ticket.ticket == b"grown" else self.batches
        reader = pa.RecordBatchReader.from_batches(batches[0].schema, self._sent(context, batches))
        return flight.RecordBatchStream(reader)

    def _sent(self, context: flight.ServerCallContext, batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches):
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
