"""Results kept on the local disk, so that what has not changed is not sent again.

A server names each result by its identity: the same question to the same versions of the tables with the same rights.
It is asked for it each time, and decides each time whether the one who asks may have the rows; only the rows
themselves are then taken from here. Layout: `FOLDER/OWNER/IDENTITY-LENGTH-CHECKSUM.arrow`, an Arrow IPC file with
plain types; OWNER stands for the server's address and the person. Of a result that grew with its table
`IDENTITY+BEFORE-LENGTH-CHECKSUM.arrow` has the new rows alone: the others are those of the result BEFORE. A name
appears when the file is complete, and the file never changes after that, so several processes may share a folder
without locks.

`OWNER/QUESTION.known` says which result was the last answer to a question, a hash of its text and values.

The command line reads and writes the same files (`src/flight/client_cache.rs`): what changes here changes there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from lakegate._rows_file import RowsFile, RowsFileWriter, checksum, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Bytes a cache takes at most where nothing else is said, and the share of the free disk, of which the smaller counts.
DEFAULT_SIZE = 10 * 1024**3
DEFAULT_SHARE = 0.1
#: Files one result may lie in; what grew more often is fetched whole again.
MOST_FILES = 256
#: Questions whose last answer is remembered, some kilobytes each.
MOST_KNOWN = 1000
_NAME = re.compile(
    r"(?P<identity>[0-9a-f]{16,64})(?:\+(?P<before>[0-9a-f]{16,64}))?-(?P<length>\d+)-(?P<checksum>[0-9a-f]{8})\.arrow"
)
_log = logging.getLogger("lakegate")


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A result on the local disk.

    Attributes
    ----------
    identity
        The server's name for it.
    bytes
        What it takes on the disk, without rows of an earlier result that it shares.
    used_at
        When it was read or written last, in seconds since 1970.
    """

    identity: str
    bytes: int
    used_at: float


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the last answer to a question, whose rows are here.

    Attributes
    ----------
    identity
        The server's name for the result.
    basis
        What to show the server, to be sent new rows alone; None where it gave nothing.
    schema
        Columns as they travel.
    checked_at
        When the server said last that it is the answer, in seconds since 1970.
    """

    identity: str
    basis: str | None
    schema: pa.Schema
    checked_at: float

    def is_fresh(self, max_staleness: float) -> bool:
        """Tell whether it was checked within so many seconds; a clock that was set back is no proof of it."""
        return 0 <= time.time() - self.checked_at <= max_staleness


class Cache:
    """Results of one server and person on the local disk; :attr:`lakegate.Client.cache`.

    The size is a bound for all that is in the folder, those of other servers and persons too; what was not used for
    longest goes first.

    Parameters
    ----------
    folder
        Where it is, made when the first result is kept; None keeps nothing.
    owner
        Stands for server and person, from :func:`owner`.
    size
        Bytes it may take; None for the smaller of 10 GiB and a tenth of what is free on the disk.
    """

    def __init__(self, *, folder: Path | None, owner: str, size: int | None = None):
        if size is not None and size < 0:
            raise ValueError(f"cache_size is {size} bytes; it has to be 0 or more")
        self._root = folder if size != 0 else None
        self._own = None if self._root is None else self._root / owner
        self._size = size

    @property
    def folder(self) -> Path | None:
        """Where the results are; None where none are kept."""
        return self._own

    def entries(self) -> list[CacheEntry]:
        """List the results of this server and person, the one used last first."""
        found = [CacheEntry(file.identity, file.length, file.used_at) for file in _files(self._own)]
        return sorted(found, key=lambda entry: entry.used_at, reverse=True)

    def size(self) -> int:
        """Return the bytes that the results of this server and person take."""
        return sum(entry.bytes for entry in self.entries())

    def clear(self) -> None:
        """Remove the results of this server and person; who is reading one goes on undisturbed."""
        for file in _files(self._own):
            _unlink(file.path)
        for path in _known_files(self._own):
            _unlink(path)

    def known(self, question: str) -> Known | None:
        """Return the last answer to a question, if its rows still seem to be here."""
        if self._own is None:
            return None
        try:
            told = json.loads((self._own / f"{question}.known").read_text(encoding="utf-8"))
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(told["schema"])))
            found = Known(told["identity"], told["basis"], schema, float(told["checked_at"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            _log.warning("what was remembered of an answer cannot be read: %s", error)
            return None
        return found if self._chain(found.identity) else None

    def remember(self, question: str, answer: Known) -> None:
        """Take down what the last answer to a question is; without effect where that cannot be."""
        if self._own is None:
            return
        told = {
            "identity": answer.identity,
            "basis": answer.basis,
            "schema": base64.b64encode(answer.schema.serialize().to_pybytes()).decode(),
            "checked_at": answer.checked_at,
        }
        path = self._own / f"{question}.known"
        part = self._own / f"{question}-{secrets.token_hex(8)}.part"
        try:
            part.touch(mode=0o600, exist_ok=False)
            part.write_text(json.dumps(told), encoding="utf-8")
            part.replace(path)
            older = sorted(_known_files(self._own), key=_written_at, reverse=True)[MOST_KNOWN:]
        except OSError as error:
            _log.warning("what the answer was is not remembered: %s", error)
            _unlink(part)
            return
        for forgotten in older:
            _unlink(forgotten)

    def find(self, identity: str, schema: pa.Schema) -> RowsFile | None:
        """Return the rows of an identity, after a look at each byte; what is damaged is removed.

        Parameters
        ----------
        identity
            The server's name for the result.
        schema
            What the rows have to look like.
        """
        # From the newest rows to the oldest, so that those go last on which others hang.
        paths: list[Path] = []
        wanted: str | None = identity
        while wanted is not None:
            file = self._sound(wanted, schema) if len(paths) < MOST_FILES else None
            if file is None:
                for path in paths:  # nothing without the rows before
                    _unlink(path)
                return None
            paths.append(file.path)
            wanted = file.before
        try:
            return RowsFile(*reversed(paths))
        except (OSError, pa.ArrowException) as error:  # another process made room
            _log.warning("a result in the cache has just gone: %s", error)
            return None

    def _sound(self, identity: str, schema: pa.Schema) -> _File | None:
        """Return the file with a result's own rows, after a look at each byte."""
        for file in sorted(_files(self._own, identity), key=lambda file: file.used_at, reverse=True):
            try:
                status = file.path.stat()
                whole = status.st_size == file.length and checksum(file.path) == file.checksum
                if whole and RowsFile(file.path).schema.equals(schema):
                    os.utime(file.path, ns=(time.time_ns(), status.st_mtime_ns))
                    return file
            except FileNotFoundError:  # another process made room
                continue
            except (OSError, pa.ArrowException) as error:
                _log.warning("a result in the cache cannot be read and is fetched again: %s", error)
            _unlink(file.path)
        return None

    def _chain(self, identity: str) -> bool:
        """Tell whether all files of a result are there, without a look into them."""
        wanted: str | None = identity
        for _ in range(MOST_FILES):
            files = _files(self._own, wanted)
            if not files:
                return False
            wanted = next((file.before for file in files if file.before is not None), None)
            if wanted is None or any(file.before is None for file in files):
                return True
        return False

    def writer(self, schema: pa.Schema, *, bounded: bool = True) -> RowsFileWriter | None:
        """Begin to keep a result; None where nothing is kept, or cannot be.

        The caller hands it to :meth:`adopt` when all rows are in it, or discards it.

        Parameters
        ----------
        schema
            That of the rows.
        bounded
            Whether to write more than the cache may hold is an error at once.
        """
        if self._root is None or self._own is None:
            return None
        try:
            # A folder of the user's own may be meant for others too; what is kept in it is not.
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(self._own)
            sweep(self._own)
            return RowsFileWriter(self._own, schema, limit=self._bound() if bounded else None)
        except (OSError, pa.ArrowException) as error:
            _log.warning("results are not kept in %s: %s", self._root, error)
            return None

    def adopt(self, writer: RowsFileWriter, identity: str, *, before: str | None = None) -> RowsFile | None:
        """Finish what a writer of this cache wrote and keep it; return all rows of the result.

        None where it is larger than the cache may be, or that fails; the file is then left to the caller.

        Parameters
        ----------
        writer
            With all rows, or those that were added.
        identity
            The server's name for the result.
        before
            Its name for the result whose rows come before; it has to be here.
        """
        if self._own is None:
            return None
        try:
            length, found = writer.finish()
            older = self._paths(before)
            if length + sum(file.stat().st_size for file in older) > self._bound():
                return None
            name = identity if before is None else f"{identity}+{before}"
            path = self._own / f"{name}-{length}-{found:08x}.arrow"
            # Over one of the same name too, which has the same bytes unless it was damaged.
            writer.path.replace(path)
            for other in _files(self._own, identity):
                if other.path != path:
                    _unlink(other.path)
            kept = RowsFile(*older, path)
            self._make_room(kept.paths)
        except (OSError, pa.ArrowException) as error:
            _log.warning("a result is not kept in %s: %s", self._own, error)
            return None
        return kept

    def _paths(self, identity: str | None) -> list[Path]:
        """Return the files of a result, the oldest rows first."""
        paths: list[Path] = []
        while identity is not None:
            files = _files(self._own, identity)
            if not files or len(paths) == MOST_FILES:
                raise FileNotFoundError(f"rows of the result {identity} have just gone")
            file = max(files, key=lambda file: file.used_at)
            paths.insert(0, file.path)
            identity = file.before
        return paths

    def _bound(self) -> int:
        if self._size is not None or self._root is None:
            return self._size or 0
        taken = sum(file.length for file in self._everybodys())
        return min(DEFAULT_SIZE, int((shutil.disk_usage(self._root).free + taken) * DEFAULT_SHARE))

    def _everybodys(self) -> Iterator[_File]:
        if self._root is not None:
            for folder in self._root.iterdir():
                yield from _files(folder)

    def _make_room(self, newest: Sequence[Path]) -> None:
        files = sorted(self._everybodys(), key=lambda file: file.used_at)
        excess = sum(file.length for file in files) - self._bound()
        for file in files:
            if excess <= 0:
                return
            if file.path not in newest:
                _unlink(file.path)
                excess -= file.length


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    identity: str
    before: str | None
    length: int
    checksum: int
    used_at: float


