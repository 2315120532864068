"""Syncs again with nothing new over 10,000 known files, against a bare listing of the same folder.

Bar: at most 3 times the listing. Both are whole programs, started and ended.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from measure import definition, in_turn, measured, median, print_table, settings, settled, spread

if TYPE_CHECKING:
    from pathlib import Path

FILES = 10_000

# What the cheapest listing that could tell a change must do: every name with its size and date.
LISTING = """
import os, sys
seen = 0
for entry in os.scandir(sys.argv[1]):
    status = entry.stat()
    seen += status.st_size + status.st_mtime_ns
print(seen)
"""


def run(target: Path, folder: Path, *, runs: int = 9) -> None:
    """Measure and print; `target` is the folder of the built program."""
    home = folder / "resync"
    shutil.rmtree(home, ignore_errors=True)
    settings(home)
    definition(home, "b/t", '[source]\nfiles = "in/*.csv"\nformat = "csv"\n')
    (home / "in").mkdir()
    for number in range(FILES):
        path = home / "in" / f"{number:05}.csv"
        path.write_text(f"id,name\n{number},name {number}\n", encoding="utf-8")
        settled(path)
    first = measured([target / "lakegate", "sync"], folder=home)
    mine, listing = in_turn(
        runs,
        lambda: measured([target / "lakegate", "sync"], folder=home),
        lambda: measured([sys.executable, "-S", "-E", "-c", LISTING, home / "in"], folder=home),
    )
    row = [
        f"{first.seconds:.2f}",
        f"{median(mine):.3f} ({spread(mine)})",
        f"{median(listing):.3f} ({spread(listing)})",
        f"{median(mine) / median(listing):.2f}",
    ]
    head = ["first load, s", "sync with nothing new, s", "bare listing, s", "times the listing"]
    print_table(f"{FILES:,} known files, median of {runs} runs", head, [row])
