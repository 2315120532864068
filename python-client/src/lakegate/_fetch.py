"""Brings the rows of one result here: from the local disk, from the server, or the newest of them from there."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from lakegate import _confirm
from lakegate._announcement import Announcement, Estimate
from lakegate._cache import Cache, Known
from lakegate._columns import as_schema, plain
from lakegate._download import MOST_STARTS, Download, StartOver
from lakegate._errors import Conflict
from lakegate._progress import Report, Wish
from lakegate._rows_file import RowsFile, RowsFileWriter, sweep, temporary_folder
from lakegate._source import Had

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from lakegate._source import Source

_log = logging.getLogger("lakegate")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Terms:
    """How rows are fetched.

    Attributes
    ----------
    fresh
        Whether to fetch them from the server even where the same are on the local disk.
    max_staleness
        For how many seconds after a check the server is not asked again; None asks each time.
    reconnect
        For how many seconds to try to go on after a cut.
    limit, confirm
        Bytes on the line above which somebody is asked first, and who.
    """

    fresh: bool = False
    max_staleness: float | None = None
    reconnect: float = 300.0
    limit: int | None = None
    confirm: _confirm.Confirm | None = None


class Fetch:
    """The rows of one statement.

    Parameters
    ----------
    source
        Where they come from; not asked yet.
    cache
        Where they are kept.
    question
        The cache's name for the statement; None where its answers are not remembered.
    terms
        How they are fetched.
    """

    def __init__(self, *, source: Source, cache: Cache, question: str | None, terms: Terms):
        self._source = source
        self._cache = cache
        self._question = question
        self._terms = terms
        self._look_in_cache = not terms.fresh
        self._file: RowsFile | None = None
        self._before: RowsFile | None = None
        self._downloads: list[Download] = []
        known = None if question is None or terms.fresh else cache.known(question)
        if known is not None and terms.max_staleness is not None and known.is_fresh(terms.max_staleness):
            self.wire_schema = known.schema
            self._announced = Announcement(identity=known.identity, basis=known.basis, not_modified=True)
            self._checked_at = known.checked_at
        else:
            self._ask(Had() if known is None else Had(known.identity, known.basis))
            if known is not None and self._announced.not_modified:
                # The server gives the basis with rows alone; that of the same result is still good.
                self._announced = Announcement(known.identity, known.basis, not_modified=True)
                self._remember()

    @property
    def schema(self) -> pa.Schema:
        """Columns with plain types."""
        return plain(self.wire_schema)

    def estimate(self) -> Estimate:
        """Return how large what is fetched will be: nothing, where the rows are here."""
        file = self.local()
        if file is not None:
            return Estimate(rows=file.rows, rows_exact=True, wire_bytes=0, seconds=0.0)
        self._prepare()
        return self._announced.estimate

    def rows(self) -> tuple[int | None, int | None]:
        """Return how many rows there will be in all: exactly, and about."""
        file = self.local()
        if file is not None:
            return file.rows, file.rows
        before = self._prepare()
        here = 0 if before is None else before.rows
        exact, about = self._announced.rows, self._announced.estimate.rows
        return None if exact is None else here + exact, None if about is None else here + about

    def shown(
        self, schema: pa.Schema, wish: Wish, *, keep: bool = False, required: bool = False, folder: Path | None = None
    ) -> Generator[pa.RecordBatch, None, None]:
        """Yield all rows as `schema` says, telling how far they are.

        What comes from the server goes into the cache on its way; with `keep`, to the local disk in any case (to a
        folder, where one is given), and with `required` it is an error where that fails.
        """
        _, total = self.rows()
        estimate = self._announced.estimate if self._file is None else Estimate()
        report = Report(wish, total_rows=total, total_wire_bytes=estimate.wire_bytes, expected_seconds=estimate.seconds)
        batches = self._arriving(schema, report, keep, required, folder)
        finished = False
        try:
            for batch in batches:
                report.add(rows=batch.num_rows, bytes=batch.nbytes)
                yield batch
                del batch
            finished = True
        finally:
            batches.close()
            report.end(finished=finished)

    def on_disk(self, folder: Path | None, wish: Wish) -> RowsFile:
        """Return the file with all rows, after their download where there is none yet."""

        def download() -> None:
            for _ in self.shown(self.schema, wish, keep=True, required=True, folder=folder):
                pass

        if self.local() is None:
            anew(download)
        file = self.local()
        assert file is not None  # noqa: S101 (it was required)
        return file

    def local(self) -> RowsFile | None:
        """Return the file with all rows, where there is one; the cache is asked once."""
        identity = self._announced.identity
        if self._file is None and identity is not None and self._look_in_cache:
            self._look_in_cache = False
            self._file = self._cache.find(identity, self.schema)
            if self._file is not None:
                self._remember()
        return self._file

    def close(self) -> None:
        """Stop downloads that are still under way, with the work on the server; let go of the local files."""
        for download in list(self._downloads):
            download.cancel()
        self._file = self._before = None

    def _ask(self, had: Had) -> None:
        self._checked_at = time.time()
        self.wire_schema, self._announced = self._source.ask(had)

    def _remember(self) -> None:
        if self._question is not None and self._announced.identity is not None:
            announced = self._announced
            known = Known(self._announced.identity, announced.basis, self.wire_schema, self._checked_at)
            self._cache.remember(self._question, known)

    def _prepare(self) -> RowsFile | None:
        """Make ready to fetch what is not here; return the rows to which what comes is added."""
        announced = self._announced
        if announced.appended_to is not None and self._before is None:
            self._before = self._cache.find(announced.appended_to, self.schema)
        if announced.not_modified or (announced.appended_to is not None and self._before is None):
            # What was said to be here has gone or is damaged.
            schema = self.wire_schema
            self._ask(Had())
            self._before = None
            if not self.wire_schema.equals(schema):
                raise Conflict("the columns of the result are others by now; ask again")
        return self._before

    def _arriving(
        self, schema: pa.Schema, report: Report, keep: bool, required: bool, folder: Path | None
    ) -> Generator[pa.RecordBatch, None, None]:
        file = self.local()
        if file is not None:
            for batch in file.batches():
                yield as_schema(batch, schema)
            return
        before = self._prepare()
        _confirm.check(self._announced.estimate, self._terms.limit, self._terms.confirm)
        cached = self._cache.writer(self.schema, bounded=not keep) if self._is_cached(folder) else None
        writer = cached or (self._own_writer(folder, required) if keep else None)
        download = Download(source=self._source, reconnect=self._terms.reconnect, on_cut=report.cut)
        self._downloads.append(download)
        try:
            if before is not None:
                for batch in before.batches():
                    # A file of the cache has the new rows alone.
                    if writer is not None and cached is None and not _written(writer, batch, required):
                        writer = None
                    yield as_schema(batch, schema)
            with contextlib.closing(download.batches()) as arriving:
                for batch in arriving:
                    if writer is not None and not _written(writer, as_schema(batch, self.schema), required):
                        writer = None
                    yield as_schema(batch, schema)
                    del batch
            if writer is not None:
                self._file = self._settled(writer, before if cached is not None else None, keep, required)
        finally:
            self._downloads.remove(download)
            if writer is not None and (self._file is None or self._file.paths[-1] != writer.path):
                writer.discard()

    def _is_cached(self, folder: Path | None) -> bool:
        return self._announced.identity is not None and folder is None

    def _own_writer(self, folder: Path | None, required: bool) -> RowsFileWriter | None:
        folder = temporary_folder() if folder is None else folder
        try:
            sweep(folder)
            return RowsFileWriter(folder, self.schema)
        except OSError as error:
            if required:
                raise
            _log.warning("rows are not kept on the local disk, later passes download them again: %s", error)
            return None

    def _settled(self, writer: RowsFileWriter, before: RowsFile | None, keep: bool, required: bool) -> RowsFile | None:
        """Return all rows, of which a writer wrote those that were not here before.

        In the cache where that is possible, else in a file of this result alone if it is to keep one.
        """
        identity = self._announced.identity
        if identity is not None and writer.path.parent == self._cache.folder:
            file = self._cache.adopt(writer, identity, before=self._announced.appended_to)
            if file is not None:
                self._remember()
            if file is not None or not keep:
                return file
        try:
            writer.finish()
            return RowsFile(*(() if before is None else before.paths), writer.path, remove=True)
        except (OSError, pa.ArrowException) as error:
            if required:
                raise
            _log.warning("rows are not kept on the local disk, later passes download them again: %s", error)
            return None


def anew(fetch: Callable[[], _T]) -> _T:
    """Return what a function gives that fetches all rows and hands none out before; begin again where it has to be."""
    for _ in range(MOST_STARTS - 1):
        try:
            return fetch()
        except StartOver as error:
            _log.warning("a download that was cut starts over: %s", error)
    return fetch()


def _written(writer: RowsFileWriter, batch: pa.RecordBatch, required: bool) -> bool:
    """Write a batch; where that fails (the disk or the cache is full), throw the file away and say so."""
    try:
        writer.write(batch)
    except (OSError, pa.ArrowException) as error:
        writer.discard()
        if required:
            raise
        _log.warning("a result is not kept on the local disk: %s", error)
        return False
    return True
