"""The servers that are measured, on the same files: lakegate, its peers, and a database.

Those that cannot run say why.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as parquet
from deltalake import DeltaTable

from datasets import SAMPLES, TABLES
from measure import THREADS, definition, settings, settled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from links import Loopback, Namespaces

HERE = Path(__file__).resolve().parent
PASSWORD = "Bench-2022"  # noqa: S105 of a server that lives as long as a benchmark
#: Rows of lineitem that stand in the database too.
DATABASE_ROWS = 50_000
START_SECONDS = 120
#: What lakegate is given for statements; see `measure.settings`.
SERVER_MEMORY = 512 * 1024 * 1024
#: What `measure.settings` says so that no result is kept for the next who asks, and what is said where one is.
NOTHING_KEPT, KEPT = 'cache = "0B"', 'cache = "6GiB"'
#: A server rests when it takes less than this share of a core and the line carries no more than some packets, each
#: time it is looked at, so many times in a row; for that it has so long.
LOOK_SECONDS, QUIET_LOOKS, QUIET_SHARE, QUIET_BYTES = 0.5, 2, 0.06, 2_000
REST_SECONDS = 20.0


@dataclass(frozen=True)
class Peer:
    """A server, and how it is asked: the asker's kind and headers, what it calls tables."""

    name: str
    kind: str
    address: str
    pid: int
    tables: dict[str, str]
    dialect: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def asks(self, name: str, text: str) -> str:
        """Return a statement in its own words."""
        return (SAMPLES.get(self.dialect, text) if name == "sample" else text).format(**self.tables)


@dataclass(frozen=True)
class Lake:
    """A loaded lake, and the folder with its data files for the peers, one folder a table."""

    home: Path
    target: Path
    files: Path

    @classmethod
    def load(cls, folder: Path, target: Path, source: Path) -> Lake:
        """Load the tables anew; `bench.growing` and `bench.pulled` are parts of lineitem."""
        home, files = folder / "lake", folder / "files"
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(files, ignore_errors=True)
        settings(home)
        landing = home / "in"
        for table in TABLES:
            (landing / table).mkdir(parents=True)
            os.link(source / f"{table}.parquet", landing / table / "0.parquet")
        lineitem = parquet.ParquetFile(source / "lineitem.parquet")
        first = lineitem.read_row_groups(range(min(6, lineitem.num_row_groups)))
        for table, rows in (("growing", first), ("pulled", first.slice(0, DATABASE_ROWS))):
            (landing / table).mkdir()
            parquet.write_table(rows, landing / table / "0.parquet", compression="zstd")
        for table in (*TABLES, "growing", "pulled"):
            settled(landing / table / "0.parquet")
            text = f'[source]\nfiles = "in/{table}/*.parquet"\nformat = "parquet"\n[load]\nmode = "append"\n'
            definition(home, f"bench/{table}", text)
        lake = cls(home, target, files)
        lake.sync()
        for table in TABLES:
            (files / table).mkdir(parents=True)
            named = [Path(uri.removeprefix("file://")) for uri in lake.delta(table).file_uris()]
            for number, path in enumerate(named):
                os.link(path, files / table / f"{number}.parquet")
            listed = "\n".join(f"{number}.parquet" for number in range(len(named)))
            (files / table / "files.txt").write_text(listed, encoding="utf-8")
        return lake

    def sync(self) -> None:
        """Load what is new."""
        synced = subprocess.run([str(self.target / "lakegate"), "sync"], cwd=self.home, capture_output=True, text=True)
        if synced.returncode:
            raise SystemExit(f"lakegate sync failed: {synced.stdout}{synced.stderr}")

    def delta(self, table: str) -> DeltaTable:
        """Return a table as any reader sees it; its folder is the one whose path ends in schema and table."""
        logs = [path for path in (self.home / "lake").rglob("_delta_log") if path.parent.name == table]
        if len(logs) != 1:
            raise SystemExit(f"{table} is not where it was looked for: {logs}")
        return DeltaTable(logs[0].parent)

    def append(self, share: float) -> None:
        """Let `bench.growing` gain a share of its rows, as one more file."""
        have = parquet.read_table(self.home / "in" / "growing" / "0.parquet")
        more = self.home / "in" / "growing" / "1.parquet"
        parquet.write_table(have.slice(0, max(1, round(have.num_rows * share))), more, compression="zstd")
        settled(more)
        self.sync()


