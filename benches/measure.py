"""What all benchmarks share: a program run and measured, its settings, medians, a table of figures."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Threads of both sides of a comparison, as many as the machines have that the bars were set on.
THREADS = 2
MIB = 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One run of a program: wall-clock seconds from start to end, and its largest resident memory in bytes."""

    seconds: float
    peak_bytes: int
    output: str


def measured(command: Sequence[str | Path], *, folder: Path) -> Run:
    """Run a program to its end and measure it; raises where it fails."""
    started = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{output}")
    return Run(seconds=seconds, peak_bytes=usage.ru_maxrss * 1024, output=output)


def in_turn(runs: int, *sides: Callable[[], Run]) -> list[list[Run]]:
    """Run the sides in turn so that what the machine does meanwhile falls on all; returns the runs of each."""
    taken: list[list[Run]] = [[] for _ in sides]
    for _ in range(runs):
        for side, runs_of_side in zip(sides, taken, strict=True):
            runs_of_side.append(side())
    return taken


def median(runs: Sequence[Run]) -> float:
    """Return the median of the runs' seconds."""
    return statistics.median(run.seconds for run in runs)


def spread(runs: Sequence[Run]) -> str:
    """Return the least and the largest of the runs' seconds as text."""
    seconds = [run.seconds for run in runs]
    return f"{min(seconds):.2f} to {max(seconds):.2f}"


def settings(folder: Path, *, memory: str = "512MiB") -> None:
    """Write a `lakegate.toml` that uses as many threads as its rival, and runs what is asked again anew."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f'[lake]\nlocation = "lake"\n\n[spool]\ncache = "0B"\n\n[limits]\nthreads = {THREADS}\nmemory = "{memory}"\n'
    (folder / "lakegate.toml").write_text(text, encoding="utf-8")


def definition(folder: Path, name: str, text: str) -> None:
    """Write a table definition; `name` is `schema/table`."""
    path = folder / "tables" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def settled(path: Path) -> None:
    """Give a file a date of some time ago, so that it is not taken for one still growing."""
    past = time.time() - 3600
    os.utime(path, (past, past))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print figures as Markdown."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)
