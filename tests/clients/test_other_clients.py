"""Clients that are not ours read the same rows as ours."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import adbc_driver_flightsql.dbapi
import pandas as pd
import polars
import pyarrow as pa
import pytest
from pyarrow import flight

from served import EVERYTHING, Served

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lakegate

ALL = "select * from t.everything order by id"
PLAIN = "select id, text, number, flag from t.everything order by id"


@pytest.fixture
def adbc(served: Served) -> Iterator[adbc_driver_flightsql.dbapi.Connection]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cannot disable autocommit")
        with adbc_driver_flightsql.dbapi.connect(served.url) as connection:
            yield connection


def test_pyarrow_flight_adbc_and_our_client_read_the_same_rows(
    served: Served, client: lakegate.Client, adbc: adbc_driver_flightsql.dbapi.Connection
) -> None:
    ours = client.sql(ALL).to_arrow()
    assert ours.to_pylist() == EVERYTHING.to_pylist()
    with adbc.cursor() as cursor:
        cursor.execute(ALL)
        theirs = cursor.fetch_arrow_table()
    assert theirs.schema.equals(ours.schema)
    assert theirs.equals(ours)
    with flight.connect(served.url) as raw:
        info = raw.get_flight_info(flight.FlightDescriptor.for_command(ALL.encode()))
        assert len(info.endpoints) == 1
        assert info.endpoints[0].locations == []
        assert info.schema.equals(ours.schema)
        assert raw.do_get(info.endpoints[0].ticket).read_all().equals(ours)
        assert raw.do_get(flight.Ticket(ALL.encode())).read_all().equals(ours)


def test_basic_authentication_is_answered_where_there_are_no_users(served: Served) -> None:
    with flight.connect(served.url) as raw:
        header = raw.authenticate_basic_token("anybody", "pass:word")
        assert header[0] == b"authorization"
        info = raw.get_flight_info(
            flight.FlightDescriptor.for_command(b"select 1 as one"), flight.FlightCallOptions(headers=[header])
        )
        assert raw.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"one": 1}]


def test_adbc_binds_parameters(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as cursor:
        cursor.execute("select id, text from t.everything where id between ? and ? order by id", (1, 2))
        assert cursor.fetchall() == [(1, "Zoë's “x”"), (2, "")]
        cursor.execute("select $1 || text from t.everything where id = $2", ("<", 1))
        assert cursor.fetchall() == [("<Zoë's “x”",)]


def test_adbc_browses(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    catalogs = adbc.adbc_get_objects(depth="tables").read_all().to_pylist()
    found = {
        f"{schema['db_schema_name']}.{table['table_name']}"
        for catalog in catalogs
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    }
    assert {"t.everything", "t.people", "t.growing"} <= found
    assert adbc.adbc_get_table_schema("people", db_schema_filter="t").names == ["name", "age", "born"]
    assert adbc.adbc_get_info()["vendor_name"]
    assert adbc.adbc_get_table_types()


def test_adbc_names_mistakes_as_the_persons_own(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as cursor:
        with pytest.raises(adbc_driver_flightsql.dbapi.ProgrammingError, match="no_such_column"):
            cursor.execute("select no_such_column from t.everything")
        with pytest.raises(adbc_driver_flightsql.dbapi.Error, match="NOT_FOUND"):
            cursor.execute("select * from t.no_such_table")


def test_pandas_reads_sql(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    frame = pd.read_sql(PLAIN, adbc)
    assert frame["id"].tolist() == [1, 2, 3]
    assert frame["text"].tolist()[:2] == ["Zoë's “x”", ""]


def test_polars_reads_a_database(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    frame = polars.read_database(PLAIN, adbc)
    assert frame.to_dicts() == EVERYTHING.select(["id", "text", "number", "flag"]).to_pylist()


def test_a_schema_can_be_asked_for_without_running_anything(served: Served) -> None:
    with flight.connect(served.url) as raw:
        found = raw.get_schema(flight.FlightDescriptor.for_command(PLAIN.encode())).schema
    assert found.names == ["id", "text", "number", "flag"]
    assert found.field("id").type == pa.int64()
