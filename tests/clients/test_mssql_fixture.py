"""Clients that nobody here wrote use the stand-in: python-tds, pymssql (FreeTDS) and FreeTDS's own tsql.

`make test` runs them; tests/mssql-fixture/README.md says how to run them alone.
"""

from __future__ import annotations

import datetime as dt
import decimal
import os
import shutil
import signal
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymssql
import pytds
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = "Geheim-2022"  # noqa: S105 of a server that lives as long as these tests
ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
PROGRAM = Path(os.environ.get("MSSQL_FIXTURE") or TARGET / "debug" / "mssql-fixture")
TSQL = os.environ.get("TSQL") or shutil.which("tsql")
FREEBCP = os.environ.get("FREEBCP") or shutil.which("freebcp")


@dataclass(frozen=True)
class Server:
    """A running stand-in: where it listens and the certificate it is trusted through."""

    host: str
    port: int
    authority: Path

    def pytds(self, **options: Any) -> pytds.Connection:
        """Connect with python-tds."""
        options = {"user": "sa", "password": PASSWORD, "database": "ops", **options}
        return pytds.connect(self.host, port=self.port, **options)

    def pymssql(self, **options: Any) -> pymssql.Connection:
        """Connect with pymssql."""
        options = {"user": "sa", "password": PASSWORD, "database": "ops", **options}
        return pymssql.connect(server=self.host, port=str(self.port), **options)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    authority = tmp_path_factory.mktemp("mssql") / "ca.pem"
    arguments = [PROGRAM, "--listen", "127.0.0.1:0", "--password", PASSWORD, "--ca", authority]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("listening on "), line
            host, port = line.split()[-1].rsplit(":", 1)
            yield Server(host, int(port), authority)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


