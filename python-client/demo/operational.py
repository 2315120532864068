"""The demo's operational database: CSV files, served by the stand-in for SQL Server, and a colleague who changes rows.

The colleague's program is python-tds, which knows nothing of lakegate.
"""

from __future__ import annotations

import contextlib
import csv
import io
import secrets
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytds

import landing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: The tables, read by docker/mssql too: the same files fill a real SQL Server.
TABLES = Path(__file__).resolve().parents[2] / "docker" / "mssql" / "data" / "tables.sql"
#: Seconds the stand-in gets to end.
PATIENCE = 60

# What a database administrator runs: `lakegate doctor ops` prints these rights.
LOGIN = """\
CREATE LOGIN lakegate WITH PASSWORD = N'{password}';
GO
CREATE USER lakegate FOR LOGIN lakegate;
GO
{grants}
GRANT VIEW DATABASE STATE TO lakegate;
GO
"""
GRANT = "GRANT SELECT, VIEW CHANGE TRACKING ON OBJECT::dbo.{table} TO lakegate;"

CONNECTION = """
[connections.ops]
type     = "sqlserver"
host     = "127.0.0.1"
port     = {port}
database = "ops"
user     = "lakegate"
password = {{ file = "operational/lakegate.password" }}
ca_file  = "operational/ca.pem"
"""


def lay_out(archive: Path, folder: Path) -> None:
    """Write the tables' definitions, a CSV file for each table, passwords, and a login for lakegate.

    Parameters
    ----------
    archive
        What :func:`landing.fetch` gave.
    folder
        An empty folder, or none yet.
    """
    folder.mkdir(parents=True)
    (folder / "csv").mkdir()
    shutil.copy(TABLES, folder / "csv")
    names = ("airlines", "airports", "planes")
    for name in names:
        rows = csv.reader(io.StringIO(landing.read(archive, f"{name}.csv").decode()))
        _write(folder / "csv" / f"dbo.{name}.csv", rows)
    _write(folder / "csv" / "dbo.flights.csv", _flights(archive))
    for login in ("sa", "lakegate"):
        # SQL Server asks for several kinds of characters.
        (folder / f"{login}.password").write_text(f"Demo-{secrets.token_urlsafe(12)}", encoding="utf-8")
    grants = "\n".join(GRANT.format(table=table) for table in (*names, "flights"))
    login_script = LOGIN.format(password=(folder / "lakegate.password").read_text(encoding="utf-8"), grants=grants)
    (folder / "login.sql").write_text(login_script, encoding="utf-8")


def _flights(archive: Path) -> Iterator[Sequence[str]]:
    """Give the flights with the number of the row as their key, and times as SQL Server reads them everywhere."""
    with zipfile.ZipFile(io.BytesIO(landing.read(archive, "flights.csv.zip"))) as inner:
        header, *rows = csv.reader(io.StringIO(inner.read("flights.csv").decode()))
    yield ["flight_id", *header]
    for number, row in enumerate(rows, 1):
        yield [str(number), *row[:-1], row[-1].replace("T", " ").removesuffix("Z")]


def _write(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write rows; an empty field is NULL."""
    with path.open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(["" if value == "NA" else value for value in row] for row in rows)


def command(program: Path, *, listen: str) -> list[str]:
    """Return the command that serves what :func:`lay_out` wrote, but for the password, to be run above the folder."""
    given = [str(program), "--listen", listen, "--csv", "operational/csv"]
    return [*given, "--seed", "operational/login.sql", "--ca", "operational/ca.pem"]


@contextlib.contextmanager
def served(program: Path, home: Path) -> Iterator[int]:
    """Run the stand-in over `home/operational` for the length of the block; gives its port."""
    password = (home / "operational" / "sa.password").read_text(encoding="utf-8")
    arguments = [*command(program, listen="127.0.0.1:0"), "--password", password]
    with subprocess.Popen(arguments, cwd=home, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line.startswith("listening on "):
                raise SystemExit("the stand-in for SQL Server did not start")
            yield int(line.rsplit(":", 1)[1])
        finally:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(PATIENCE)
            server.kill()


class Colleague:
    """Somebody who works in the database with a program of their own."""

    def __init__(self, home: Path, port: int) -> None:
        password = (home / "operational" / "sa.password").read_text(encoding="utf-8")
        self._connection = pytds.connect(
            "127.0.0.1", port=port, database="ops", user="sa", password=password, autocommit=True
        )

    def __enter__(self) -> Colleague:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def runs(self, statement: str) -> None:
        """Run one statement; it is committed when this returns."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
