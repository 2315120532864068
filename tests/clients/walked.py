"""The server that the tests of every client walk: the type matrix, and tables of unusual shapes.

`python tests/clients/walked.py COMMAND …` runs a command beside such a server, which it finds in `LAKEGATE_HOST`,
`LAKEGATE_PORT` and `LAKEGATE_URL`; on `LAKEGATE_SLOW_PORT` the same tables are behind a slow line. So the tests in
Java, Go and JavaScript need not know how a server is made.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python-client" / "tests"))

import pyarrow as pa

import matrix
from served import Served, program, run, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

MILLION = 1_000_000
WIDE = 4_000
GIANT = 20 << 20

#: Who docs/clients.md logs in as.
USER, PASSWORD = "ada", "correct horse"
#: What a table's definition says beyond where its rows come from.
DEFINITIONS = {
    "shapes.keyed": '[load]\nmode = "upsert"\n[table]\nkey = ["id"]\n',
    # So many columns are taken only where somebody declares them.
    "shapes.wide": "".join(f'[[columns]]\nname = "c{at}"\ntype = "int"\n' for at in range(WIDE)),
}
#: Tables by name. The first is the one docs/clients.md speaks of.
TABLES = {
    "team.people": lambda: pa.table(
        {
            "name": ["Ada", "Alan", "Edsger"],
            "age": pa.array([36, 41, 72], pa.int32()),
            "born": [dt.date(1815, 12, 10), dt.date(1912, 6, 23), dt.date(1930, 5, 11)],
        }
    ),
    "types.matrix": matrix.table,
    "types.beyond": matrix.beyond,
    "shapes.nothing": lambda: matrix.table().slice(0, 0),
    "shapes.one": lambda: pa.table({"n": pa.array([1], pa.int64())}),
    "shapes.million": lambda: pa.table(
        {
            "n": pa.array(range(MILLION), pa.int64()),
            "word": pa.array(["even", "odd"] * (MILLION // 2)),
            "half": pa.array([n / 2 for n in range(MILLION)], pa.float64()),
        }
    ),
    "shapes.wide": lambda: pa.table({f"c{at}": pa.array([at, None], pa.int32()) for at in range(WIDE)}),
    "shapes.keyed": lambda: pa.table({"id": pa.array([1, 2], pa.int32()), "name": ["one", "two"]}),
    "shapes.giant": lambda: pa.table({"id": pa.array([1, 2], pa.int32()), "cell": ["x" * GIANT, "small"]}),
}


def prepare(folder: Path) -> Served:
    """Load all tables into a lake below the folder."""
    prepared = Served(url="", folder=folder, program=program())
    (folder / "lakegate.toml").write_text('[lake]\nlocation = "lake"\n')
    for name, content in TABLES.items():
        definition = f'[source]\nfiles = "in/{name}.parquet"\nformat = "parquet"\n'
        prepared.table(name, definition + DEFINITIONS.get(name, ""))
        prepared.file(f"in/{name}.parquet", content())
    prepared.sync()
    return prepared


@contextlib.contextmanager
def secured(folder: Path) -> Iterator[tuple[str, Path]]:
    """Run a server with the user and the table of docs/clients.md, over TLS; gives its address and authority."""
    folder.mkdir()
    prepared = Served(url="", folder=folder, program=program())
    certificate = folder / "tls" / "certificate.pem"
    (folder / "lakegate.toml").write_text('[lake]\nlocation = "lake"\n')
    prepared.table("team.people", '[source]\nfiles = "people.parquet"\nformat = "parquet"\n')
    prepared.file("people.parquet", TABLES["team.people"]())
    prepared.sync()
    run(prepared.program, folder, "cert", "dev")
    add = [str(prepared.program), "user", "add", USER, "--role", "admin", "--password-stdin"]
    subprocess.run(add, cwd=folder, input=f"{PASSWORD}\n", text=True, check=True, capture_output=True)
    with (folder / "lakegate.toml").open("a") as settings:
        settings.write(f'[serve.tls]\ncertificate = "{certificate}"\nkey = "{certificate.with_name("key.pem")}"\n')
    with serve(prepared.program, folder) as url:
        yield url, certificate


@contextlib.contextmanager
def slow(prepared: Served) -> Iterator[str]:
    """Serve the same lake behind a slow line, whose settings say how rows come to who does not; gives the address."""
    folder = prepared.folder / "slow"
    shutil.copytree(prepared.folder / "tables", folder / "tables")
    line = '[[line]]\nnetworks = ["127.0.0.0/8"]\nrate = "40Mbit/s"\ncodec = "lz4"\ndictionaries = true\n'
    (folder / "lakegate.toml").write_text(f'[lake]\nlocation = "{prepared.folder / "lake"}"\n{line}')
    with serve(prepared.program, folder) as url:
        yield url


def main(command: list[str]) -> int:
    """Run a command beside a server of its own, and end as it ends."""
    with tempfile.TemporaryDirectory(prefix="lakegate-clients-") as name:
        prepared = prepare(Path(name))
        with serve(prepared.program, prepared.folder) as url:
            address = urllib.parse.urlparse(url)
            where = {
                "LAKEGATE_URL": url,
                "LAKEGATE_HOST": address.hostname or "",
                "LAKEGATE_PORT": str(address.port),
                "LAKEGATE_EXPECTED": str(matrix.EXPECTED),
            }
            with secured(prepared.folder / "secured") as (tls, authority), slow(prepared) as slowly:
                where["LAKEGATE_SLOW_PORT"] = str(urllib.parse.urlparse(slowly).port)
                where |= {"LAKEGATE_TLS_PORT": str(urllib.parse.urlparse(tls).port), "LAKEGATE_CA": str(authority)}
                return subprocess.run(command, env={**os.environ, **where}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
