"""What tools that cannot run here are known to send, sent again: Arrow's ODBC driver.

The calls and their order are read from the driver's source; pyarrow stands on the same C++ as the driver does, so what
goes over the line is made by the same code. (Grafana's calls are made in `go/grafana`, with the library of its plugin.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from flightsql import flightsql_pb2 as sql
from google.protobuf import any_pb2
from pyarrow import flight

import matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

    from served import Served

#: What the driver casts to a whole number of 64 bits: lengths and counts, and the isolation of transactions.
WHOLE_NUMBERS = [541, 542, 543, 544, 545, 546, 547, 548, 549, 550, 551, 552, 553, 554, 555, 556, 557, 558, 560, 562]


class NoCredentials(flight.ClientAuthHandler):
    """What the driver does beside a token: a handshake of one empty message, then an empty `auth-token-bin`."""

    def authenticate(self, outgoing: flight.ClientAuthSender, incoming: flight.ClientAuthReader) -> None:
        del incoming
        outgoing.write(b"")

    def get_token(self) -> bytes:
        return b""


class Driver:
    """A connection as the driver holds one."""

    def __init__(self, url: str) -> None:
        self.client = flight.FlightClient(url)
        self.headers: list[tuple[bytes, bytes]] = []

    @property
    def options(self) -> flight.FlightCallOptions:
        return flight.FlightCallOptions(headers=self.headers)

    def ask(self, command: Message) -> pa.Table:
        """Send a command and fetch what it describes: schema and one endpoint without a location are required."""
        descriptor = flight.FlightDescriptor.for_command(wrapped(command))
        info = self.client.get_flight_info(descriptor, self.options)
        [endpoint] = info.endpoints
        assert endpoint.locations == []
        table = self.client.do_get(endpoint.ticket, self.options).read_all()
        assert table.schema.equals(info.schema)
        return table

    def act(self, name: str, request: Message) -> list[flight.Result]:
        return list(self.client.do_action(flight.Action(name, wrapped(request)), self.options))


def wrapped(message: Message) -> bytes:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed.SerializeToString()


def by_password(driver: Driver) -> None:
    driver.headers.append(driver.client.authenticate_basic_token("ada", "correct horse"))


def by_token(driver: Driver) -> None:
    driver.headers.append((b"authorization", b"Bearer abc"))
    driver.client.authenticate(NoCredentials(), driver.options)


@pytest.fixture(params=[by_password, by_token])
def odbc(walked: Served, request: pytest.FixtureRequest) -> Iterator[Driver]:
    driver = Driver(walked.url)
    connect: Callable[[Driver], None] = request.param
    connect(driver)
    yield driver
    driver.client.close()


def test_odbc_asks_once_for_all_there_is_to_know(odbc: Driver) -> None:
    found = {row["info_name"]: row["value"] for row in odbc.ask(sql.CommandGetSqlInfo()).to_pylist()}
    assert found[0] == "lakegate"
    assert {code: found[code] for code in WHOLE_NUMBERS if not isinstance(found[code], int)} == {}


def test_odbc_lists_types_tables_and_columns(odbc: Driver) -> None:
    kinds = odbc.ask(sql.CommandGetXdbcTypeInfo())
    assert {"bigint", "decimal", "string", "timestamp"} <= set(kinds["type_name"].to_pylist())
    [number] = odbc.ask(sql.CommandGetXdbcTypeInfo(data_type=4)).to_pylist()
    assert number["type_name"] == "int"
    assert odbc.ask(sql.CommandGetCatalogs())["catalog_name"].to_pylist() == ["lakegate"]
    assert "types" in odbc.ask(sql.CommandGetDbSchemas())["db_schema_name"].to_pylist()
    assert "TABLE" in odbc.ask(sql.CommandGetTableTypes())["table_type"].to_pylist()
    tables = odbc.ask(sql.CommandGetTables(db_schema_filter_pattern="types", table_types=["TABLE"]))
    assert tables["table_name"].to_pylist() == ["beyond", "matrix"]
    columns = odbc.ask(sql.CommandGetTables(table_name_filter_pattern="matrix", include_schema=True))
    schema = pa.ipc.read_schema(pa.py_buffer(columns["table_schema"][0].as_py()))
    assert schema.names == ["id", *matrix.NAMES]


def test_odbc_executes_directly(odbc: Driver) -> None:
    table = odbc.ask(sql.CommandStatementQuery(query="select name from team.people order by age"))
    assert table["name"].to_pylist() == ["Ada", "Alan", "Edsger"]
    with pytest.raises(pa.ArrowInvalid, match="no_such_column"):
        odbc.ask(sql.CommandStatementQuery(query="select no_such_column from team.people"))


def test_odbc_prepares_and_binds_to_the_handle_it_was_first_given(odbc: Driver) -> None:
    request = sql.ActionCreatePreparedStatementRequest(query="select name from team.people where age = ?")
    [answer] = odbc.act("CreatePreparedStatement", request)
    created = sql.ActionCreatePreparedStatementResult()
    assert any_pb2.Any.FromString(answer.body.to_pybytes()).Unpack(created)
    assert pa.ipc.read_schema(pa.py_buffer(created.dataset_schema)).names == ["name"]
    command = sql.CommandPreparedStatementQuery(prepared_statement_handle=created.prepared_statement_handle)
    for age, name in [(41, "Alan"), (36, "Ada")]:
        row = pa.record_batch({"parameter_1": pa.array([age], pa.int64())})
        descriptor = flight.FlightDescriptor.for_command(wrapped(command))
        writer, _ = odbc.client.do_put(descriptor, row.schema, odbc.options)
        with writer:
            writer.write_batch(row)
        assert odbc.ask(command)["name"].to_pylist() == [name]
    odbc.act(
        "ClosePreparedStatement",
        sql.ActionClosePreparedStatementRequest(prepared_statement_handle=created.prepared_statement_handle),
    )


@pytest.mark.parametrize("codec", [b"none", b"zstd", b"lz4"])
def test_odbc_sends_properties_it_does_not_know_as_headers(odbc: Driver, codec: bytes) -> None:
    odbc.headers.append((b"lakegate-codec", codec))
    assert odbc.ask(sql.CommandStatementQuery(query="select * from shapes.million")).num_rows == 1_000_000
