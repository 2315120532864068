"""Whether rows fit into memory, asked before they fill it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pyarrow as pa

from lakegate._errors import TooLarge
from lakegate._progress import size_text

#: Share of the memory that is free which rows may take: the prediction is no measurement, and others need some too.
SHARE = 0.8
#: Rows to see before the size of all is foretold from them: the first batch of a result is small and may be odd.
ROWS_TO_JUDGE_BY = 10_000
#: How far off an estimated number of rows may be (nine in ten are within twice), before a download is given up for it.
DOUBT = 2.0
# What CPython 3.11 and numpy take for an object of each kind, beside what is in it.
_TEXT, _BYTES, _NUMBER, _TIME, _DECIMAL, _ARRAY, _LIST, _PAIR = 49, 33, 32, 48, 104, 136, 88, 72
# A dictionary of up to so many fields, each so large.
_FIELDS, _FIELDS_OBJECT = 5, 200
_POINTER = 8
# While values are converted each different one is remembered, so that it is made once: times, and texts.
_TIME_REMEMBERED, _TEXT_REMEMBERED = 56, 96


class Guard:
    """Watches rows arrive and stops them before they fill the memory.

    Parameters
    ----------
    limit
        Bytes that all rows may take; None for :data:`SHARE` of what is free now.
    rows, estimated_rows
        How many rows will come, exactly and about; None where that is not known.
    """

    def __init__(self, limit: int | None, *, rows: int | None, estimated_rows: int | None):
        if limit is not None and limit <= 0:
            raise ValueError(f"max_memory is {limit} bytes; it has to be more than 0")
        free = available_memory() if limit is None else None
        self._limit = limit if limit is not None else None if free is None else int(free * SHARE)
        self._total = rows if rows is not None else estimated_rows
        self._doubt = 1.0 if rows is not None else DOUBT
        self._rows = 0
        self._bytes = 0.0

    def add(self, *, rows: int, bytes: float) -> None:  # noqa: A002 (what it is)
        """Count rows that arrived, with the memory they take in the end.

        Raises
        ------
        TooLarge
            When there are more bytes than may be, or it can be foretold that there will be.
        """
        self._rows += rows
        self._bytes += bytes
        if self._limit is None:
            return
        if self._bytes > self._limit:
            raise self._refusal(f"more than {size_text(self._bytes)}, with {self._rows:,} rows read")
        if self._total is not None and self._rows >= min(ROWS_TO_JUDGE_BY, self._total):
            foretold = self._bytes / self._rows * self._total if self._rows else 0.0
            if foretold > self._limit * self._doubt:
                raise self._refusal(f"about {size_text(foretold)} for {self._total:,} rows")

    def _refusal(self, size: str) -> TooLarge:
        limit = size_text(self._limit or 0)
        return TooLarge(
            f"the rows would take {size} of memory, and {limit} is the limit; go through them with .batches() or "
            ".iter_batches(), write them with .to_parquet(path), select fewer columns or rows, or give a higher "
            "max_memory"
        )


class Sizes:
    """Measures the batches of one result; a dictionary that follows from one batch to the next counts once."""

    def __init__(self) -> None:
        # Where the dictionary of each column was, and how long.
        self._dictionaries: dict[int, tuple[int, int]] = {}

    def arrow(self, batch: pa.RecordBatch) -> float:
        """Return how much memory a batch takes as it is."""
        return float(sum(self._columns(batch)))

    def frame(self, batch: pa.RecordBatch) -> float:
        """Return about how much memory it takes to make a batch a part of a pandas frame of numpy types.

        That is the batch and what becomes of it: columns are given up one by one as they are converted, but those that
        came in one piece stay until the last of them is, and others come in pieces too small to be used again.
        """
        sizes = zip(self._columns(batch), batch.columns, strict=True)
        return float(sum(size + (size if _stays(column.type) else _numpy_bytes(column)) for size, column in sizes))

    def _columns(self, batch: pa.RecordBatch) -> list[int]:
        return [self._size(number, column) for number, column in enumerate(batch.columns)]

    def _size(self, number: int, column: pa.Array) -> int:
        if not pa.types.is_dictionary(column.type):
            return int(column.nbytes)
        words = column.dictionary
        place = next((buffer.address for buffer in reversed(words.buffers()) if buffer is not None), 0)
        here = (place, len(words))
        known = self._dictionaries.get(number) == here
        self._dictionaries[number] = here
        return int(column.indices.nbytes + (0 if known else words.nbytes))


def _stays(kind: pa.DataType) -> bool:
    """Tell whether a column becomes as large in a frame as it is."""
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    # pandas has a text type on Arrow since version 3.
    return bool(pa.types.is_dictionary(kind) or (text and _pandas_has_text()))


def _numpy_bytes(column: pa.Array) -> float:
    """Return about what a column takes in a pandas frame of numpy types."""
    kind, rows = column.type, len(column)
    if pa.types.is_boolean(kind):
        return float(rows * (_POINTER if column.null_count else 1))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        # Whole numbers with nulls become floats.
        widened = pa.types.is_integer(kind) and column.null_count
        return float(rows * (8 if widened else kind.bit_width // 8))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return float(rows * 8)
    return float(rows * _POINTER) + _object_bytes(column)


def _object_bytes(column: pa.Array) -> float:
    """Return about what the values of a column take as Python objects, without the places that point at them."""
    kind, rows = column.type, len(column) - column.null_count
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return 0.0
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return float(rows * _NUMBER)
    if pa.types.is_decimal(kind):
        return float(rows * _DECIMAL)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return float(rows * (_TEXT + _TEXT_REMEMBERED) + column.nbytes)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return float(rows * (_BYTES + _TEXT_REMEMBERED) + column.nbytes)
    if pa.types.is_temporal(kind):
        return float(rows * (_TIME + _TIME_REMEMBERED))
    if pa.types.is_struct(kind):
        objects = -(-kind.num_fields // _FIELDS) or 1
        return float(rows * objects * _FIELDS_OBJECT) + sum(_object_bytes(values) for values in column.flatten())
    if pa.types.is_map(kind):
        pairs = len(column.items)
        # Keys are the same few.
        return float(rows * _LIST + pairs * (_PAIR + _POINTER)) + _object_bytes(column.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        values = column.flatten()
        # Numbers of lists stay where they are, if they can.
        stays = pa.types.is_primitive(values.type) and not pa.types.is_boolean(values.type) and not values.null_count
        return float(rows * _ARRAY) + (0.0 if stays else _numpy_bytes(values))
    return float(rows * _TIME + column.nbytes)  # what else there is: views, dictionaries within lists


def _pandas_has_text() -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and not pandas.__version__.startswith(("1.", "2."))


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that can still be taken without swapping, within the limits of the process's container.

    None where the system does not tell.

    Parameters
    ----------
    root
        Where `proc` and `sys` are, for tests.
    """
    known = [free for free in (_system_memory(root), *_control_groups(root)) if free is not None]
    return max(min(known), 0) if known else None


