"""Loads TPC-H lineitem from csv into Delta, against DuckDB writing the same csv to zstd Parquet.

Bars: at least 0.6 times DuckDB's speed with the same two threads; peak memory at most 1 GiB, and not
more for three times the data. Lakegate checks every field and syncs what it wrote to disk; DuckDB does not.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from measure import MIB, THREADS, Run, definition, in_turn, measured, median, print_table, settings, settled, spread

COLUMNS = {
    "l_orderkey": "bigint",
    "l_partkey": "bigint",
    "l_suppkey": "bigint",
    "l_linenumber": "int",
    "l_quantity": "decimal(15,2)",
    "l_extendedprice": "decimal(15,2)",
    "l_discount": "decimal(15,2)",
    "l_tax": "decimal(15,2)",
    "l_returnflag": "string",
    "l_linestatus": "string",
    "l_shipdate": "date",
    "l_commitdate": "date",
    "l_receiptdate": "date",
    "l_shipinstruct": "string",
    "l_shipmode": "string",
    "l_comment": "string",
}

DUCKDB = """
import duckdb, sys
source, target, threads, columns = sys.argv[1:]
duckdb.sql(f"set threads = {threads}")
duckdb.sql(f"copy (select * from read_csv('{source}', header = true, columns = {columns})) "
           f"to '{target}' (format parquet, compression zstd)")
"""


def generate(folder: Path, scale: int) -> Path:
    """Return lineitem of a scale factor as csv, made unless it is there."""
    path = folder / f"sf{scale}" / "lineitem.csv"
    if not path.exists():
        tool = Path(sys.executable).parent / "tpchgen-cli"
        command = [tool, "csv", "--scale-factor", str(scale), "--tables", "lineitem", "--output-dir", path.parent]
        subprocess.run([str(part) for part in command], check=True)
        settled(path)
    return path


def run(target: Path, folder: Path, *, scales: tuple[int, ...] = (1, 3), runs: int = 5) -> None:
    """Measure and print; `target` is the folder of the built program."""
    rows = []
    for scale in scales:
        source = generate(folder, scale)
        mine, theirs = in_turn(runs, lambda s=source: lakegate(target, folder, s), lambda s=source: duckdb(folder, s))
        ratio = median(theirs) / median(mine)
        peak = max(run.peak_bytes for run in mine) / MIB
        peak_theirs = max(run.peak_bytes for run in theirs) / MIB
        rows.append([
            f"SF{scale}, {source.stat().st_size / MIB:,.0f} MiB",
            f"{median(mine):.2f} ({spread(mine)})",
            f"{median(theirs):.2f} ({spread(theirs)})",
            f"{ratio:.2f}",
            f"{peak:,.0f}",
            f"{peak_theirs:,.0f}",
        ])  # fmt: skip
    head = ["data", "lakegate sync, s", "DuckDB, s", "speed, times DuckDB's", "peak MiB", "DuckDB's peak MiB"]
    print_table(f"lineitem csv to Delta, median of {runs} runs", head, rows)


def lakegate(target: Path, folder: Path, source: Path) -> Run:
    """Load the csv into an empty lake."""
    home = folder / "load"
    shutil.rmtree(home, ignore_errors=True)
    settings(home)
    columns = "".join(f'[[columns]]\nname = "{name}"\ntype = "{kind}"\n' for name, kind in COLUMNS.items())
    definition(home, "tpch/lineitem", f'[source]\nfiles = "{source}"\nformat = "csv"\n{columns}')
    return measured([target / "lakegate", "sync"], folder=home)


def duckdb(folder: Path, source: Path) -> Run:
    """Write the csv to one zstd Parquet file; the import of DuckDB into Python counts (about 0.1 s)."""
    written = folder / "duckdb.parquet"
    written.unlink(missing_ok=True)
    columns = str({name: kind.replace("string", "varchar") for name, kind in COLUMNS.items()})
    return measured([sys.executable, "-c", DUCKDB, source, written, str(THREADS), columns], folder=folder)
