"""Rows change in the operational database, and the lake follows: each change is timed, and shown as pandas sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

import lakegate
import tour

if TYPE_CHECKING:
    from operational import Colleague

#: Seconds after which a change is taken for lost.
PATIENCE = 60
#: Seconds between two looks at the lake.
PAUSE = 0.01

TABLE = "ops.flights"
KEY = "flight_id"


@dataclass(frozen=True)
class Change:
    """Something the colleague does, and how one sees that the lake has it.

    Attributes
    ----------
    title
        What it is, for people.
    statements
        What the colleague runs, one after the other.
    seen
        A query over the lake.
    rows
        How many rows it gives as soon as the change is there.
    differs
        What must then be different and nothing else: change, key and column, without a column for whole rows.
    """

    title: str
    statements: tuple[str, ...]
    seen: str
    rows: int
    differs: set[tuple[str, int, str]]


def all_changes(*, last: int) -> list[Change]:
    """Return the demo's changes for a table whose keys go from 1 to `last`."""
    new = last + 1
    columns = f"{KEY}, year, month, day, sched_dep_time, sched_arr_time, carrier, flight, origin, dest, distance, "
    columns += "hour, minute, time_hour"
    values = f"{new}, 2013, 12, 31, 2355, 250, 'UA', 9001, 'EWR', 'IAH', 1400, 23, 55, '2014-01-01 04:00:00'"
    return [
        Change(
            title="A flight is inserted",
            statements=(f"INSERT INTO dbo.flights ({columns}) VALUES ({values})",),
            seen=f"select * from {TABLE} where {KEY} = {new}",
            rows=1,
            differs={("inserted", new, "")},
        ),
        Change(
            title="A flight is late after all",
            statements=(f"UPDATE dbo.flights SET dep_delay = 1440, arr_delay = 1435 WHERE {KEY} = 5",),
            seen=f"select * from {TABLE} where {KEY} = 5 and dep_delay = 1440",
            rows=1,
            differs={("updated", 5, "arr_delay"), ("updated", 5, "dep_delay")},
        ),
        Change(
            title="A flight is deleted",
            statements=(f"DELETE FROM dbo.flights WHERE {KEY} = 3",),
            seen=f"select * from {TABLE} where {KEY} = 3",
            rows=0,
            differs={("deleted", 3, "")},
        ),
        Change(
            title="The table gets a new column, and one flight a value in it",
            statements=(
                "ALTER TABLE dbo.flights ADD gate varchar(5) NULL",
                f"UPDATE dbo.flights SET gate = 'B22' WHERE {KEY} = 2",
            ),
            seen=f"select {KEY}, gate from {TABLE} where gate = 'B22'",
            rows=1,
            differs={("updated", 2, "gate")},
        ),
    ]


def walk(client: lakegate.Client, colleague: Colleague) -> list[float]:
    """Make the changes one by one; returns how many seconds each took to be seen.

    Ends the demo where the lake has anything but the change.
    """
    before = whole(client)
    taken = []
    for change in all_changes(last=int(before.index.max())):
        tour.heading(change.title)
        for statement in change.statements:
            print(f"the colleague runs    {statement}")
            colleague.runs(statement)
        taken.append(until_seen(client, change))
        print(f"in a DataFrame after  {taken[-1]:.2f} s")
        after = whole(client)
        found = differences(before, after)
        tour.show(found)
        if {(row.change, getattr(row, KEY), row.column) for row in found.itertuples()} != change.differs:
            raise SystemExit(f"the lake has something else than the change: expected {sorted(change.differs)}")
        before = after
    return taken


def whole(client: lakegate.Client) -> pd.DataFrame:
    """Return the whole table by its key."""
    return client.sql(f"select * from {TABLE}").to_pandas().set_index(KEY).sort_index()


def until_seen(client: lakegate.Client, change: Change) -> float:
    """Ask until the change is there; returns the seconds since it was committed."""
    committed = time.monotonic()
    while (taken := time.monotonic() - committed) < PATIENCE:
        try:
            frame = client.sql(change.seen).to_pandas()
        except lakegate.InvalidQuery:
            # The column is not there yet.
            frame = None
        if frame is not None and len(frame) == change.rows:
            return time.monotonic() - committed
        time.sleep(PAUSE)
    raise SystemExit(f"the change is not in the lake after {taken:.0f} s: see server.log")


def differences(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Compare two states of a table, both by its key, value by value.

    Returns
    -------
    pandas.DataFrame
        A row for each row inserted or deleted and for each value updated. A new column counts as empty before.
    """
    rows = [("inserted", key, "", "", "") for key in after.index.difference(before.index)]
    rows += [("deleted", key, "", "", "") for key in before.index.difference(after.index)]
    common = before.index.intersection(after.index)
    for column in after.columns.union(before.columns, sort=False):
        old, new = (state.reindex(common).get(column, pd.Series(None, common, object)) for state in (before, after))
        differ = (old != new) & ~(old.isna() & new.isna())
        rows += [("updated", key, column, old[key], new[key]) for key in common[differ]]
    return pd.DataFrame(rows, columns=["change", KEY, "column", "before", "after"])


def what_was_read(client: lakegate.Client) -> None:
    """Show that each load read the rows that changed, and no others."""
    tour.heading("Only what changed was read (system.loads)")
    query = """
        select started_at, status, rows_read, rows_written, bytes_read, version
        from system.loads where table_schema = 'ops' and table_name = 'flights' and status = 'committed'
        order by version desc limit 5"""
    tour.show(client.sql(query).to_pandas())