def _system_memory(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    if sys.platform == "win32":
        return _windows_memory()
    try:
        # macOS tells only what is built in; better than no limit.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _windows_memory() -> int | None:
    """Return `ullAvailPhys` of `GlobalMemoryStatusEx`."""
    status = (ctypes.c_ulonglong * 8)()  # MEMORYSTATUSEX: two 32-bit numbers, then seven of 64 bits
    status[0] = ctypes.sizeof(status)
    kernel = getattr(ctypes, "windll", None)
    if kernel is None or not kernel.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status[2])


def _control_groups(root: Path) -> list[int | None]:
    """Return what is left in each control group the process is in, versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[int | None] = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            base, limit, usage, idle = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            limit, usage, idle = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        # A container may see its own group at the top although the path says otherwise.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        folders = [base.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
        found.extend(_left(folder, limit, usage, idle) for folder in folders)
    return found


def _left(folder: Path, limit: str, usage: str, idle: str) -> int | None:
    """Return what is left in one control group; files read long ago are given back first, so they count as free."""
    try:
        left = int((folder / limit).read_text()) - int((folder / usage).read_text())
    except (OSError, ValueError):  # no such group, or `max`: no limit
        return None
    try:
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == idle:
                return left + int(number)
    except (OSError, ValueError):
        pass
    return left
