"""Measures the line: what lakegate and its peers send over shaped links, and how far from the limit they are.

`make bench-line` runs it. Contenders take turns within each link and statement, and medians count. Figures and plots
go between the markers of docs/benchmarks.md, all single runs as JSON into the target folder. `--quick` tries everything
with few rows on one link in minutes, and leaves the documentation alone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

import datasets
import further
import peers
import report
import sizes
from links import Link, place, way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from links import Loopback, Namespaces, Way

MBIT = 1_000_000
LINKS = (
    Link(10 * MBIT),
    Link(10 * MBIT, 0.025),
    Link(100 * MBIT),
    Link(100 * MBIT, 0.025),
    Link(1_000 * MBIT),
    Link(None),
)
#: Longest that whole files may take through a line to be measured there, in seconds.
PATIENCE = 120


@dataclass(frozen=True)
class Given:
    """How much is measured."""

    links: tuple[Link, ...]
    runs: int
    scale: float
    share: float
    seconds: float


FULL = Given(LINKS, 5, 1, 1.0, 20.0)
QUICK = Given((Link(10 * MBIT),), 1, 0.01, 0.01, 4.0)


def contenders(served: peers.Peer, others: list[peers.Peer]) -> list[peers.Peer]:
    """Return lakegate as each of its clients asks it, and the peers."""
    asking = {"lakegate-dictionaries": "on"}
    return [
        served,
        dataclasses.replace(served, name="lakegate, pyarrow with dictionaries", headers=asking),
        dataclasses.replace(served, name="lakegate, own client", kind="lakegate"),
        *others,
    ]


@contextlib.contextmanager
def running(where: Namespaces | Loopback, lake: peers.Lake, absent: dict[str, str]) -> Iterator[list[peers.Peer]]:
    """Serve the lake by lakegate and by all peers that can; why others cannot goes into `absent`."""
    with contextlib.ExitStack() as stack:
        others = []
        served = stack.enter_context(peers.lakegate(where, lake))
        for name, serve in peers.PEERS.items():
            try:
                others.append(stack.enter_context(serve(where, lake)))
            except OSError as problem:
                absent[name] = str(problem).strip().splitlines()[-1][:200] if str(problem).strip() else "did not start"
        yield contenders(served, others)


def theory(lake: peers.Lake, statements: dict[str, str]) -> dict[str, sizes.Sizes]:
    """Return the sizes of each result."""
    found = {}
    with duckdb.connect() as database:
        for name, text in statements.items():
            tables = {table: f"'{lake.files / table}/*.parquet'" for table in datasets.TABLES}
            asked = (datasets.SAMPLES["duckdb"] if name == "sample" else text).format(**tables)
            found[name] = sizes.sizes(database.sql(asked).to_arrow_reader(sizes.ROWS))
    return found


def matrix(where: Namespaces | Loopback, lake: peers.Lake, given: Given, absent: dict[str, str]) -> list[dict]:
    """Let all contenders pull all statements through all links, in turn; returns a record of each pull."""
    records: list[dict] = []
    copied = sizes.copied_bytes_per_second()
    known: dict[str, tuple[str, sizes.Sizes]] = {}
    with running(where, lake, absent) as found:
        for link in given.links:
            statements = datasets.statements(link.bits, given.scale)
            news = {name: text for name, text in statements.items() if known.get(name, ("",))[0] != text}
            known |= {name: (statements[name], size) for name, size in theory(lake, news).items()}
            where.shape(link)
            with contextlib.ExitStack() as stack:
                lines = {peer.name: stack.enter_context(way(where, link, peer.address)) for peer in found}
                askers = {
                    peer.name: stack.enter_context(peers.Asker(where, peer.kind, lines[peer.name].address))
                    for peer in found
                }
                for name, text in statements.items():
                    failed: set[str] = set()  # whoever failed once is not waited for again
                    for run in range(given.runs):
                        for peer in found:
                            if peer.name in failed:
                                continue
                            if peer.kind == "files" and (why := too_long(lake, link, text)):
                                absent[f"{peer.name}, {name}, {link.name}"] = why
                                continue
                            taken = one(peer, lines[peer.name], askers[peer.name], name, text)
                            failed |= {peer.name} if taken["error"] else set()
                            size = known[name][1]
                            cpu = taken["cpu_seconds"] + taken["server_cpu_seconds"]
                            stock = size.stock if "," in peer.name and "stock" not in peer.name else size.plain
                            taken["limit"] = sizes.limit(link, stock, size.raw, cpu, copied)
                            # The line's part alone says whether the line or the processor was the limit.
                            taken["line_limit"] = sizes.limit(link, stock, 0, 0, copied)
                            taken |= {"link": link.name, "bits": link.bits, "round_trip": link.round_trip, "run": run}
                            taken |= {"sizes": dataclasses.asdict(size), "around": where.around}
                            records.append(taken)
                    report.progress(link.name, name, records)
    return records


def too_long(lake: peers.Lake, link: Link, text: str) -> str:
    """Return why whole files are not fetched through a line, or nothing."""
    named = [table for table in datasets.TABLES if "{" + table + "}" in text]
    size = sum(path.stat().st_size for table in named for path in (lake.files / table).glob("*.parquet"))
    seconds = size / link.bytes_per_second if link.bytes_per_second else 0
    return f"not measured: {size / 1e6:,.0f} MB would take {seconds:,.0f} s" if seconds > PATIENCE else ""


def one(peer: peers.Peer, line: Way, asker: peers.Asker, name: str, text: str) -> dict:
    """Pull once, and return what it took on both sides and on the wire."""
    sent, cpu = line.sent(), peers.processor_seconds(peer.pid)
    taken = asker.pull(peer.asks(name, text), headers=peer.headers, pandas=name == "frames")
    taken["wire_bytes"] = line.sent() - sent
    taken["server_cpu_seconds"] = peers.processor_seconds(peer.pid) - cpu
    taken["server_peak_bytes"] = peers.memory(peer.pid, "VmHWM")
    return taken | {"peer": peer.name, "statement": name}


def from_memory(where: Namespaces | Loopback, lake: peers.Lake, runs: int) -> further.Finding:
    """Compare lakegate, uncompressed, with a bare Flight server that streams the same rows out of memory."""
    where.shape(Link(None))
    taken: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        bare = stack.enter_context(peers.duckdb(where, lake, memory=True))
        served = stack.enter_context(peers.lakegate(where, lake))
        plain = dataclasses.replace(served, headers={"lakegate-codec": "none"})
        askers = [(peer, stack.enter_context(peers.Asker(where, "flight", peer.address))) for peer in (plain, bare)]
        for run in range(runs + 1):  # the first fills caches
            for peer, asker in askers:
                answer = further.answered(asker.pull(peer.asks("", "select * from {lineitem}"), headers=peer.headers))
                if run:
                    taken.setdefault(peer.name, []).append(answer["seconds"])
    ours, theirs = (report.median(seconds) for seconds in taken.values())
    what = "unshaped, uncompressed, against a bare Flight server (C++) from memory; lakegate reads the lake"
    return further.Finding(what, "≥ 0.8 ×", f"{theirs / ours:.2f} ×", theirs >= 0.8 * ours)


def pulled(where: Namespaces | Loopback, lake: peers.Lake, link: Link, runs: int, absent: dict[str, str]) -> list[dict]:
    """Pull the same rows from the database and from lakegate, in turn."""
    where.shape(link)
    records = []
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(peers.lakegate(where, lake))
        try:
            base = stack.enter_context(peers.database(where, lake))
        except OSError as problem:
            absent["a pull from the database"] = str(problem)[-200:]
            return []
        found = [served, dataclasses.replace(served, name="lakegate, own client", kind="lakegate")]
        for name in ("pymssql", "connectorx"):
            if peers.importable(name):
                found.append(dataclasses.replace(base, name=f"{name}, from the database", kind=name))
            else:
                absent[name] = "not installed"
        lines = [stack.enter_context(way(where, link, peer.address)) for peer in found]
        askers = [
            stack.enter_context(peers.Asker(where, p.kind, line.address)) for p, line in zip(found, lines, strict=True)
        ]
        for _ in range(runs):
            for peer, line, asker in zip(found, lines, askers, strict=True):
                records.append(one(peer, line, asker, "pulled", "select * from {pulled}") | {"link": link.name})
    return records


def findings(where: Namespaces | Loopback, lake: peers.Lake, given: Given) -> Iterator[list[further.Finding]]:
    """Measure what is not a pull against a pull."""
    middle, slow = given.links[min(2, len(given.links) - 1)], Link(10 * MBIT)
    yield further.fairness(where, lake, middle, given.seconds)
    with peers.lakegate(where, lake) as served:
        sql = served.asks("", datasets.statements(slow.bits, given.scale)["full"])
        yield [further.resume(where, served, middle, sql)]
    yield further.held_memory(where, lake, slow, given.seconds * 3)
    yield [from_memory(where, lake, given.runs)]
    with peers.lakegate(where, lake) as served:
        yield further.repeats(where, lake, served)


def main() -> None:
    """Measure all, or what was named."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--target", type=Path, required=True, help="folder of the built programs")
    arguments.add_argument("--folder", type=Path, required=True, help="where data and results go")
    arguments.add_argument("--quick", action="store_true", help="few rows, one link, one run")
    arguments.add_argument("--scale", type=float, help="TPC-H's scale factor, 1 or 10 for record")
    arguments.add_argument("--runs", type=int, help="of each pull")
    arguments.add_argument("--docs", type=Path, help="page whose figures are replaced")
    told = arguments.parse_args()
    # Told to end, it ends what it started and takes its namespaces away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    given = QUICK if told.quick else FULL
    given = dataclasses.replace(given, scale=told.scale or given.scale, runs=told.runs or given.runs)
    target, folder = told.target.resolve(), told.folder.resolve() / "line"
    version = subprocess.run([str(target / "lakegate"), "--version"], check=True, capture_output=True, text=True)
    lake = peers.Lake.load(folder, target, datasets.make(folder, given.scale, given.share))
    absent: dict[str, str] = {}
    with place() as where:
        title = f"{version.stdout.strip()}; {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        title += (
            f"{platform.machine()}; TPC-H SF{given.scale:g}; {given.runs} runs in turn, medians. Lines: {where.says}."
        )
        print(title, flush=True)
        records = matrix(where, lake, given, absent)
        link = given.links[min(2, len(given.links) - 1)]
        from_database = pulled(where, lake, link, given.runs, absent)
        found = report.bars(records)
        for group in findings(where, lake, given):
            found += group
            for finding in group:
                print(f"  {finding.what}: {finding.seen}", flush=True)
    raw = {"title": title, "pulls": records, "database": from_database, "absent": absent}
    raw["findings"] = [dataclasses.asdict(finding) for finding in found]
    (folder / "results.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")
    text = report.page(title, records, from_database, found, absent)
    sys.stdout.write(text)
    if told.docs and not told.quick:
        report.plots(records, told.docs.parent)
        report.write(told.docs, text + report.PICTURES)
    else:
        report.plots(records, folder)


if __name__ == "__main__":
    main()
