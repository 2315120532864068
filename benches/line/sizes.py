"""How few bytes a result can be, and how soon it can be there: the physical limit that is compared with.

`stock` is the best that clients decode which are not ours: IPC with ZSTD 1, texts of few values as dictionaries where
that is smaller. `plain` is ZSTD 1 with plain types. `best` is the least of these, of Parquet with ZSTD 9, and of IPC
with dictionaries and ZSTD 9.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from pyarrow import ipc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from links import Link

ROWS = 65_536
#: Rows of the first batches by which it is decided which texts have few values.
SAMPLED_BATCHES = 8


@dataclass(frozen=True)
class Sizes:
    """Bytes of one result in the encodings that matter."""

    rows: int
    raw: int
    plain: int
    stock: int
    best: int


def sizes(reader: pa.RecordBatchReader) -> Sizes:
    """Encode a result in each way, one batch at a time."""
    first = list(itertools.islice(reader, SAMPLED_BATCHES))
    schema = reader.schema
    few = few_values(pa.Table.from_batches(first, schema))
    worded = pa.schema([
        field.with_type(pa.dictionary(pa.int32(), field.type)) if field.name in few else field for field in schema
    ])  # fmt: skip
    sinks = {name: pa.MockOutputStream() for name in ("raw", "plain", "stock", "dense", "parquet")}
    level = {"raw": None, "plain": 1, "stock": 1, "dense": 9}
    writers: dict[str, ipc.RecordBatchStreamWriter | parquet.ParquetWriter] = {
        name: ipc.new_stream(
            sinks[name],
            worded if name in ("stock", "dense") else schema,
            options=ipc.IpcWriteOptions(compression=pa.Codec("zstd", number) if number else None),
        )
        for name, number in level.items()
    }
    writers["parquet"] = parquet.ParquetWriter(sinks["parquet"], schema, compression="zstd", compression_level=9)
    rows = 0
    for batch in itertools.chain(first, reader):
        rows += batch.num_rows
        encoded = pa.Table.from_batches([batch]).cast(worded).combine_chunks().to_batches()
        for name, writer in writers.items():
            for piece in encoded if name in ("stock", "dense") else [batch]:
                writer.write_batch(piece)
    for writer in writers.values():
        writer.close()
    size = {name: sink.size() for name, sink in sinks.items()}
    stock = min(size["stock"], size["plain"])
    return Sizes(rows, size["raw"], size["plain"], stock, min(size["dense"], size["parquet"], stock))


def few_values(sample: pa.Table) -> set[str]:
    """Return the columns of text that are smaller as dictionaries, compressed."""

    def compressed(column: pa.ChunkedArray, *, words: bool) -> int:
        sink = pa.MockOutputStream()
        if words:
            column = pa.chunked_array(
                [chunk.dictionary_encode() for chunk in column.chunks], pa.dictionary(pa.int32(), column.type)
            )
        table = pa.table({"column": column})
        with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1))) as writer:
            writer.write_table(table)
        return int(sink.size())

    texts = [field.name for field in sample.schema if pa.types.is_string(field.type)]
    return {
        name
        for name in texts
        if sample.num_rows and compressed(sample[name], words=True) < compressed(sample[name], words=False)
    }


def limit(link: Link, size: int, raw: int, cpu_seconds: float, copied: float) -> float:
    """Return the seconds below which no program can be: the slowest of line, memory and processor, after a round trip.

    `size` are the bytes of the encoding, `cpu_seconds` what scanning, encoding and decoding took of the processor in
    this run, `copied` the bytes a second that memory takes.
    """
    line = size / link.bytes_per_second if link.bytes_per_second else 0.0
    return link.round_trip + max(line, raw / copied, cpu_seconds / (os.cpu_count() or 1))


def copied_bytes_per_second() -> float:
    """Return how fast memory is copied, the best of five."""
    source = np.ones(128 * 1024 * 1024, dtype=np.uint8)
    target = np.empty_like(source)
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        taken.append(time.perf_counter() - started)
    return source.nbytes / min(taken)


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 where all have the same, 1/n where one has all."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def quantile(values: Sequence[float], share: float) -> float:
    """Return the least value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