@contextlib.contextmanager
def lakegate(where: Namespaces | Loopback, lake: Lake, *, line: str = "", keeps: bool = False) -> Iterator[Peer]:
    """Serve the lake; `line` is what its settings say more. The peer asks as stock pyarrow does.

    Unless it `keeps` them, results that were sent are computed anew, so that each run does what the first one did.
    """
    home = lake.home.parent / "served"
    shutil.rmtree(home, ignore_errors=True)
    settings(home)
    shutil.copytree(lake.home / "tables", home / "tables")
    text = (home / "lakegate.toml").read_text(encoding="utf-8").replace('"lake"', f'"{lake.home / "lake"}"')
    text += "\n[serve]\nallow_anonymous_network = true\nallow_plaintext_network = true\n" + line
    text = text.replace(NOTHING_KEPT, KEPT) if keeps else text
    (home / "lakegate.toml").write_text(text, encoding="utf-8")
    command = [*where.server, str(lake.target / "lakegate"), "serve", "--flight", f"{where.host}:0", "--no-loads"]
    with started([*command, "--ready-file", "ready"], home, log=home / "log") as server:
        while not (home / "ready").exists():
            if server.poll() is not None:
                raise SystemExit((home / "log").read_text(encoding="utf-8"))
            time.sleep(0.05)
        address = (home / "ready").read_text(encoding="utf-8").strip().removeprefix("grpc://")
        tables = {table: f"bench.{table}" for table in (*TABLES, "growing", "pulled")}
        yield Peer("lakegate, stock pyarrow", "flight", address, server.pid, tables, headers=where.headers)


def takes(lake: Lake, setting: str) -> bool:
    """Tell whether lakegate knows a setting, by asking `lakegate check`."""
    home = lake.home.parent / "checked"
    shutil.rmtree(home, ignore_errors=True)
    settings(home)
    with (home / "lakegate.toml").open("a", encoding="utf-8") as file:
        file.write(setting)
    return subprocess.run([str(lake.target / "lakegate"), "check"], cwd=home, capture_output=True).returncode == 0


@contextlib.contextmanager
def roapi(where: Namespaces | Loopback, lake: Lake) -> Iterator[Peer]:
    """Serve the files with ROAPI, which reads them for each statement as lakegate does."""
    lines = ["addr:", f"  http: {where.host}:{free(where)}", f"  postgres: {where.host}:{free(where)}"]
    lines += ["tables:"]
    for table in TABLES:
        lines += [f"  - name: {table}", f"    uri: {lake.files / table}"]
        lines += ["    option:", "      format: parquet", "      use_memory_table: false"]
    settings_file = lake.files.parent / "roapi.yml"
    settings_file.write_text("\n".join(lines), encoding="utf-8")
    address = f"{where.host}:{free(where)}"
    command = [*where.server, str(program("roapi")), "-c", str(settings_file), "--addr-flight-sql", address]
    with listening(where, command, lake.files.parent, address) as pid:
        yield Peer("ROAPI", "flight", address, pid, {table: table for table in TABLES})


@contextlib.contextmanager
def sail(where: Namespaces | Loopback, lake: Lake) -> Iterator[Peer]:
    """Serve the files with Sail's server of Flight SQL."""
    address = f"{where.host}:{free(where)}"
    host, port = address.split(":")
    command = [*where.server, str(program("sail")), "flight", "server", "--ip", host, "--port", port]
    with listening(where, command, lake.files.parent, address) as pid:
        tables = {table: f"parquet.`{lake.files / table}/*.parquet`" for table in TABLES}
        yield Peer("Sail", "flight", address, pid, tables, dialect="sail")


@contextlib.contextmanager
def duckdb(where: Namespaces | Loopback, lake: Lake) -> Iterator[Peer]:
    """Serve the files with DuckDB behind Flight."""
    command = [*where.server, sys.executable, str(HERE / "duckdb_flight.py"), where.host, str(lake.files)]
    with told(command, lake.files.parent) as (address, pid):
        tables = {table: table for table in TABLES}
        yield Peer("DuckDB behind Flight", "flight", address, pid, tables, dialect="duckdb")