def _files(folder: Path | None, identity: str | None = None) -> list[_File]:
    """Return the results in one owner's folder, of one identity or all; none where there is no such folder."""
    found: list[_File] = []
    if folder is None:
        return found
    for path in folder.glob(f"{identity or ''}*.arrow"):
        name = _NAME.fullmatch(path.name)
        if name is None or identity not in (None, name["identity"]):
            continue
        with contextlib.suppress(OSError):  # it has just gone
            used_at = path.stat().st_atime
            sizes = (int(name["length"]), int(name["checksum"], 16))
            found.append(_File(path, name["identity"], name["before"], *sizes, used_at))
    return found


def _known_files(folder: Path | None) -> list[Path]:
    return [] if folder is None else list(folder.glob("*.known"))


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it has just gone
        return 0.0


def question(*parts: bytes) -> str:
    """Return a name for a question, from which it cannot be read."""
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()[:32]


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):  # it is gone, or (Windows) somebody reads it
        path.unlink()


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter; one of somebody else is an error."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform != "win32":
        status = folder.stat()
        if status.st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to somebody else")
        if status.st_mode & 0o077:
            folder.chmod(0o700)


def default_folder() -> Path:
    """Return where this system keeps what can be made anew: `XDG_CACHE_HOME` and its like."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "lakegate/cache"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/lakegate"
    # The specification asks to ignore what is no absolute path.
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path.home() / ".cache") / "lakegate"


def owner(
    url: str,
    *,
    user: str | None,
    token: str | None,
    certificate: bytes | None,
    headers: Sequence[tuple[bytes, bytes]],
) -> str:
    """Return a name for a server and the one who asks it, from which neither can be read."""
    who = [url, user, _subject(token) if token else None, certificate and hashlib.sha256(certificate).hexdigest()]
    given = sorted((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    return hashlib.sha256(json.dumps([who, given]).encode()).hexdigest()[:32]


def _subject(token: str) -> str:
    """Return whom a token is about: an identity provider's is renewed each hour, and stays about the same person."""
    parts = token.split(".")
    if len(parts) == 3:
        with contextlib.suppress(ValueError):
            claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
            if isinstance(claims, dict) and claims.get("iss") and claims.get("sub"):
                return json.dumps([claims["iss"], claims["sub"]])
    return token
