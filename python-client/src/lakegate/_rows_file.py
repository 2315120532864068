"""Rows on the local disk: Arrow IPC files, written while they arrive and mapped into memory when read."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import sys
import tempfile
import weakref
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Bytes read at once to check a file.
CHECK_BYTES = 1 << 20
_PART = re.compile(r"part-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{16}\.arrow")


class RowsFile:
    """Rows in one finished file, or in several of one schema, one after the other.

    Parameters
    ----------
    paths
        Where they are, at least one.
    remove
        Whether the last one goes when this object does: nobody else knows of it.
    """

    def __init__(self, *paths: Path, remove: bool = False):
        self.paths = paths
        sources = [pa.memory_map(str(path)) for path in paths]
        readers = [pa.ipc.open_file(source) for source in sources]
        self.schema: pa.Schema = readers[0].schema
        self._places = [(reader, number) for reader in readers for number in range(reader.num_record_batches)]
        self.row_counts = [reader.get_batch(number).num_rows for reader, number in self._places]
        self.bytes: int = sum(source.size() for source in sources)
        # A forked process has a copy of this object, and must not take the file from its parent.
        if remove:
            weakref.finalize(self, _remove, paths[-1], os.getpid())

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(self.row_counts)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all batches in order, each a view of its file."""
        return map(self.batch, range(len(self.row_counts)))

    def batch(self, number: int) -> pa.RecordBatch:
        """Return one batch, a view of its file."""
        reader, place = self._places[number]
        return reader.get_batch(place)

    def held(self) -> RowsFile:
        """Return the same rows under names of their own, which go with what is returned.

        For who opens them by name later: whoever makes room in a cache removes the names they have there. The same
        object where a file system has no second names.
        """
        names = [path.with_name(_part_name()) for path in self.paths]
        try:
            for path, name in zip(self.paths, names, strict=True):
                os.link(path, name)
            held = RowsFile(*names)
        except (OSError, pa.ArrowException):
            for name in names:
                _remove(name, os.getpid())
            return self
        for name in names:
            weakref.finalize(held, _remove, name, os.getpid())
        return held


class RowsFileWriter:
    """Writes rows under a temporary name, counting their checksum.

    A file that was not finished is removed; one that was left by a process which died, by :func:`sweep`.

    Parameters
    ----------
    folder
        Where to; has to be there.
    schema
        The rows' schema, without dictionaries, which a file could not replace from batch to batch.
    limit
        Bytes it may become; more is an `OSError`, as is a full disk.
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, limit: int | None = None):
        self.path = folder / _part_name()
        self._sink = _Sink(self.path, limit)
        self._finished: tuple[int, int] | None = None
        try:
            self._writer = pa.ipc.new_file(pa.PythonFile(self._sink, mode="w"), schema)
        except BaseException:
            self.discard()
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._writer.write_batch(batch)

    def finish(self) -> tuple[int, int]:
        """Write what belongs to the end and put all on the disk; return the length in bytes and the CRC-32.

        A second call returns the same.
        """
        if self._finished is None:
            self._writer.close()
            self._finished = self._sink.finish()
        return self._finished

    def discard(self) -> None:
        """Remove what was written; may be called at any time, also after `finish`."""
        self._sink.abandon()
        with contextlib.suppress(OSError):
            self.path.unlink()


class _Sink:
    """What pyarrow writes to, as a Python file."""

    def __init__(self, path: Path, limit: int | None):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._limit = limit
        self._length = self._checksum = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        if self._limit is not None and self._length + len(data) > self._limit:
            raise OSError(f"the rows take more than the {self._limit} bytes there are for them")
        self._file.write(data)
        self._length += len(data)
        self._checksum = zlib.crc32(data, self._checksum)
        return len(data)

    def tell(self) -> int:
        return self._length

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True

    def finish(self) -> tuple[int, int]:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._length, self._checksum

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written is not wanted any more
            self._file.close()


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file, reading all of it."""
    found = 0
    with path.open("rb") as file:
        while data := file.read(CHECK_BYTES):
            found = zlib.crc32(data, found)
    return found


def temporary_folder() -> Path:
    """Return where files go that are nobody's cache: the system's folder for temporary files."""
    return Path(tempfile.gettempdir())


def sweep(folder: Path, *, alive: Callable[[int], bool] | None = None) -> None:
    """Remove unfinished files of processes of this machine that are no more."""
    alive = _alive if alive is None else alive
    for path in folder.glob("part-*.arrow"):
        found = _PART.fullmatch(path.name)
        if found and found["host"] == _host() and not alive(int(found["process"])):
            with contextlib.suppress(OSError):
                path.unlink()


def _alive(process: int) -> bool:
    if sys.platform == "win32":  # where a signal 0 would be Ctrl-C; files in use cannot be removed there anyway
        return process == os.getpid()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _part_name() -> str:
    """Return a name for a file that goes with this process, and that :func:`sweep` knows."""
    return f"part-{_host()}-{os.getpid()}-{secrets.token_hex(8)}.arrow"


def _host() -> str:
    """Return a short name of this machine: a home folder may be shared by several."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            path.unlink()
