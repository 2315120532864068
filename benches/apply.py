"""Applies 1,000 changed rows to tables of 1 and 10 million rows.

Bars, for changes in the newest 1 % of keys: ten times the table takes less than twice the time, and what is rewritten
is at most the files that hold those keys and two files of the target size. For keys all over the table
the cost is reported, and what a write budget makes of it.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from measure import MIB, Run, definition, measured, median, print_table, settings, settled, spread

if TYPE_CHECKING:
    from pathlib import Path

CHANGED_ROWS = 1_000
TARGET_FILE = 16 * MIB
ROWS_OF_A_FILE = 250_000

# Without max_lag every change would be taken at once: the files of this benchmark are dated an hour ago.
BUDGET = 'max_rewrite = 20\nmax_lag = "1d"'

DEFINITION = """
[source]
files  = "{files}/*.parquet"
format = "parquet"
[load]
mode = "upsert"
{budget}
[table]
key = ["id"]
"""


def run(target: Path, folder: Path, *, sizes: tuple[int, ...] = (1_000_000, 10_000_000), runs: int = 5) -> None:
    """Measure and print; `target` is the folder of the built program."""
    random = np.random.default_rng(1)
    rows, medians = [], {}
    for where in ("newest 1 %", "all over", "all over, budget 20"):
        for size in sizes:
            home = prepared(target, folder, size, budget=BUDGET if "budget" in where else "")
            taken: list[Run] = []
            touched: list[tuple[int, int, int]] = []
            for number in range(runs):
                low = int(size * 0.99) if where == "newest 1 %" else 0
                ids = np.sort(random.choice(np.arange(low, size), CHANGED_ROWS, replace=False))
                write(home / "in" / f"change{number}.parquet", ids, random)
                before = newest_commit(home)
                taken.append(measured([target / "lakegate", "sync"], folder=home))
                touched.append(rewritten(home) if newest_commit(home) != before else (0, 0, 0))
            medians[where, size] = median(taken)
            files, removed, added = (int(np.median(column)) for column in zip(*touched, strict=True))
            rows.append([
                f"{size:,}",
                where,
                f"{median(taken):.2f} ({spread(taken)})",
                f"{medians[where, size] / medians[where, sizes[0]]:.2f}",
                f"{sum(1 for change in touched if any(change))} of {runs}",
                f"{files}",
                f"{removed / MIB:.1f}",
                f"{added / MIB:.1f}",
                "yes" if added <= removed + 2 * TARGET_FILE else "NO",
            ])  # fmt: skip
    head = [
        "rows",
        "keys",
        "s",
        "times the smallest",
        "committed",
        "files taken out",
        "their MiB",
        "MiB written",
        "within files + 2 targets",
    ]
    print_table(f"1,000 changed rows, median of {runs} loads; target size {TARGET_FILE // MIB} MiB", head, rows)


def prepared(target: Path, folder: Path, size: int, *, budget: str) -> Path:
    """Return a folder whose lake holds a table of so many rows."""
    home = folder / "apply"
    shutil.rmtree(home, ignore_errors=True)
    settings(home, memory="1GiB")
    text = (home / "lakegate.toml").read_text(encoding="utf-8")
    text = text.replace("[lake]\n", f'[lake]\ntarget_file_size = "{TARGET_FILE // MIB}MiB"\n')
    (home / "lakegate.toml").write_text(text, encoding="utf-8")
    definition(home, "b/t", DEFINITION.format(files="in", budget=budget))
    random = np.random.default_rng(0)
    for start in range(0, size, ROWS_OF_A_FILE):
        ids = np.arange(start, min(size, start + ROWS_OF_A_FILE))
        write(home / "in" / f"base{start:09}.parquet", ids, random)
    measured([target / "lakegate", "sync"], folder=home)
    return home


def write(path: Path, ids: np.ndarray, random: np.random.Generator) -> None:
    """Write rows with these ids: about 60 bytes each that compress little, so that files are as large as real ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {f"number{column}": random.random(len(ids)) for column in range(6)}
    pa.parquet.write_table(pa.table({"id": ids, **columns}), path)
    settled(path)


def newest_commit(home: Path) -> Path:
    """Return the table's last log entry."""
    return max((home / "lake" / "b" / "t" / "_delta_log").glob("*.json"))


def rewritten(home: Path) -> tuple[int, int, int]:
    """Return how many files the last commit took out, their bytes, and the bytes of those it put in."""
    actions = [json.loads(line) for line in newest_commit(home).read_text(encoding="utf-8").splitlines()]
    removes = [action["remove"].get("size") or 0 for action in actions if "remove" in action]
    adds = [action["add"]["size"] for action in actions if "add" in action]
    return len(removes), sum(removes), sum(adds)