@contextlib.contextmanager
def bare(where: Namespaces | Loopback, lake: Lake, source: Peer, sql: str, program: list[str]) -> Iterator[Peer]:
    """Serve out of memory, and do nothing else, the batches that another server streams for a statement."""
    given = ["--from", source.address, "--sql", sql, "--host", where.host]
    with told([*where.server, *program, *given], lake.files.parent) as (address, pid):
        yield Peer(
            f"a bare Flight server ({'C++' if program[0] == sys.executable else 'Rust'})",
            "flight",
            address,
            pid,
            source.tables,
        )


@contextlib.contextmanager
def files(where: Namespaces | Loopback, lake: Lake) -> Iterator[Peer]:
    """Serve the files as files, as Delta Sharing does."""
    address = f"{where.host}:{free(where)}"
    host, port = address.split(":")
    command = [*where.server, sys.executable, "-m", "http.server", port, "--bind", host]
    with listening(where, [*command, "--directory", str(lake.files)], lake.files.parent, address) as pid:
        tables = {table: f"files:{table}" for table in TABLES}
        yield Peer("whole files over HTTP", "files", address, pid, tables, dialect="duckdb")


@contextlib.contextmanager
def database(where: Namespaces | Loopback, lake: Lake) -> Iterator[Peer]:
    """Serve `pulled` from the stand-in for SQL Server."""
    home = lake.home.parent / "database"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    (home / "seed.sql").write_text(seed(lake), encoding="utf-8")
    command = [*where.server, str(lake.target / "mssql-fixture"), "--listen", f"{where.host}:0"]
    command += ["--password", PASSWORD, "--ca", str(home / "ca.pem"), "--seed", str(home / "seed.sql")]
    with told(command, home) as (address, pid):
        yield Peer("pymssql", "pymssql", address, pid, {"pulled": "dbo.pulled"})


def seed(lake: Lake) -> str:
    """Return the script that makes `dbo.pulled` as the lake has it."""
    rows = parquet.read_table(lake.home / "in" / "pulled" / "0.parquet")
    kinds = {"int": "bigint", "dec": "decimal(15,2)", "dat": "date", "str": "varchar(64)"}
    columns = ", ".join(f"{f.name} {kinds[str(f.type)[:3]]} NOT NULL" for f in rows.schema)
    script = [f"CREATE TABLE dbo.pulled ({columns});\nGO\n"]
    for batch in rows.to_batches(max_chunksize=500):
        values = zip(*batch.to_pydict().values(), strict=True)
        lines = ["(" + ", ".join(map(literal, row)) + ")" for row in values]
        script.append(f"INSERT INTO dbo.pulled VALUES {', '.join(lines)};\nGO\n")
    return "".join(script)


def literal(value: object) -> str:
    """Return a value as SQL Server reads it."""
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


#: Servers beside lakegate and the database, by the word that names them.
PEERS = {"roapi": roapi, "sail": sail, "duckdb": duckdb, "files": files}


def program(name: str) -> Path:
    """Return a program of the bench's environment; raises where it is not installed."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise FileNotFoundError(f"{name} is not installed")
    return path


def importable(name: str) -> bool:
    """Tell whether a module is installed."""
    return importlib.util.find_spec(name) is not None


@contextlib.contextmanager
def started(command: list[str], folder: Path, *, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program for the length of the block with the machine's threads, as lakegate has them."""
    surroundings = {**os.environ, "TMPDIR": str(folder), "TOKIO_WORKER_THREADS": str(THREADS)}
    with (
        log.open("w", encoding="utf-8") as output,
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=output, text=True, env=surroundings
        ) as server,
    ):
        try:
            yield server
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()


@contextlib.contextmanager
def told(command: list[str], folder: Path) -> Iterator[tuple[str, int]]:
    """Run a program that says where it listens; gives its address and process."""
    with started(command, folder, log=folder / "log") as server:
        line = server.stdout.readline() if server.stdout else ""
        if not line.startswith("listening on "):
            raise OSError((folder / "log").read_text(encoding="utf-8")[-500:])
        yield line.split()[-1], server.pid


