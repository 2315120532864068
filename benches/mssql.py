"""Keeps tables of SQL Server in step: reading, first loads, changes, polls, memory. All against the stand-in.

The stand-in (`tests/mssql-fixture`) is not SQL Server, and shares the machine's cores with what is measured: what is
said here of lakegate holds for lakegate's part of the work only.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pymssql

from apply import newest_commit, rewritten
from measure import MIB, THREADS, Run, definition, in_turn, measured, median, print_table, settings, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent
PASSWORD = "Bench-2022"  # noqa: S105 of a server that lives as long as a benchmark
#: What can be measured by itself.
PARTS = ("reading", "rivals", "polls", "changes", "memory")
CHANGED_ROWS = 1_000
#: First loads of the large table.
FIRST_LOADS = 3
IDLE_TABLES = 200
#: How long `lakegate serve` is watched while it polls idle tables.
WATCHED_SECONDS = 10
#: Longest a change may wait for others where the write budget is measured.
MAX_LAG_SECONDS = 10
#: Rows that are written out; the others are made from them on the server.
SEED_ROWS = 1_000

CONNECTION = """
[connections.ops]
type     = "sqlserver"
host     = "127.0.0.1"
port     = {port}
database = "ops"
user     = "sa"
password = {{ file = "password" }}
ca_file  = "ca.pem"
"""

DEFINITION = '[source]\nconnection = "ops"\ntable = "dbo.{table}"\n{source}\n[load]\n{load}\n'

ALLOWED = """\
ALTER DATABASE [ops] SET ALLOW_SNAPSHOT_ISOLATION ON;
GO
ALTER DATABASE [ops] SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 7 DAYS, AUTO_CLEANUP = ON);
GO
"""

ORDERS = """\
CREATE TABLE dbo.orders (
    id bigint NOT NULL PRIMARY KEY, customer int NOT NULL, status varchar(10) NOT NULL, note nvarchar(60) NULL,
    amount decimal(12,2) NOT NULL, weight float NOT NULL, paid bit NOT NULL, ordered date NOT NULL,
    changed datetime2(3) NOT NULL, reference uniqueidentifier NOT NULL
);
GO
"""

# As many rows again, of which numbers, texts and references are new, so that files are as large as real ones.
MORE = """\
INSERT INTO dbo.orders (id, customer, status, note, amount, weight, paid, ordered, changed, reference)
SELECT id + {have}, (customer * 7 + id) % 99991, status,
       CASE WHEN note IS NULL THEN NULL
            ELSE N'order ' + CAST((id + {have}) * 7919 % 1000000007 AS nvarchar(20)) + N' of somebody' END,
       CAST((id + {have}) * 104729 % 10000000 AS decimal(12,2)) / 100, CAST(id + {have} AS float) * 0.7310585786300049,
       paid, ordered, changed, NEWID()
FROM dbo.orders WHERE id < {more};
GO
"""

TRACKED = "ALTER TABLE dbo.{table} ENABLE CHANGE_TRACKING;\nGO\n"

PYMSSQL = """
import sys
import pandas, pymssql
from deltalake import write_deltalake
port, password, target = sys.argv[1:]
with pymssql.connect(server="127.0.0.1", port=port, user="sa", password=password, database="ops") as connection:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM dbo.orders")
        frame = pandas.DataFrame.from_records(cursor.fetchall(), columns=[column[0] for column in cursor.description])
