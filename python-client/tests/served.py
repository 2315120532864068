"""A real server for the tests: definitions, files and lake in a temporary folder, a free port."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import lakegate

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
#: Seconds a server built without optimisation gets to open the lake and listen, and to end.
PATIENCE = 60

UTC = datetime.timezone.utc
#: One row a value with something to get wrong: zones, accents, quotes, nulls, the ends of ranges.
EVERYTHING = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "flag": pa.array([True, None, False]),
        "small": pa.array([-32768, 32767, None], pa.int16()),
        "whole": pa.array([-(2**31), None, 2**31 - 1], pa.int32()),
        "large": pa.array([-(2**63), 2**63 - 1, None], pa.int64()),
        "single": pa.array([1.5, None, -0.0], pa.float32()),
        "number": pa.array([0.1, float("inf"), None], pa.float64()),
        "money": pa.array([decimal.Decimal("-1.25"), None, decimal.Decimal("99999999.99")], pa.decimal128(10, 2)),
        "text": pa.array(["Zoë's “x”", "", None]),
        "bytes": pa.array([b"\x00\xff", None, b""], pa.binary()),
        "day": pa.array([datetime.date(1969, 12, 31), None, datetime.date(2100, 2, 28)], pa.date32()),
        "instant": pa.array(
            [datetime.datetime(2013, 1, 1, 6, 0, 0, 1, tzinfo=UTC), None, datetime.datetime(1900, 1, 1, tzinfo=UTC)],
            pa.timestamp("us", tz="UTC"),
        ),
        "local": pa.array([datetime.datetime(2013, 3, 10, 2, 30), None, None], pa.timestamp("us")),
        "list": pa.array([[1, 2], None, []], pa.list_(pa.int32())),
        "struct": pa.array([{"a": "x", "b": [1.5]}, {"a": None, "b": None}, None]),
    }
)


@dataclass(frozen=True)
class Served:
    """A running server with the folder it serves."""

    url: str
    folder: Path
    program: Path

    def sync(self, *tables: str) -> subprocess.CompletedProcess[str]:
        """Load tables; fails the test where the load fails."""
        return run(self.program, self.folder, "sync", *tables)

    def table(self, name: str, definition: str) -> None:
        """Write a table definition; it counts for servers started after it."""
        path = self.folder / "tables" / f"{name.replace('.', '/')}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(definition, encoding="utf-8")

    def file(self, name: str, content: str | bytes | pa.Table) -> None:
        """Write a source file whose last change is long ago, so that it is not taken for one still growing."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pyarrow.parquet.write_table(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(path, (1_000_000_000, 1_000_000_000))


def program() -> Path:
    """Return the program to test: LAKEGATE_BIN, else what cargo built last in the dev profile."""
    return _built("lakegate", "LAKEGATE_BIN")


def database() -> Path:
    """Return the stand-in for SQL Server: MSSQL_FIXTURE, else what cargo built last in the dev profile."""
    return _built("mssql-fixture", "MSSQL_FIXTURE")


def _built(name: str, variable: str) -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    found = Path(os.environ.get(variable, target / "debug" / name))
    if not found.exists():
        pytest.fail(f"{found} is not there; build it with `cargo build --workspace` or name it in {variable}")
    return found.resolve()


def run(program: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder to its end; fails the test where it fails."""
    done = subprocess.run([str(program), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"lakegate {arguments}: {done.stderr}"
    return done


@contextlib.contextmanager
def serve(program: Path, folder: Path, *, loads: bool = False) -> Iterator[str]:
    """Run a server in a folder for the length of the block, with loads on schedule or without; gives its address."""
    ready, log = folder / "address", folder / "server.log"
    ready.unlink(missing_ok=True)
    command = [str(program), "serve", "--flight", "127.0.0.1:0", "--ready-file", str(ready)]
    command += [] if loads else ["--no-loads"]
    with log.open("w") as lines, subprocess.Popen(command, cwd=folder, stderr=lines) as server:
        try:
            patience = time.monotonic() + PATIENCE
            while not (ready.exists() and (found := ready.read_text().strip())):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < patience, log.read_text()
                time.sleep(0.02)
            yield found if "://" in found else f"grpc://{found}"
        finally:
            server.terminate()
            try:
                server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server over three tables: `t.everything` (Parquet), `t.people` (csv, two broken rows), `t.growing`."""
    folder = tmp_path_factory.mktemp("served")
    prepared = Served(url="", folder=folder, program=program())
    (folder / "lakegate.toml").write_text('[lake]\nlocation = "lake"\n')
    prepared.table("t.everything", '[source]\nfiles = "in/everything.parquet"\nformat = "parquet"\n')
    prepared.file("in/everything.parquet", EVERYTHING)
    prepared.table(
        "t.people",
        '[source]\nfiles = "in/people.csv"\nformat = "csv"\n[load]\nmax_rejects = 0.5\n'
        '[[columns]]\nname = "name"\ntype = "string"\n[[columns]]\nname = "age"\ntype = "int"\n'
        '[[columns]]\nname = "born"\ntype = "date"\n',
    )
    prepared.file(
        "in/people.csv", "name,age,born\nAda,36,1815-12-10\nGrace,x,1906-12-09\nAlan,41\nEdsger,72,1930-05-11\n"
    )
    prepared.table("t.growing", '[source]\nfiles = "in/growing/*.csv"\nformat = "csv"\n')
    prepared.file("in/growing/1.csv", "n\n1\n2\n")
    prepared.sync()
    with serve(prepared.program, folder) as url:
        yield Served(url=url, folder=folder, program=prepared.program)


@pytest.fixture
def client(served: Served) -> Iterator[lakegate.Client]:
    """A client of the server."""
    with lakegate.connect(served.url) as connected:
        yield connected
