"""The rows of one statement, fetched when they are asked for."""

from __future__ import annotations

import contextlib
import html
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from lakegate import _epochs
from lakegate._fetch import anew
from lakegate._memory import Guard, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from types import TracebackType

    import pandas
    import polars

    from lakegate._announcement import Estimate
    from lakegate._fetch import Fetch
    from lakegate._progress import Wish
    from lakegate._torch import TorchRows

#: Rows a notebook shows of a result; enough to see what it is, few enough to fetch at once.
PREVIEW_ROWS = 20
#: Characters a notebook shows of one value.
PREVIEW_CHARACTERS = 100
#: Rows and bytes of a row group of Parquet files, of which what is reached first counts: what is in memory while they
#: are written.
ROW_GROUP_ROWS = 1_000_000
ROW_GROUP_BYTES = 128 * 1024**2


class Result:
    """The rows of one statement.

    Nothing is downloaded before rows are asked for. Each way of asking gives the same rows, because the versions of all
    tables were settled when the statement was sent; it downloads anew unless the rows are on the local disk already: in
    the cache of the client, or from :meth:`iter_batches`.
    """

    def __init__(self, fetch: Fetch):
        self._fetch = fetch
        self._schema = fetch.schema

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the columns, known before any row is fetched."""
        return self._schema

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._schema.names)

    @property
    def estimate(self) -> Estimate:
        """How large what will be fetched is, as far as the server knows: nothing, where the rows are here."""
        return self._fetch.estimate()

    def batches(self, *, progress: Wish = False) -> Iterator[pa.RecordBatch]:
        """Fetch the rows piece by piece.

        Parameters
        ----------
        progress
            True shows on the error output how far it is; a function is called with a :class:`Progress` for each batch.

        Yields
        ------
        pyarrow.RecordBatch
            The next rows, in order; usually some thousands, never none. One batch is in memory at a time
            (and what the network has under way); the server waits while nobody asks for the next. To leave
            the loop early, or Ctrl-C, stops the work on the server.

        Raises
        ------
        LakegateError
            When the statement fails while it runs, or the connection is lost for longer than `reconnect`; rows handed
            out before are then not all there are. `Conflict` where the server cannot give the rest of the same rows.
        TooLarge
            When more is known to come than `confirm_above`, and nobody wants it.
        """
        return self._fetch.shown(self._schema, progress)

    def to_arrow(self, *, max_memory: int | None = None, progress: Wish = None) -> pa.Table:
        """Fetch all rows as an Arrow table.

        Parameters
        ----------
        max_memory
            Bytes the rows may take in memory; four fifths of what is free where it is not given (in a container, of
            what its limit leaves).
        progress
            None shows on a terminal how far it is, where it takes longer than a second; True on the error output,
            whatever that is; False shows nothing; a function is called with a :class:`Progress` for each batch.

        Raises
        ------
        TooLarge
            When the rows take more than that, or it can be foretold that they will.
        """
        return self._table(self._schema, max_memory, progress)

    def to_pandas(
        self,
        *,
        types: Literal["numpy", "arrow"] = "numpy",
        categories: bool = False,
        max_memory: int | None = None,
        progress: Wish = None,
    ) -> pandas.DataFrame:
        """Fetch all rows as a pandas frame.

        Parameters
        ----------
        types
            `"numpy"`: what most code expects; whole numbers become floats in columns that have nulls, and
            dates become `datetime64`. `"arrow"`: columns keep their exact types (decimals, whole numbers with
            nulls, lists, structs) as `pandas.ArrowDtype`, and take less memory.
        categories
            Columns of text that the server sends as a list of words and positions in it become pandas categories, which
            takes less memory.
        max_memory, progress
            As in :meth:`to_arrow`; what counts is about what the frame will take.

        Raises
        ------
        TooLarge
            When the frame takes more than `max_memory`, or it can be foretold that it will.
        """
        if types not in ("numpy", "arrow"):
            raise ValueError(f"types is {types!r}; it can be 'numpy' or 'arrow'")
        import pandas

        schema = self._fetch.wire_schema if categories else self._schema
        if types == "arrow":
            table = self._table(schema, max_memory, progress)
            options: dict[str, Any] = {"types_mapper": _arrow_dtype(pandas)}
        else:
            table = self._table(schema, max_memory, progress, as_frame=True)
            # The table is ours alone, so its columns may be given up one by one as they are converted.
            options = {"date_as_object": False, "split_blocks": True, "self_destruct": True}
        return table.to_pandas(**options)

    def to_polars(self, *, max_memory: int | None = None, progress: Wish = None) -> polars.DataFrame:
        """Fetch all rows as a polars frame (needs polars: `pip install 'lakegate[polars]'`).

        Parameters
        ----------
        max_memory, progress
            As in :meth:`to_arrow`.
        """
        import polars

        frame = polars.from_arrow(self.to_arrow(max_memory=max_memory, progress=progress))
        assert isinstance(frame, polars.DataFrame)  # noqa: S101 (a table never becomes a series)
        return frame

    def to_parquet(self, path: str | Path, *, compression: str = "zstd", progress: Wish = None) -> int:
        """Write all rows to a Parquet file, however many they are.

        One row group is in memory at a time. The file appears under its name when it is complete, in place of one that
        was there; nothing is left behind where it does not come to that.

        Parameters
        ----------
        path
            Where to; the folder has to be there.
        compression
            `zstd`, `snappy`, `lz4`, `gzip`, `brotli` or `none`.
        progress
            As in :meth:`to_arrow`.

        Returns
        -------
        int
            How many rows were written.
        """
        import pyarrow.parquet

        path = Path(path)
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")

        def write() -> int:
            rows = 0
            with pyarrow.parquet.ParquetWriter(part, self._schema, compression=compression) as writer:
                for table in _row_groups(self.batches(progress=progress)):
                    writer.write_table(table, row_group_size=max(table.num_rows, 1))
                    rows += table.num_rows
            return rows

        try:
            rows = anew(write)
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return rows

    def iter_batches(
        self,
        batch_size: int,
        *,
        shuffle: int | None = None,
        shard: tuple[int, int] = (0, 1),
        drop_last: bool = False,
        shuffle_window: int | None = None,
        spill_folder: str | Path | None = None,
        progress: Wish = False,
    ) -> Iterator[pa.RecordBatch]:
        """Go through the rows in batches of one size, as often as wanted and downloading once, however many they are.

        The first pass downloads the rows and writes them to the local disk; later ones of this result read that file.
        Without `shuffle` the first pass hands out rows while they arrive. With it the download comes first, because the
        order depends on all rows: so the same seed gives the same order in each pass over the file.

        Parameters
        ----------
        batch_size
            Rows of each batch but the last.
        shuffle
            A seed; another one for each epoch gives each its own order. The batches in which the rows arrived are put
            in an order drawn from it, and taken in that order until they fill a window, within which rows are mixed
            perfectly. So this is no perfect shuffle: rows of one arriving batch come within one window.
        shard
            `(i, n)`: row i, i + n, i + 2n … of the order, which is the same for all n. The shards of one n have all
            rows and none twice; their sizes differ by one at most. Several processes that take a shard each need the
            same order: the statement has to have an `order by` over columns that name a row, else rows may be in two
            shards or in none.
        drop_last
            Leave out a last batch of fewer rows.
        shuffle_window
            Rows of a window, at least; about 128 MiB of them where it is not given. Twice that is in memory.
        spill_folder
            Where the file goes, which is removed with this result; where it is not given, into the cache if the rows
            can be kept there, else where the system has temporary files (which may be in memory: then give one).
        progress
            Of the download, as in :meth:`batches`.

        Yields
        ------
        pyarrow.RecordBatch
        """
        shard = _epochs.checked(batch_size, shard, shuffle_window)
        return self._epoch(batch_size, shuffle, shard, drop_last, shuffle_window, spill_folder, progress)

    def to_torch(
        self,
        batch_size: int,
        *,
        shuffle: int | None = None,
        shard: tuple[int, int] = (0, 1),
        drop_last: bool = False,
        shuffle_window: int | None = None,
        spill_folder: str | Path | None = None,
        progress: Wish = None,
    ) -> TorchRows:
        """Download the rows to the local disk and return them as a PyTorch `IterableDataset` (needs torch).

        Give it to `DataLoader(rows, batch_size=None, num_workers=…)`: it makes batches itself, and each worker takes
        its own rows out of the file, so nothing is downloaded twice. Each batch is a dictionary by column: tensors of
        numbers, lists of everything else (:mod:`lakegate._tensors` says what becomes what). `set_epoch(n)` before a
        pass gives it its own order.

        Parameters
        ----------
        batch_size, shuffle, shard, drop_last, shuffle_window, spill_folder
            As in :meth:`iter_batches`; workers share out the shard among them, and each has a last batch of its own.
        progress
            Of the download, as in :meth:`to_arrow`.

        Raises
        ------
        ImportError
            When torch is not installed.
        """
        shard = _epochs.checked(batch_size, shard, shuffle_window)
        try:
            from lakegate._torch import TorchRows
        except ImportError as error:
            raise ImportError(
                "to_torch needs PyTorch (pip install torch); .iter_batches() gives the same batches as Arrow without it"
            ) from error
        return TorchRows(
            # Workers open the files by name at the beginning of each pass.
            self._fetch.on_disk(_folder(spill_folder), progress).held(),
            batch_size=batch_size,
            shuffle=shuffle,
            shard=shard,
            drop_last=drop_last,
            shuffle_window=shuffle_window,
        )

    def rows(self) -> Generator[tuple[Any, ...], None, None]:
        """Fetch the rows one by one as tuples of Python values, batch by batch underneath."""
        for batch in self.batches():
            columns = [column.to_pylist() for column in batch.columns]
            yield from zip(*columns, strict=True) if columns else [()] * batch.num_rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self.rows()

    def close(self) -> None:
        """Stop downloads that are still under way, with the work on the server; let go of the local file."""
        self._fetch.close()

    def __enter__(self) -> Result:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        columns = ", ".join(f"{field.name}: {field.type}" for field in self._schema)
        return f"<lakegate.Result {columns}>"

    def _repr_html_(self) -> str:
        rows: list[tuple[Any, ...]] = []
        stream = self.rows()
        for row in stream:
            if len(rows) == PREVIEW_ROWS:
                note = f"the first {PREVIEW_ROWS} rows; .to_pandas() fetches all"
                break
            rows.append(row)
        else:
            note = f"{len(rows)} row" + ("" if len(rows) == 1 else "s")
        stream.close()  # stops the download where rows are left
        head = "".join(
            f"<th>{html.escape(field.name)}<br><small>{html.escape(str(field.type))}</small></th>"
            for field in self._schema
        )
        body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{note}</p>"

    def _epoch(
        self,
        batch_size: int,
        shuffle: int | None,
        shard: tuple[int, int],
        drop_last: bool,
        shuffle_window: int | None,
        spill_folder: str | Path | None,
        progress: Wish,
    ) -> Generator[pa.RecordBatch, None, None]:
        if shuffle is None:
            arriving = self._fetch.shown(self._schema, progress, keep=True, folder=_folder(spill_folder))
            rows = _epochs.in_order(arriving, shard=shard)
        else:
            file = self._fetch.on_disk(_folder(spill_folder), progress)
            rows = _epochs.shuffled(file, seed=f"{shuffle} epoch 0", shard=shard, window_rows=shuffle_window)
        yield from _epochs.of_one_size(rows, size=batch_size, drop_last=drop_last)

    def _table(self, schema: pa.Schema, max_memory: int | None, progress: Wish, *, as_frame: bool = False) -> pa.Table:
        """Fetch all rows, unless they take too much memory, or (`as_frame`) would on the way into a frame."""

        def collect() -> pa.Table:
            rows, estimated = self._fetch.rows()
            guard, sizes = Guard(max_memory, rows=rows, estimated_rows=estimated), Sizes()
            measure = sizes.frame if as_frame else sizes.arrow
            collected: list[pa.RecordBatch] = []
            with contextlib.closing(self._fetch.shown(schema, progress)) as arriving:
                for batch in arriving:
                    guard.add(rows=batch.num_rows, bytes=measure(batch))
                    collected.append(batch)
            return pa.Table.from_batches(collected, schema=schema)

        return anew(collect)


def _folder(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join batches until they make a row group."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _arrow_dtype(pandas: Any) -> Callable[[pa.DataType], Any]:
    """Return what makes Arrow-backed types of all but dictionaries, which become categories."""
    return lambda kind: None if pa.types.is_dictionary(kind) else pandas.ArrowDtype(kind)


def _cell(value: Any) -> str:
    """Return a value as HTML, cut where it is long."""
    if value is None:
        return "<i>null</i>"
    text = str(value)
    if len(text) > PREVIEW_CHARACTERS:
        text = text[:PREVIEW_CHARACTERS] + "…"
    return html.escape(text)
