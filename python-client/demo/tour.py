"""What the demo shows, each step a few lines of the Python client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import pandas as pd

if TYPE_CHECKING:
    import datetime
    from pathlib import Path

    import lakegate

JOIN = """
select a.name                                          as airline,
       count(*)                                        as flights,
       avg(f.dep_delay) filter (where w.visib >= 5)    as clear_sight,
       avg(f.dep_delay) filter (where w.visib < 5)     as poor_sight
from ops.flights f
join ops.airlines a on a.carrier = f.carrier
join nyc.weather w on w.origin = f.origin and w.time_hour = f.time_hour
where f.dep_delay is not null
group by a.name
having count(*) >= 500
order by poor_sight
"""


def heading(text: str) -> None:
    """Print what comes next."""
    print(f"\n-- {text}", flush=True)


def show(frame: pd.DataFrame) -> None:
    """Print a frame whole."""
    with pd.option_context("display.width", 160, "display.max_columns", None, "display.max_colwidth", 70):
        print(frame.to_string(index=False, na_rep="", float_format=lambda number: f"{number:.1f}"), flush=True)


def what_is_there(client: lakegate.Client) -> None:
    """List the tables, and the columns of one."""
    heading("client.tables(): nyc.* from files, ops.* from the database")
    print(", ".join(str(table) for schema in ("nyc", "ops") for table in client.tables(schema=schema)))
    heading('client.schema("nyc.planes"): the engine stayed an object')
    print(client.schema("nyc.planes").to_string(show_field_metadata=False, show_schema_metadata=False))


def three_tables(client: lakegate.Client) -> None:
    """Join flights, airlines and weather: mean departure delay in minutes by how far one could see."""
    heading("Minutes of delay by airline and weather: two tables of the database joined with csv files, into pandas")
    print(JOIN.strip())
    show(client.sql(JOIN).to_pandas())


def nested(client: lakegate.Client) -> None:
    """Look into an object, with a parameter."""
    heading("Into the engine of planes built since a year given as parameter")
    query = """
        select p.engine['kind'] as engine, count(*) as planes, max(p.seats) as most_seats
        from nyc.planes p where p.year >= ? group by 1 order by planes desc"""
    show(client.sql(query, params=[2000]).to_pandas())


def rejects(client: lakegate.Client) -> None:
    """Show the rows that did not fit, and why."""
    heading("The broken rows: kept, each with its file, line and reason (system.rejects)")
    frame = client.sql("select * from system.rejects").to_pandas()
    frame["file"] = frame["file"].str.rsplit("/", n=1).str[-1]
    show(frame.fillna({"column_name": ""})[["file", "line", "column_name", "reason"]].sort_values(["file", "line"]))


def newest_flights(client: lakegate.Client) -> tuple[int, int]:
    """Return the version flights has now, and its rows."""
    query = "select version from system.tables where table_schema = 'nyc' and table_name = 'flights'"
    ((version,),) = client.sql(query)
    ((rows,),) = client.sql("select count(*) from nyc.flights")
    print(f"\nnyc.flights is at version {version} with {rows:,} rows")
    return version, rows


def only_the_new_file(client: lakegate.Client) -> None:
    """Show that the second sync read one file."""
    heading("Only the new file was read (system.loads)")
    query = """
        select started_at, status, rows_read, rows_written, rows_rejected, bytes_read, version
        from system.loads where table_schema = 'nyc' and table_name = 'flights' order by started_at"""
    show(client.sql(query).to_pandas())


def time_travel(client: lakegate.Client, *, version: int, rows: int, before: datetime.datetime) -> None:
    """Read flights as they were."""
    heading("Back to before: VERSION AS OF and TIMESTAMP AS OF")
    counts = {}
    for clause in ("", f"version as of {version}", f"timestamp as of '{before.isoformat()}'"):
        ((counts[clause],),) = client.sql(f"select count(*) from nyc.flights {clause}")
        print(f"nyc.flights {clause}".ljust(70), f"{counts[clause]:>9,} rows")
    now, *then = counts.values()
    if then != [rows, rows] or now <= rows:
        raise SystemExit("the older state is not what it was")


def chart(client: lakegate.Client, path: Path) -> None:
    """Draw the delays of the join."""
    mpl.use("Agg")
    from matplotlib import pyplot

    frame = client.sql(JOIN).to_pandas().set_index("airline")
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    places = range(len(frame))
    axes.barh(
        [place + 0.2 for place in places], frame["poor_sight"], 0.4, label="visibility below 5 miles", color="#b4562f"
    )
    axes.barh([place - 0.2 for place in places], frame["clear_sight"], 0.4, label="5 miles or more", color="#3f7f93")
    axes.set_yticks(list(places), list(frame.index))
    axes.set_xlabel("mean departure delay in minutes")
    axes.set_title("New York 2013: flights wait for the weather", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    heading(f"The same as a picture: {path}")