@contextlib.contextmanager
def listening(where: Namespaces | Loopback, command: list[str], folder: Path, address: str) -> Iterator[int]:
    """Run a program that listens at an address; gives its process once it does."""
    log = folder / f"{Path(command[len(where.server)]).name}.log"
    # Its output goes where nobody waits for it to be read.
    with started(["sh", "-c", 'exec "$@" >&2', "sh", *command], folder, log=log) as server:
        end = time.monotonic() + START_SECONDS
        while not reached(where, address):
            if server.poll() is not None or time.monotonic() > end:
                raise OSError(log.read_text(encoding="utf-8")[-500:])
            time.sleep(0.1)
        yield server.pid


def reached(where: Namespaces | Loopback, address: str) -> bool:
    """Tell whether somebody listens at an address."""
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
    command = [*where.client, sys.executable, "-c", code, *address.rsplit(":", 1)]
    return subprocess.run(command, capture_output=True).returncode == 0


def free(where: Namespaces | Loopback) -> int:
    """Return a free port of the servers' side."""
    code = "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"
    if not where.server:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            return int(taken.getsockname()[1])
    return int(subprocess.run([*where.server, sys.executable, "-c", code], check=True, capture_output=True).stdout)


def processor_seconds(pid: int) -> float:
    """Return what a process has taken of the processor; raises `FileNotFoundError` where it has ended."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    if words[0] == "Z":
        raise FileNotFoundError(f"process {pid} has ended")
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def at_rest(where: Namespaces | Loopback, pid: int, patience: float = REST_SECONDS) -> bool:
    """Wait until a server takes no processor time and the line carries nothing; false where it goes on, or is gone."""
    end, quiet = time.monotonic() + patience, 0
    try:
        before = processor_seconds(pid), where.sent() or 0
        while quiet < QUIET_LOOKS and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            now = processor_seconds(pid), where.sent() or 0
            rests = now[0] - before[0] <= LOOK_SECONDS * QUIET_SHARE and now[1] - before[1] <= QUIET_BYTES
            quiet, before = (quiet + 1 if rests else 0), now
    except FileNotFoundError:
        return False
    return quiet >= QUIET_LOOKS


def memory(pid: int, name: str) -> int:
    """Return a line of a process's memory in bytes: `VmRSS` now, `VmHWM` at most."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


class Asker:
    """A client's process; see `asker.py`."""

    def __init__(
        self,
        where: Namespaces | Loopback,
        kind: str,
        address: str,
        *,
        cache: Path | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        command = [*where.client, sys.executable, str(HERE / "asker.py"), kind, address, "--password", PASSWORD]
        if cache:
            command += ["--cache", str(cache)]
        for name, value in {**where.headers, **(headers or {})}.items():
            command += ["--header", f"{name}={value}"]
        client = str(HERE.parents[1] / "python-client" / "src")
        surroundings = {**os.environ, "PYTHONPATH": client}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings
        )
        self._line(START_SECONDS)

    def start(self, sql: str | list[str], **asked: object) -> None:
        """Let it pull; the answer is fetched by `finish`."""
        if self._process.stdin:
            print(json.dumps({"sql": sql, **asked}), file=self._process.stdin, flush=True)

    def finish(self, patience: float | None = None) -> dict:
        """Wait for the answer; raises `OSError` where none comes in so many seconds, or the process ended."""
        return dict(json.loads(self._line(patience)))

    def pull(self, sql: str | list[str], *, patience: float | None = None, **asked: object) -> dict:
        """Pull, and return what it took; as `finish`."""
        self.start(sql, **asked)
        return self.finish(patience)

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self, patience: float | None) -> str:
        output = self._process.stdout
        # One line is one answer, so that none waits in the buffer that `select` does not see.
        if output is None or not select.select([output], [], [], patience)[0]:
            raise OSError(f"no answer within {patience:.0f} s")
        line = output.readline()
        if not line:
            raise OSError("the client ended; what it said stands above")
        return line
