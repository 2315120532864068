"""Measures the line: what lakegate and its peers send over shaped links, and how far from the limit they are.

`make bench-line` runs it. Contenders take turns within each link and statement, and medians count. All single runs go
as JSON into the target folder, figures and plots between the markers of docs/benchmarks.md. What is named by `--parts`,
`--links`, `--only` and `--peers` is measured and replaced, the rest stays as it was. `--quick` tries everything with
few rows on one link in minutes, and leaves the documentation alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import budget
import contenders
import datasets
import estimates
import further
import peers
import report
import unshaped
from links import Link, place
from results import Results

if TYPE_CHECKING:
    from collections.abc import Callable

    from links import Loopback, Namespaces

MBIT = 1_000_000
ROUND_TRIP = 0.025
LINKS = (
    Link(10 * MBIT),
    Link(10 * MBIT, ROUND_TRIP),
    Link(100 * MBIT),
    Link(100 * MBIT, ROUND_TRIP),
    Link(1_000 * MBIT),
    Link(None),
)


@dataclass(frozen=True)
class Given:
    """How much is measured."""

    links: tuple[Link, ...]
    runs: int
    scale: float
    share: float
    seconds: float
    statements: tuple[str, ...] = tuple(datasets.STATEMENTS)
    peers: tuple[str, ...] = tuple(peers.PEERS)

    @property
    def slow(self) -> tuple[Link, ...]:
        """Return the links that the line decides, or the slowest there is."""
        return tuple(link for link in self.links if link.is_slow) or (Link(10 * MBIT),)

    @property
    def bulk(self) -> Link:
        """Return the fastest of them without a round trip."""
        return max(
            (link for link in self.slow if not link.round_trip), key=lambda link: link.bits or 0, default=self.slow[-1]
        )


FULL = Given(LINKS, 5, 1, 1.0, 20.0)
QUICK = Given((Link(10 * MBIT),), 1, 0.01, 0.01, 15.0)


@dataclass
class Bench:
    """What parts are measured with."""

    where: Namespaces | Loopback
    lake: peers.Lake
    given: Given
    theory: contenders.Theory
    title: str
    around: str

    def matrix(self) -> dict[str, Any]:
        """Pull all through all links."""
        absent: dict[str, str] = {}
        given = self.given
        wanted = contenders.Wanted(given.links, given.statements, given.peers, given.runs, given.scale)
        return {"pulls": contenders.measure(self.where, self.lake, wanted, self.theory, absent), "absent": absent}

    def database(self) -> dict[str, Any]:
        """Pull the same rows from a database."""
        absent: dict[str, str] = {}
        made = contenders.database(self.where, self.lake, self.given.bulk, self.given.runs, absent)
        return {"pulls": made, "absent": absent}

    def first(self) -> dict[str, Any]:
        """Wait for first rows at the slowest line."""
        least = min(link.bits or 0 for link in self.given.slow)
        links = [link for link in self.given.slow if link.bits == least]
        return self._found(*(further.first(self.where, self.lake, link, self.given.scale) for link in links))

    def fair(self) -> dict[str, Any]:
        """Let two people share each slow line."""
        links = dict.fromkeys(dataclasses.replace(link, round_trip=0.0) for link in self.given.slow)
        seconds = self.given.seconds
        # On the slowest line nine streams have a message in some seconds each, so that it takes longer to count them.
        times = {link: 2 * seconds if link.bits == 10 * MBIT else seconds for link in links}
        return self._found(*(further.fairness(self.where, self.lake, link, time) for link, time in times.items()))

    def small(self) -> dict[str, Any]:
        """Ask small things beside large ones at each slow line."""
        return self._found(*(further.small(self.where, self.lake, link) for link in self.given.slow))

    def resume(self) -> dict[str, Any]:
        """Cut a line."""
        given = self.given
        return self._found(further.resume(self.where, self.lake, given.bulk, given.scale, given.runs))

    def memory(self) -> dict[str, Any]:
        """Throttle sixteen pulls."""
        return self._found(further.held_memory(self.where, self.lake, self.given.slow[0], self.given.seconds * 3))

    def repeat(self) -> dict[str, Any]:
        """Ask again."""
        return self._found(further.repeats(self.where, self.lake))

    def bare(self) -> dict[str, Any]:
        """Pull again what was pulled, beside bare servers."""
        absent: dict[str, str] = {}
        found = unshaped.measure(self.where, self.lake, self.given.runs, absent)
        return {**self._found(found), "absent": absent}

    def estimates(self) -> dict[str, Any]:
        """Ask how large results will be."""
        found, rows = estimates.measure(self.where, self.lake, self.given.scale)
        return {**self._found(found), "rows": rows}

    def measure(self, part: str) -> dict[str, Any]:
        """Measure one part, and return what goes into the results."""
        began = time.monotonic()
        print(f"{part}:", flush=True)
        measuring: Callable[[], dict[str, Any]] = getattr(self, part)
        found = {"title": self.title, "around": self.around, **measuring()}
        print(f"{part} took {time.monotonic() - began:.0f} s", flush=True)
        return found

    def _found(self, *groups: list[further.Finding]) -> dict[str, Any]:
        found = [finding for group in groups for finding in group]
        for finding in found:
            print("  " + ": ".join(finding.row()), flush=True)
        return {"findings": [dataclasses.asdict(finding) for finding in found]}


#: In the order in which they are measured.
PARTS = ("matrix", *budget.PARTS)


def links(text: str) -> tuple[Link, ...]:
    """Return the links that are named: `10` is 10 Mbit/s with and without a round trip, `10+0` and `10+25` are one."""
    found = []
    for name in text.split(","):
        rate, _, delay = name.partition("+")
        named = [
            link
            for link in LINKS
            if rate == (str(link.bits // MBIT) if link.bits else "unshaped")
            and delay in ("", f"{link.round_trip * 1000:.0f}")
        ]
        if not named:
            raise argparse.ArgumentTypeError(f"{name!r} is none of 10, 100, 1000, unshaped, 10+0, 10+25, 100+0, 100+25")
        found += named
    return tuple(found)


def names(*known: str) -> Callable[[str], tuple[str, ...]]:
    """Return what reads names with commas between them; `none` is none."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(name for name in text.split(",") if name and name != "none")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return found

    return read


