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
# What CPython 3.11 takes for an object of each kind beside its content, with its place in a column.
_TEXT_OBJECT = 8 + 49
_BYTES_OBJECT = 8 + 33
_DECIMAL_OBJECT = 8 + 104
# A list or dict of Python objects for what Arrow holds in a buffer; three to eight times as much for small values.
_NESTED_FACTOR = 5


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


def frame_bytes(batch: pa.RecordBatch) -> float:
    """Return about how much memory a batch takes in a pandas frame of numpy types, the larger of before and after.

    Columns are given up one by one as they are converted, so it is not the sum of both.
    """
    return float(sum(max(column.nbytes, _numpy_bytes(column)) for column in batch.columns))


def _numpy_bytes(column: pa.Array) -> int:
    kind, rows = column.type, len(column)
    content: int = column.nbytes
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        # pandas has a text type on Arrow since version 3.
        return content if _pandas_has_text() else rows * _TEXT_OBJECT + content
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return rows * _BYTES_OBJECT + content
    if pa.types.is_decimal(kind):
        return rows * _DECIMAL_OBJECT
    if pa.types.is_boolean(kind):
        return rows * (8 if column.null_count else 1)
    if pa.types.is_nested(kind):
        return content * _NESTED_FACTOR
    if pa.types.is_dictionary(kind):
        return content
    return rows * 8


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
