"""Runs the benchmarks and prints their figures as Markdown, for `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import functools
import os
import platform
import subprocess
from pathlib import Path

import apply
import load
import mssql
import resync
import serving

REPOSITORY = Path(__file__).resolve().parent.parent


def flight(target: Path, folder: Path) -> None:
    """Load lineitem SF1 and compare a scan over Flight with one in process (`scan.rs`)."""
    load.lakegate(target, folder, load.generate(folder, 1))
    command = ["cargo", "bench", "--locked", "--quiet", "--profile", "dist", "--bench", "scan", "--"]
    command += ["--folder", str(folder / "load"), "--table", "tpch.lineitem"]
    subprocess.run(command, cwd=REPOSITORY, check=True)


BENCHES = {
    "load": load.run,
    "apply": apply.run,
    "resync": resync.run,
    "flight": flight,
    "mssql": mssql.run,
    "serving": serving.run,
}
PARTS = {f"mssql.{part}": functools.partial(mssql.run, parts=(part,)) for part in mssql.PARTS}


def main() -> None:
    """Run those that were named, or all."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--target", type=Path, required=True, help="folder of the built program")
    arguments.add_argument("--folder", type=Path, default=Path("target/bench-data"), help="where data goes, 20 GB")
    arguments.add_argument("benches", nargs="*", choices=[*BENCHES, *PARTS, []], help="which; all where none is named")
    given = arguments.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    program = given.target.resolve() / "lakegate"
    version = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{version}; {os.cpu_count()} cores, {platform.system()} {platform.release()}, {platform.machine()}")
    for name in given.benches or BENCHES:
        {**BENCHES, **PARTS}[name](given.target.resolve(), folder)


if __name__ == "__main__":
    main()
