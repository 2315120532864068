"""Tables of unusual shapes through Python's clients: no rows, one, a million, 4,000 columns, a cell of 20 MB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import adbc_driver_flightsql.dbapi
import pandas as pd
import polars
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions
from pyarrow import flight

from matrix import NAMES
from walked import GIANT, MILLION, WIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from served import Served


def pyarrow(url: str, sql: str) -> pa.Table:
    with flight.connect(url) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(sql.encode()))
        table = client.do_get(info.endpoints[0].ticket).read_all()
    assert table.schema.equals(info.schema)
    return table


def adbc(url: str, sql: str, **options: Any) -> pa.Table:
    with (
        adbc_driver_flightsql.dbapi.connect(url, autocommit=True, **options) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


def pandas(url: str, sql: str) -> pa.Table:
    with adbc_driver_flightsql.dbapi.connect(url, autocommit=True) as connection:
        return pa.Table.from_pandas(pd.read_sql(sql, connection, dtype_backend="pyarrow"), preserve_index=False)


def from_polars(url: str, sql: str) -> pa.Table:
    with adbc_driver_flightsql.dbapi.connect(url, autocommit=True) as connection:
        return polars.read_database(sql, connection).to_arrow()


CLIENTS = [pyarrow, adbc, pandas, from_polars]


@pytest.fixture(params=CLIENTS)
def read(request: pytest.FixtureRequest) -> Callable[[str, str], pa.Table]:
    return request.param


def test_no_rows(walked: Served, read: Callable[[str, str], pa.Table]) -> None:
    table = read(walked.url, "select * from shapes.nothing")
    assert (table.num_rows, table.column_names) == (0, ["id", *NAMES])


def test_one_row(walked: Served, read: Callable[[str, str], pa.Table]) -> None:
    assert read(walked.url, "select * from shapes.one").to_pylist() == [{"n": 1}]


def test_a_million_rows(walked: Served, read: Callable[[str, str], pa.Table]) -> None:
    table = read(walked.url, "select * from shapes.million order by n")
    assert table["n"].to_pylist() == list(range(MILLION))
    assert table["half"].to_pylist() == [n / 2 for n in range(MILLION)]
    assert set(table["word"].to_pylist()) == {"even", "odd"}


# Planning so wide a statement takes ten seconds without optimisation: pandas and polars read through ADBC anyway.
@pytest.mark.parametrize("read", [pyarrow, adbc])
def test_four_thousand_columns(walked: Served, read: Callable[[str, str], pa.Table]) -> None:
    table = read(walked.url, "select * from shapes.wide order by c1 nulls last")
    assert table.column_names == [f"c{at}" for at in range(WIDE)]
    assert table.to_pylist() == [{f"c{at}": at for at in range(WIDE)}, {f"c{at}": None for at in range(WIDE)}]


def test_a_cell_of_twenty_megabytes_passes_where_there_is_no_limit(walked: Served) -> None:
    cells = pyarrow(walked.url, "select cell from shapes.giant order by id")["cell"].to_pylist()
    assert cells == ["x" * GIANT, "small"]


def test_a_cell_of_twenty_megabytes_passes_once_the_drivers_limit_is_raised(walked: Served) -> None:
    sql = "select cell from shapes.giant order by id"
    plain = {"adbc.flight.sql.rpc.call_header.lakegate-codec": "none"}
    with pytest.raises(adbc_driver_flightsql.dbapi.Error, match="larger than max"):
        adbc(walked.url, sql, db_kwargs=plain)
    raised = {DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(64 << 20)}
    for options in [raised, {**raised, **plain}]:
        cells = adbc(walked.url, sql, db_kwargs=options)["cell"].to_pylist()
        assert cells == ["x" * GIANT, "small"]


def test_a_giant_beside_small_cells_harms_only_who_asks_for_it(walked: Served) -> None:
    assert adbc(walked.url, "select cell from shapes.giant where id = 2")["cell"].to_pylist() == ["small"]
    assert adbc(walked.url, "select length(cell) as n from shapes.giant order by id")["n"].to_pylist() == [GIANT, 5]