frame["reference"] = frame["reference"].astype(str)
write_deltalake(target, frame)
"""

CONNECTORX = """
import sys
import connectorx
from deltalake import write_deltalake
port, password, target = sys.argv[1:]
url = f"mssql://sa:{password}@127.0.0.1:{port}/ops?encrypt=true&trust_server_certificate=true"
write_deltalake(target, connectorx.read_sql(url, "SELECT * FROM dbo.orders"))
"""


def run(
    target: Path,
    folder: Path,
    *,
    sizes: tuple[int, int] = (1_000_000, 10_000_000),
    runs: int = 5,
    parts: tuple[str, ...] = PARTS,
) -> None:
    """Measure and print; `target` is the folder of the built programs, named like their profile.

    `parts` are those that are measured (`make bench BENCH=mssql.reading` measures one).
    """
    home = folder / "mssql"
    if "polls" in parts:
        with stand_in(target, home, idle_tables()) as port:
            polls(target, home, port, runs)
    measures: dict[str, list[list[str]]] = {"changes": [], "memory": []}
    medians: dict[str, float] = {}
    small, large = {"reading", "rivals", "changes"} & {*parts}, {"changes", "memory"} & {*parts}
    for size in [*([sizes[0]] if small else []), *([sizes[1]] if large else [])]:
        with stand_in(target, home, orders(size)) as port:
            if size == sizes[0] and "reading" in parts:
                reading(target, home, port)
            if size == sizes[0] and "rivals" in parts:
                rivals(target, home, port, size, runs)
            if size == sizes[1] and "memory" in parts:
                memory(target, home, port, size)
            if "changes" in parts:
                changes(target, home, port, size, runs, measures, medians)
    if "changes" in parts:
        head = ["rows", "first load, s", "rows/s", "peak MiB"]
        print_table("First load, one run; memory limit 512 MiB", head, measures["memory"])
        head = ["rows", "keys", "s", "times the smallest", "committed", "lag, s", "files taken out", "MiB written"]
        print_table(f"{CHANGED_ROWS:,} changed rows, median of {runs} syncs", head, measures["changes"])


@contextlib.contextmanager
def stand_in(target: Path, home: Path, script: str) -> Iterator[int]:
    """Serve a database for the length of the block, made by a script, in an empty folder; gives the port."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "seed.sql").write_text(script, encoding="utf-8")
    (home / "password").write_text(PASSWORD, encoding="utf-8")
    command = [target / "mssql-fixture", "--listen", "127.0.0.1:0", "--password", PASSWORD, "--ca", home / "ca.pem"]
    command += ["--seed", home / "seed.sql"]
    # Its files are as large as the tables; the system's folder for temporary files may be in memory.
    place = {**os.environ, "TMPDIR": str(home)}
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=place) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line.startswith("listening on "):
                raise SystemExit("the stand-in did not start")
            yield int(line.rsplit(":", 1)[1])
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
            shutil.rmtree(home, ignore_errors=True)


def orders(size: int) -> str:
    """Return the script of a tracked table of so many rows in ten columns, one of them with NULLs."""
    chance = random.Random(1)  # noqa: S311 the same rows in every run
    statuses = ("new", "paid", "shipped", "returned")
    rows = []
    for number in range(min(SEED_ROWS, size)):
        note = "NULL" if number % 5 == 0 else f"N'order {chance.randrange(10**9)} of somebody'"
        day = f"2026-{1 + number % 12:02}-{1 + number % 28:02}"
        moment = f"{day} 10:{number % 60:02}:{number * 7 % 60:02}.{number % 1000:03}"
        rows.append(
            f"({number}, {chance.randrange(100_000)}, '{chance.choice(statuses)}', {note}, "
            f"{chance.randrange(10**7) / 100}, {chance.random()}, {number % 2}, '{day}', '{moment}', "
            f"'{uuid.UUID(int=chance.getrandbits(128))}')"
        )
    script = [ALLOWED, ORDERS]
    script += [
        f"INSERT INTO dbo.orders VALUES {', '.join(rows[at : at + 500])};\nGO\n" for at in range(0, len(rows), 500)
    ]
    have = len(rows)
    while have < size:
        more = min(have, size - have)
        script.append(MORE.format(have=have, more=more))
        have += more
    return "".join([*script, TRACKED.format(table="orders")])


def idle_tables() -> str:
    """Return the script of many small tracked tables."""
    one = "CREATE TABLE dbo.{table} (id int NOT NULL PRIMARY KEY, v int NULL);\nGO\n"
    one += "INSERT INTO dbo.{table} VALUES (1, 1);\nGO\n" + TRACKED
    return ALLOWED + "".join(one.format(table=f"t{number}") for number in range(IDLE_TABLES))