def arguments() -> argparse.Namespace:
    """Read the command line."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--target", type=Path, required=True, help="folder of the built programs")
    reader.add_argument("--folder", type=Path, required=True, help="where data and results go")
    reader.add_argument("--quick", action="store_true", help="few rows, one link, one run")
    reader.add_argument("--scale", type=float, help="TPC-H's scale factor, 1 or 10 for record")
    reader.add_argument("--runs", type=int, help="of each pull by a client of lakegate")
    reader.add_argument("--parts", type=names(*PARTS), default=PARTS, help=f"of {','.join(PARTS)}")
    reader.add_argument(
        "--links", type=links, help="of 10,100,1000,unshaped; 10+25 is only that with 25 ms, 10+0 without"
    )
    reader.add_argument("--only", type=names(*datasets.STATEMENTS), help=f"statements: {','.join(datasets.STATEMENTS)}")
    reader.add_argument(
        "--peers", type=names(*peers.PEERS), help=f"of {','.join(peers.PEERS)}, or none; lakegate always"
    )
    reader.add_argument("--docs", type=Path, help="page whose figures are replaced")
    reader.add_argument("--render", action="store_true", help="measure nothing, write the page from what is known")
    return reader.parse_args()


def main() -> None:
    """Measure all, or what was named."""
    told = arguments()
    # Told to end, it ends what it started and takes its namespaces away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    given = QUICK if told.quick else FULL
    named = {"scale": told.scale, "runs": told.runs, "links": told.links, "statements": told.only, "peers": told.peers}
    given = dataclasses.replace(given, **{name: value for name, value in named.items() if value is not None})
    folder = told.folder.resolve() / "line"
    folder.mkdir(parents=True, exist_ok=True)
    kept = Results(folder / f"results-{given.scale:g}.json")
    if not told.render:
        measure(told, given, folder, kept)
    page = report.Page(kept.parts)
    sys.stdout.write(page.text())
    pictures = told.docs.parent if told.docs and not told.quick else folder
    if "matrix" in kept.parts:
        report.plots(kept.parts["matrix"]["pulls"], pictures)
    if told.docs and not told.quick:
        page.write(told.docs)


def measure(told: argparse.Namespace, given: Given, folder: Path, kept: Results) -> None:
    """Measure the parts that are wanted; each is kept once it is measured."""
    target = told.target.resolve()
    version = subprocess.run([str(target / "lakegate"), "--version"], check=True, capture_output=True, text=True)
    began = time.monotonic()
    lake = peers.Lake.load(folder, target, datasets.make(folder, given.scale, given.share))
    theory = contenders.Theory(lake, given.scale)
    rest = sum(budget.PARTS[part] for part in told.parts if part != "matrix")
    print(f"the lake took {time.monotonic() - began:.0f} s; parts beside the pulls: about {rest / 60:.0f} minutes")
    with place() as where:
        title = f"{version.stdout.strip()}, TPC-H SF{given.scale:g}"
        around = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {platform.machine()}. "
        around += f"{given.runs} runs in turn, medians. Lines: {where.says}."
        print(f"{title}; {around}", flush=True)
        bench = Bench(where, lake, given, theory, title, around)
        for part in PARTS:
            if part in told.parts:
                kept.put(part, bench.measure(part))
    print(f"measured in {(time.monotonic() - began) / 60:.0f} minutes", flush=True)


if __name__ == "__main__":
    main()
