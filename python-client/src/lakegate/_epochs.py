"""In which order rows are handed out for training: shuffled or not, in shards, in batches of one size.

A shuffle is made of blocks and windows: the order of the blocks (the batches of the local file) is drawn from the seed,
then blocks are taken in that order until they fill a window, whose rows are put in an order drawn from seed and window.
So rows that lie far apart in the file meet in one window, and those of one window are mixed perfectly; the rows of one
block stay within one window. It reads each byte once, in pieces as large as a block.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lakegate._rows_file import RowsFile

#: Bytes of a window where its rows are not given. Twice as much is in memory at a time: the window, and it in its new
#: order.
WINDOW_BYTES = 128 * 1024**2


def checked(batch_size: int, shard: tuple[int, int], shuffle_window: int | None) -> tuple[int, int]:
    """Return a shard, number and count, after a look at what one can ask for.

    Raises
    ------
    ValueError
        When the shard's number is not in 0 … count - 1, or one of the others not 1 or more.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it has to be 1 or more")
    if shuffle_window is not None and shuffle_window < 1:
        raise ValueError(f"shuffle_window is {shuffle_window}; it has to be 1 or more")
    number, count = shard
    if not 0 <= number < count:
        raise ValueError(f"shard is ({number}, {count}); write (i, n) with i from 0 to n - 1")
    return number, count


def worker_shard(shard: tuple[int, int], *, worker: int, workers: int) -> tuple[int, int]:
    """Return the part of a shard that one of several workers takes; together they have all of it, and nothing twice."""
    number, count = shard
    return number + count * worker, count * workers


def shuffled(file: RowsFile, *, seed: str, shard: tuple[int, int], window_rows: int | None) -> Iterator[pa.RecordBatch]:
    """Yield one shard of a file's rows in the order drawn from the seed: row i, i + n, i + 2n … of that order."""
    number, count = shard
    position = 0
    windows = _windows(file, _permutation(len(file.row_counts), f"{seed} blocks").to_pylist(), window_rows)
    for index, blocks in enumerate(windows):
        rows = sum(file.row_counts[block] for block in blocks)
        wanted = _permutation(rows, f"{seed} window {index}")[(number - position) % count :: count]
        position += rows
        if len(wanted):
            yield _joined([file.batch(block) for block in blocks]).take(wanted)


def in_order(batches: Iterable[pa.RecordBatch], *, shard: tuple[int, int]) -> Iterator[pa.RecordBatch]:
    """Yield one shard of rows in the order they come: row i, i + n, i + 2n …."""
    number, count = shard
    position = 0
    for batch in batches:
        if count == 1:
            yield batch
            continue
        wanted = range((number - position) % count, batch.num_rows, count)
        position += batch.num_rows
        if wanted:
            yield batch.take(pa.array(wanted, pa.int64()))


def of_one_size(batches: Iterable[pa.RecordBatch], *, size: int, drop_last: bool) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of exactly `size`, but for the last, which may have fewer or be dropped."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        start = 0
        while rows + batch.num_rows - start >= size:
            piece = batch.slice(start, size - rows)
            yield _joined([*waiting, piece])
            start += piece.num_rows
            waiting, rows = [], 0
        if start < batch.num_rows:
            waiting.append(batch.slice(start))
            rows += batch.num_rows - start
    if rows and not drop_last:
        yield _joined(waiting)


def _windows(file: RowsFile, order: Sequence[int], window_rows: int | None) -> Iterator[list[int]]:
    """Yield blocks in an order, as many at a time as fill a window."""
    if window_rows is None:
        window_rows = max(1, WINDOW_BYTES * max(file.rows, 1) // max(file.bytes, 1))
    window: list[int] = []
    rows = 0
    for block in order:
        window.append(block)
        rows += file.row_counts[block]
        if rows >= window_rows:
            yield window
            window, rows = [], 0
    if window:
        yield window


def _permutation(length: int, seed: str) -> pa.Array:
    """Return 0 … length - 1 in an order that a seed decides, the same on each machine."""
    number = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "little") >> 1
    return pc.array_sort_indices(pc.random(length, initializer=number))


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return batches of one schema as one."""
    if len(batches) == 1:
        return batches[0]
    columns = [
        pa.concat_arrays([batch.column(number) for batch in batches]) for number in range(batches[0].num_columns)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)