def prepared(home: Path, port: int, *, lake: str = "") -> None:
    """Write settings for a database that is served there, with lines of the benchmark's own for the lake."""
    settings(home)
    text = (home / "lakegate.toml").read_text(encoding="utf-8").replace("[lake]\n", f"[lake]\n{lake}")
    (home / "lakegate.toml").write_text(text + CONNECTION.format(port=port), encoding="utf-8")
    for name in ("lake", "tables"):
        shutil.rmtree(home / name, ignore_errors=True)


def connect(port: int) -> pymssql.Connection:
    """Connect as somebody who works in the database."""
    return pymssql.connect(
        server="127.0.0.1", port=str(port), user="sa", password=PASSWORD, database="ops", autocommit=True
    )


def reading(target: Path, home: Path, port: int) -> None:
    """Read into Arrow and into the lake, against the driver alone (`mssql.rs`)."""
    prepared(home, port)
    definition(home, "bench/orders", DEFINITION.format(table="orders", source="", load=""))
    definition(home, "bench/at_once", DEFINITION.format(table="orders", source='method = "reload"', load=""))
    command = ["cargo", "bench", "--locked", "--quiet", "--profile", target.name, "--bench", "mssql", "--"]
    subprocess.run([*command, "--folder", str(home)], cwd=REPOSITORY, check=True)


def rivals(target: Path, home: Path, port: int, size: int, runs: int) -> None:
    """Load a table for the first time, against scripts that read it into pandas and write it with deltalake."""
    prepared(home, port)
    definition(home, "bench/orders", DEFINITION.format(table="orders", source="", load=""))

    def mine() -> Run:
        shutil.rmtree(home / "lake", ignore_errors=True)
        return measured([target / "lakegate", "sync"], folder=home)

    def script(text: str) -> Run:
        shutil.rmtree(home / "written", ignore_errors=True)
        return measured([sys.executable, "-c", text, str(port), PASSWORD, home / "written"], folder=home)

    sides = in_turn(runs, mine, lambda: script(PYMSSQL), lambda: script(CONNECTORX))
    names = ("lakegate sync", "pymssql, pandas, deltalake", "connectorx, pandas, deltalake")
    rows = []
    for name, taken in zip(names, sides, strict=True):
        peak, least = (max(run.peak_bytes for run in side) / MIB for side in (taken, sides[0]))
        rows.append([
            name,
            f"{median(taken):.2f} ({spread(taken)})",
            f"{median(taken) / median(sides[0]):.2f}",
            f"{peak:,.0f}",
            f"{peak / least:.2f}",
        ])  # fmt: skip
    head = ["what", "s", "times lakegate's", "peak MiB", "times lakegate's"]
    print_table(f"{size:,} rows into a Delta table, median of {runs} runs, {THREADS} threads", head, rows)


def memory(target: Path, home: Path, port: int, size: int) -> None:
    """Load a large table for the first time, as often as it takes to see what varies."""
    rows = []
    for _ in range(FIRST_LOADS):
        prepared(home, port)
        definition(home, "b/t", DEFINITION.format(table="orders", source="", load=""))
        first = measured([target / "lakegate", "sync"], folder=home)
        rows.append([f"{size:,}", f"{first.seconds:.1f}", f"{first.peak_bytes / MIB:,.0f}"])
    print_table('First loads one after the other, memory = "512MiB"', ["rows", "s", "peak MiB"], rows)


def polls(target: Path, home: Path, port: int, runs: int) -> None:
    """Ask whether anything happened to many tables, when nothing has."""
    prepared(home, port)
    for number in range(IDLE_TABLES):
        definition(home, f"bench/t{number}", DEFINITION.format(table=f"t{number}", source="", load='every = "1s"'))
    measured([target / "lakegate", "sync"], folder=home)
    with connect(port) as connection:
        taken, counted = [], []
        for _ in range(runs):
            seen(connection)
            taken.append(measured([target / "lakegate", "sync"], folder=home))
            counted.append(len(seen(connection)))
        served = counted_while_served(target, home, connection)
    row = [
        f"{IDLE_TABLES}",
        f"{median(taken):.3f} ({spread(taken)})",
        f"{max(counted)}",
        f"{served / WATCHED_SECONDS:.1f}",
    ]
    head = ["tables", "sync with nothing new, s", "statements of a sync", "statements a second of serve"]
    print_table(f'Idle tables, every = "1s", median of {runs} syncs', head, [row])


