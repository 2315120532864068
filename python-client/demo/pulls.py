"""What the demo shows of a thin line: how large a pull will be, how far it is, and what is not sent twice."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lakegate
import landing
import tour

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

    from thin_line import ThinLine

RATE = "10Mbit/s"
#: What the configuration says of the line. Whatever comes over it comes from this machine.
CONFIGURATION = f"""
[[line]]
networks = ["127.0.0.0/8"]
rate     = "{RATE}"
"""
TABLE = "nyc.flights"
QUERY = f"select * from {TABLE}"
#: A client on the server's own machine is sent rows unpacked, unless it asks: elsewhere they come packed.
HEADERS = {"lakegate-codec": "zstd"}
#: Parts of a pull after which a log has a line on how far it is.
PARTS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Moved:
    """Bytes that the line carried.

    Attributes
    ----------
    estimated, whole
        For all rows: what was said before, and what it was.
    again
        What came a second time, of a pull that was cut in the middle.
    repeated
        For the same rows once more.
    grown
        For the rows of one more file.
    """

    estimated: int
    whole: int
    again: int
    repeated: int
    grown: int


def walk(line: ThinLine, run: Callable[..., object], *, archive: Path, folder: Path) -> Moved:
    """Pull a table over a line: estimated, watched, cut, repeated, and with a few rows more.

    Ends the demo where any of the pulls has other rows than it should.

    Parameters
    ----------
    line
        The way to a server over the lake in `folder`.
    run
        Runs lakegate with some arguments.
    archive
        What :func:`landing.fetch` gave.
    folder
        The demo's folder.
    """
    with lakegate.connect(line.url, headers=HEADERS, cache=folder / "cache") as client:
        estimated = told_before(client)
        columns_told_before(line, run)
        rows, whole = watched(client, line, estimated=estimated)
        again = cut(client, line, expected=rows, whole=whole)
        repeated = once_more(client, line, expected=rows)
        dropped = landing.lay_out_new_year(archive, folder / "landing" / "flights")
        tour.heading(f"A few flights more are dropped in ({dropped.name}), and `lakegate sync {TABLE}` runs")
        run("sync", TABLE)
        grown = a_few_more(client, line, before=rows)
    return Moved(estimated=estimated, whole=whole, again=again, repeated=repeated, grown=grown)


def told_before(client: lakegate.Client) -> int:
    """Ask how large a pull would be; returns its bytes."""
    tour.heading(f'client.estimate("{QUERY}"): how large it would be, and no row moves')
    estimate = client.estimate(QUERY)
    if estimate.rows is None or estimate.wire_bytes is None or estimate.seconds is None:
        raise SystemExit("the server does not know how large the table is")
    rows = f"{'' if estimate.rows_exact else 'about '}{estimate.rows:,} rows"
    print(f"{rows}, about {size(estimate.wire_bytes)} and {estimate.seconds:.1f} s at our present share of the line")
    print("heaviest:", ", ".join(f"{column.column} {size(column.wire_bytes)}" for column in estimate.heaviest[:5]))
    return estimate.wire_bytes


def columns_told_before(line: ThinLine, run: Callable[..., object]) -> None:
    """Ask the same on the command line."""
    fewer = f"select carrier, dep_delay, time_hour from {TABLE} where month = 1"
    tour.heading(
        "Fewer rows and columns, asked on the command line (EXPLAIN ESTIMATE; for it the rows would be unpacked)"
    )
    run("query", "--server", line.url, "--estimate", fewer)


def watched(client: lakegate.Client, line: ThinLine, *, estimated: int) -> tuple[pa.Table, int]:
    """Pull all rows; returns them, and how many bytes that took."""
    tour.heading("The pull, and how far it is")
    before = line.carried
    rows = client.sql(QUERY).to_arrow(progress=display())
    whole = line.carried - before
    print(f"the line carried {size(whole)}; {size(estimated)} were expected")
    return rows, whole


def cut(client: lakegate.Client, line: ThinLine, *, expected: pa.Table, whole: int) -> int:
    """Pull all rows again over a line that breaks in the middle; returns how many bytes came twice."""
    tour.heading(f"The same again from the server (fresh=True), and the line breaks after {size(whole // 2)}")
    before = line.carried
    line.breaks_after(whole // 2)
    rows = client.sql(QUERY, fresh=True).to_arrow(progress=display())
    again = line.carried - before - whole
    print(f"the line carried {size(again)} more than without the cut ({again / whole:.1%}):")
    print("the client connected again and went on after the last batch that had come whole")
    if not rows.equals(expected):
        raise SystemExit("the rows are others than those of the pull that was not cut")
    print(f"rows that differ from those of the pull that was not cut: 0 of {rows.num_rows:,}")
    return again


def once_more(client: lakegate.Client, line: ThinLine, *, expected: pa.Table) -> int:
    """Ask once more; returns how many bytes that took."""
    tour.heading("The same once more: the server says that nothing has changed, and the rows are on this disk already")
    before = line.carried
    rows = client.sql(QUERY).to_arrow()
    moved = line.carried - before
    print(
        f"the line carried {moved:,} bytes: question, names of columns, “not modified”, and none of {len(rows):,} rows"
    )
    if not rows.equals(expected):
        raise SystemExit("the rows are others than those that were sent")
    return moved


def a_few_more(client: lakegate.Client, line: ThinLine, *, before: pa.Table) -> int:
    """Ask once more, now that the table has grown; returns how many bytes that took."""
    tour.heading("And once more: only the new rows move, and are put behind those that are here")
    carried = line.carried
    rows = client.sql(QUERY).to_arrow()
    moved = line.carried - carried
    print(f"the line carried {size(moved)} for {len(rows) - len(before):,} new rows; there are {len(rows):,} now")
    if len(rows) <= len(before) or not rows.slice(0, len(before)).equals(before):
        raise SystemExit("the new rows are not there, or the old ones are others")
    return moved


def display() -> bool | Callable[[lakegate.Progress], None]:
    """Return how to show a download: as a line that moves on a terminal, and elsewhere as a few lines."""
    if sys.stderr.isatty():
        return True
    parts, cuts = list(PARTS), 0

    def tell(progress: lakegate.Progress) -> None:
        nonlocal cuts
        due = progress.finished or progress.cuts > cuts
        while parts and progress.total_rows and progress.rows >= parts[0] * progress.total_rows:
            due = bool(parts.pop(0))
        if due:
            cuts = progress.cuts
            print(f"   {progress}", flush=True)

    return tell


def size(number: int) -> str:
    """Return a number of bytes for people."""
    return f"{number / 1e6:.2f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"