@pytest.fixture(params=["pytds", "pymssql"])
def connect(server: Server, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Give each client's connect, one after the other: what they share is tested with both."""
    return getattr(server, request.param)


def query(connection: Any, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
        return [tuple(row) for row in cursor.fetchall()]


def run(connection: Any, sql: str, *parameters: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
        return cursor.rowcount


ROW = {
    "id": ("int NOT NULL PRIMARY KEY", 1),
    "flag": ("bit", True),
    "tiny": ("tinyint", 255),
    "small": ("smallint", -32768),
    "big": ("bigint", -(2**63)),
    "amount": ("decimal(38,10)", decimal.Decimal("-1234567890123456789012345678.0123456789")),
    "price": ("money", decimal.Decimal("922337203685477.5807")),
    "single": ("real", 1.5),
    "double": ("float", -0.1),
    "code": ("varchar(20)", "naïve €"),
    "name": ("nvarchar(50)", "漢字 🎉"),
    "story": ("nvarchar(max)", "long " * 4000),
    "data": ("varbinary(max)", bytes(range(256)) * 40),
    "day": ("date", dt.date(9999, 12, 31)),
    "moment": ("time(3)", dt.time(23, 59, 59, 123000)),
    "old": ("datetime", dt.datetime(1999, 12, 31, 23, 59, 59, 997000)),
    "precise": ("datetime2(6)", dt.datetime(2022, 2, 28, 1, 2, 3, 456789)),
    "zoned": ("datetimeoffset(3)", dt.datetime(2022, 2, 28, 1, 2, 3, 456000, dt.timezone(dt.timedelta(minutes=-90)))),
    "key": ("uniqueidentifier", uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")),
}


@pytest.fixture
def table(connect: Callable[..., Any]) -> Iterator[tuple[Any, str]]:
    """An empty table of every type, and a connection of the client that is tested."""
    name = f"t{uuid.uuid4().hex}"
    connection = connect(autocommit=True)
    run(connection, f"CREATE TABLE dbo.{name} ({', '.join(f'[{c}] {t}' for c, (t, _) in ROW.items())})")
    yield connection, f"dbo.{name}"
    run(connection, f"DROP TABLE dbo.{name}")
    connection.close()


def insert(connection: Any, table: str) -> None:
    marks = ", ".join(["%s"] * len(ROW))
    values = [value for _, value in ROW.values()]
    if isinstance(connection, pymssql.Connection):
        # pymssql writes values into the text, without what it has no literal for: times, zones, microseconds.
        values = [str(v) if isinstance(v, dt.time | dt.datetime) and v.microsecond else v for v in values]
        values[list(ROW).index("old")] = "1999-12-31T23:59:59.997"
    else:
        values = [pytds.Binary(value) if isinstance(value, bytes) else value for value in values]
    assert run(connection, f"INSERT INTO {table} VALUES ({marks})", *values) == 1


def test_every_type_is_written_and_read(table: tuple[Any, str]) -> None:
    connection, name = table
    insert(connection, name)
    [row] = query(connection, f"SELECT * FROM {name}")
    for (column, (_, expected)), value in zip(ROW.items(), row, strict=True):
        if isinstance(value, str) and isinstance(expected, dt.date | dt.time):
            value = dt.datetime.fromisoformat(value)
        assert value == expected, column


def test_nulls_of_every_type_are_nulls(table: tuple[Any, str]) -> None:
    connection, name = table
    run(connection, f"INSERT INTO {name} (id) VALUES (7)")
    assert query(connection, f"SELECT * FROM {name}") == [(7, *[None] * (len(ROW) - 1))]


def test_rows_are_changed_and_deleted(table: tuple[Any, str]) -> None:
    connection, name = table
    for number in range(1, 11):
        run(connection, f"INSERT INTO {name} (id, name) VALUES (%s, %s)", number, f"n{number}")
    assert run(connection, f"UPDATE {name} SET name = N'even' WHERE id % 2 = 0") == 5
    assert run(connection, f"DELETE FROM {name} WHERE id > 8") == 2
    assert query(connection, f"SELECT COUNT(*), MIN(name) FROM {name} WHERE name = N'even'") == [(4, "even")]


def test_a_transaction_is_rolled_back(table: tuple[Any, str], connect: Callable[..., Any]) -> None:
    _, name = table
    connection = connect(autocommit=False)
    run(connection, f"INSERT INTO {name} (id) VALUES (1)")
    connection.rollback()
    run(connection, f"INSERT INTO {name} (id) VALUES (2)")
    connection.commit()
    assert query(connection, f"SELECT id FROM {name}") == [(2,)]
    connection.close()


def test_an_error_has_its_number_and_the_connection_goes_on(table: tuple[Any, str]) -> None:
    connection, name = table
    with pytest.raises((pytds.Error, pymssql.Error)) as caught:
        query(connection, "SELECT * FROM dbo.nowhere")
    error = caught.value
    assert 208 in (getattr(error, "number", None), *(error.args[:1]))
    assert query(connection, f"SELECT COUNT(*) FROM {name}") == [(0,)]


def test_many_rows_are_read(table: tuple[Any, str]) -> None:
    connection, name = table
    for start in range(0, 20000, 500):
        rows = ", ".join(f"({number}, N'row {number}')" for number in range(start, start + 500))
        run(connection, f"INSERT INTO {name} (id, name) VALUES {rows}")
    rows = query(connection, f"SELECT id, name FROM {name} ORDER BY id")
    assert rows == [(number, f"row {number}") for number in range(20000)]


def test_a_wrong_password_is_refused(connect: Callable[..., Any]) -> None:
    with pytest.raises((pytds.Error, pymssql.Error)):
        connect(password="guess")  # noqa: S106


def test_an_unknown_database_is_refused(connect: Callable[..., Any]) -> None:
    with pytest.raises((pytds.Error, pymssql.Error)):
        connect(database="payroll")


@pytest.mark.parametrize("login_only", [False, True])
def test_python_tds_encrypts_and_trusts_the_authority(server: Server, login_only: bool) -> None:
    with server.pytds(cafile=str(server.authority), validate_host=False, enc_login_only=login_only) as connection:
        assert query(connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("encryption", ["off", "request", "require"])
def test_pymssql_encrypts(server: Server, encryption: str) -> None:
    with server.pymssql(encryption=encryption) as connection:
        assert query(connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("version", ["7.3", "7.4"])
def test_freetds_speaks_both_versions(server: Server, version: str) -> None:
    with server.pymssql(tds_version=version) as connection:
        assert query(connection, "SELECT CAST('2022-02-28' AS date)") == [(dt.date(2022, 2, 28),)]


def test_python_tds_loads_in_bulk(server: Server) -> None:
    with server.pytds(autocommit=True) as connection:
        run(connection, "CREATE TABLE dbo.bulk_pytds (id int NOT NULL, name nvarchar(50), amount decimal(18,4))")
        rows = [(n, None if n % 3 == 0 else f"näme {n}", decimal.Decimal(n) / 4) for n in range(5000)]
        columns = [
            pytds.Column("id", type=pytds.tds_types.IntType()),
            pytds.Column("name", type=pytds.tds_types.NVarCharType(size=50)),
            pytds.Column("amount", type=pytds.tds_types.DecimalType(precision=18, scale=4)),
        ]
        with connection.cursor() as cursor:
            cursor.copy_to(data=rows, table_or_view="bulk_pytds", schema="dbo", columns=columns)
        assert query(connection, "SELECT id, name, amount FROM dbo.bulk_pytds ORDER BY id") == rows


def test_pymssql_loads_in_bulk(server: Server) -> None:
    with server.pymssql(autocommit=True) as connection:
        run(connection, "CREATE TABLE dbo.bulk_pymssql (id int NOT NULL, name nvarchar(50), amount float)")
        rows = [(n, None if n % 3 == 0 else f"name {n}", n / 4) for n in range(5000)]
        connection.bulk_copy("dbo.bulk_pymssql", rows)
        assert query(connection, "SELECT id, name, amount FROM dbo.bulk_pymssql ORDER BY id") == rows


def test_python_tds_cancels(server: Server) -> None:
    with server.pytds(autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1 UNION ALL SELECT 2")
        cursor.fetchone()
        cursor.cancel()
        cursor.close()
        assert query(connection, "SELECT 3") == [(3,)]


@pytest.mark.skipif(not TSQL, reason="the program tsql is not installed (Debian: freetds-bin)")
def test_tsql_creates_reads_and_changes(server: Server) -> None:
    script = """
        CREATE TABLE dbo.by_tsql (id int NOT NULL PRIMARY KEY, name nvarchar(20), amount decimal(9,2))
        go
        INSERT INTO dbo.by_tsql VALUES (1, N'one', 1.25), (2, N'two', NULL)
        go
        UPDATE dbo.by_tsql SET name = N'deux' WHERE id = 2
        go
        SELECT id, name, amount FROM dbo.by_tsql ORDER BY id
        go
        SELECT * FROM dbo.nowhere
        go
    """
    script = "\n".join(line.strip() for line in script.strip().splitlines()) + "\n"
    assert TSQL
    arguments = [TSQL, "-o", "fhq", "-H", server.host, "-p", str(server.port), "-U", "sa", "-P", PASSWORD, "-D", "ops"]
    done = subprocess.run(arguments, input=script, text=True, capture_output=True, timeout=60, check=False)
    assert "1\tone\t1.25" in done.stdout, done
    assert "2\tdeux\tNULL" in done.stdout, done
    assert "Msg 208" in done.stdout + done.stderr, done


@pytest.mark.skipif(not FREEBCP, reason="the program freebcp is not installed (Debian: freetds-bin)")
def test_freebcp_loads_a_file(server: Server, tmp_path: Path) -> None:
    with server.pymssql(autocommit=True) as connection:
        columns = "id int NOT NULL, name nvarchar(50), amount decimal(9,2), story text, long varchar(max), at datetime2"
        run(connection, f"CREATE TABLE dbo.by_freebcp ({columns})")
        lines = (f"{n}\tname {n}\t{n}.25\tstory\tlong\t2022-02-28 01:02:03.004\n" for n in range(2500))
        (tmp_path / "rows.txt").write_text("".join(lines))
        assert FREEBCP
        arguments = [FREEBCP, "ops.dbo.by_freebcp", "in", tmp_path / "rows.txt", "-c"]
        arguments += ["-S", f"{server.host}:{server.port}", "-U", "sa", "-P", PASSWORD]
        done = subprocess.run(arguments, text=True, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done
        [row] = query(connection, "SELECT name, amount, story, long, at FROM dbo.by_freebcp WHERE id = 2499")
        moment = dt.datetime(2022, 2, 28, 1, 2, 3, 4000)
        assert row == ("name 2499", decimal.Decimal("2499.25"), "story", "long", moment)