def counted_while_served(target: Path, home: Path, connection: pymssql.Connection) -> int:
    """Return how many statements a server sends while nothing happens."""
    command = [str(target / "lakegate"), "serve", "--flight", "127.0.0.1:0"]
    with (home / "server.log").open("w") as log, subprocess.Popen(command, cwd=home, stderr=log) as server:
        # The first polls of all tables, which open connections, are not counted.
        time.sleep(WATCHED_SECONDS)
        seen(connection)
        time.sleep(WATCHED_SECONDS)
        statements = seen(connection)
        server.terminate()
        server.wait()
    return len(statements)


def seen(connection: pymssql.Connection) -> list[str]:
    """Return the statements that others have sent since this was asked last."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@SPID")
        own = cursor.fetchone()[0]
        cursor.execute("EXEC fixture.statements")
        statements = [row[4] for row in cursor.fetchall() if row[0] != own]
        cursor.execute("EXEC fixture.forget_statements")
    return statements


def changes(
    target: Path,
    home: Path,
    port: int,
    size: int,
    runs: int,
    measures: dict[str, list[list[str]]],
    medians: dict[str, float],
) -> None:
    """Load the table, then sync changed rows: among the newest keys, all over it, and within the write budget."""
    kinds = {
        "newest 1 %": 'max_lag = "0s"',
        "all over": 'max_lag = "0s"',
        "all over, budget 20": f'max_rewrite = 20\nmax_lag = "{MAX_LAG_SECONDS}s"',
    }
    prepared(home, port, lake='target_file_size = "16MiB"\n')
    definition(home, "b/t", DEFINITION.format(table="orders", source="", load=""))
    first = measured([target / "lakegate", "sync"], folder=home)
    measures["memory"].append([
        f"{size:,}", f"{first.seconds:.1f}", f"{size / first.seconds:,.0f}", f"{first.peak_bytes / MIB:,.0f}",
    ])  # fmt: skip
    chance = random.Random(2)  # noqa: S311 the same keys in every run
    with connect(port) as connection:
        for where, load in kinds.items():
            definition(home, "b/t", DEFINITION.format(table="orders", source="", load=load))
            taken, touched, lags = [], [], []
            for _ in range(runs if "budget" not in where else 2):
                low = int(size * 0.99) if where == "newest 1 %" else 0
                ids = ", ".join(map(str, chance.sample(range(low, size), CHANGED_ROWS)))
                before = newest_commit(home)
                with connection.cursor() as cursor:
                    cursor.execute(f"UPDATE dbo.orders SET customer = customer + 1 WHERE id IN ({ids})")
                changed = time.monotonic()
                taken.append(measured([target / "lakegate", "sync"], folder=home))
                while newest_commit(home) == before and "budget" in where:
                    time.sleep(1)
                    measured([target / "lakegate", "sync"], folder=home)
                lags.append(time.monotonic() - changed)
                touched.append(rewritten(home) if newest_commit(home) != before else (0, 0, 0))
            medians.setdefault(where, median(taken))
            files, _, added = (sorted(column)[len(column) // 2] for column in zip(*touched, strict=True))
            measures["changes"].append([
                f"{size:,}",
                where,
                f"{median(taken):.2f} ({spread(taken)})",
                f"{median(taken) / medians[where]:.2f}",
                f"{sum(1 for change in touched if any(change))} of {len(touched)}",
                f"{sorted(lags)[len(lags) // 2]:.1f}",
                f"{files}",
                f"{added / MIB:.1f}",
            ])  # fmt: skip
