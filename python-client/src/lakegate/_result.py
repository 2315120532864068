"""The rows of one statement, fetched when they are asked for."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from lakegate._errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import TracebackType

    import pandas
    import polars
    from pyarrow import flight

#: Rows a notebook shows of a result; enough to see what it is, few enough to fetch at once.
PREVIEW_ROWS = 20
#: Characters a notebook shows of one value.
PREVIEW_CHARACTERS = 100


class Result:
    """The rows of one statement.

    Nothing is downloaded before rows are asked for, and each way of asking downloads anew: the
    same rows each time, because the versions of all tables were settled when the statement was sent.
    For several uses keep what :meth:`to_arrow` or :meth:`to_pandas` gave.
    """

    def __init__(self, *, schema: pa.Schema, open_stream: Callable[[], flight.FlightStreamReader], url: str):
        self._schema = schema
        self._open_stream = open_stream
        self._url = url
        self._readers: list[flight.FlightStreamReader] = []

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the columns, known before any row is fetched."""
        return self._schema

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._schema.names)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Fetch the rows piece by piece.

        Yields
        ------
        pyarrow.RecordBatch
            The next rows, in order; usually some thousands, never none. One batch is in memory at a time
            (and what the network has under way); the server waits while nobody asks for the next. To leave
            the loop early stops the work on the server.

        Raises
        ------
        LakegateError
            When the statement fails while it runs, or the connection is lost; rows handed out before are then
            not all there are.
        """
        with translated(self._url):
            reader = self._open_stream()
        self._readers.append(reader)
        finished = False
        try:
            while True:
                with translated(self._url):
                    try:
                        batch = reader.read_chunk().data
                    except StopIteration:
                        finished = True
                        return
                if batch is not None and batch.num_rows:
                    yield batch
                # Else the frame's own variable would keep the last batch alive while the next one arrives.
                del batch
        finally:
            self._readers.remove(reader)
            if not finished:
                reader.cancel()

    def to_arrow(self) -> pa.Table:
        """Fetch all rows as an Arrow table."""
        return pa.Table.from_batches(self.batches(), schema=self._schema)

    def to_pandas(self, *, types: Literal["numpy", "arrow"] = "numpy") -> pandas.DataFrame:
        """Fetch all rows as a pandas frame.

        Parameters
        ----------
        types
            `"numpy"`: what most code expects; whole numbers become floats in columns that have nulls, and
            dates become `datetime64`. `"arrow"`: columns keep their exact types (decimals, whole numbers with
            nulls, lists, structs) as `pandas.ArrowDtype`.
        """
        table = self.to_arrow()
        if types == "arrow":
            import pandas

            return table.to_pandas(types_mapper=pandas.ArrowDtype)
        if types != "numpy":
            raise ValueError(f"types is {types!r}; it can be 'numpy' or 'arrow'")
        # The table is ours alone, so its columns may be given up one by one as they are converted.
        return table.to_pandas(date_as_object=False, split_blocks=True, self_destruct=True)

    def to_polars(self) -> polars.DataFrame:
        """Fetch all rows as a polars frame (needs polars: `pip install 'lakegate[polars]'`)."""
        import polars

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)  # noqa: S101 (a table never becomes a series)
        return frame

    def rows(self) -> Generator[tuple[Any, ...], None, None]:
        """Fetch the rows one by one as tuples of Python values, batch by batch underneath."""
        for batch in self.batches():
            columns = [column.to_pylist() for column in batch.columns]
            yield from zip(*columns, strict=True) if columns else [()] * batch.num_rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self.rows()

    def close(self) -> None:
        """Stop downloads that are still under way; the work on the server stops with them."""
        for reader in list(self._readers):
            reader.cancel()

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


def _cell(value: Any) -> str:
    """Return a value as HTML, cut where it is long."""
    if value is None:
        return "<i>null</i>"
    text = str(value)
    if len(text) > PREVIEW_CHARACTERS:
        text = text[:PREVIEW_CHARACTERS] + "…"
    return html.escape(text)
