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


class Standin(flight.FlightServerBase):  # type: ignore[misc]
    """Serves `batches` to whoever asks for anything."""

    def __init__(self, batches: list[pa.RecordBatch], *, told: dict[str, Any] | None = None, total_records: int = -1):
        super().__init__("grpc://127.0.0.1:0")
        self.batches = batches
        self.told: Any = told
        self.total_records = total_records
        self.downloads = 0
        self.headers: list[dict[str, list[str]]] = []
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
        endpoint = flight.FlightEndpoint(b"ticket", [])
        return flight.FlightInfo(
            self.batches[0].schema, descriptor, [endpoint], self.total_records, -1, app_metadata=told
        )

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        self.downloads += 1
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
