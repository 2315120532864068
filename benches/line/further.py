"""What is not one pull against another: shares of a line, small answers, first rows, repeats, cuts, memory.

Each says where lakegate cannot do it yet, which it learns from lakegate itself.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import budget
import datasets
import peers
from links import Link, Proxied, way
from sizes import jain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from links import Loopback, Namespaces

MIB = 1024 * 1024
NOT_YET = "not there yet"
#: Small queries in one row of figures.
SMALL = 60
#: Bytes of a bulk pull after which it is on its way, beyond the megabyte that goes ahead.
UNDER_WAY = 2_000_000
#: Seconds after everybody's first rows before shares are counted.
SETTLED_SECONDS = 2.0
#: Least bytes of a result whose resumption is judged: windows and buffers are lost whatever the result.
RESUMED_BYTES = 20_000_000
#: Repetitions of what takes little time.
TIMES = 9


@dataclass(frozen=True)
class Finding:
    """One line of the bars: what was seen, and whether the bar is met (None where it is not judged)."""

    what: str
    bar: str
    seen: str
    met: bool | None

    def row(self) -> list[str]:
        """Return it for a table."""
        return [self.what, self.bar, self.seen, "–" if self.met is None else "met" if self.met else "**missed**"]


def shared(where: Namespaces | Loopback, lake: peers.Lake, link: Link) -> tuple[str, str]:
    """Return the setting that shares a link out, and what is said where lakegate does not know it."""
    networks = ", ".join(f'"{network}"' for network in where.networks)
    line = f'\n[[line]]\nnetworks = [{networks}]\nrate = "{(link.bits or 0) // 1_000_000}Mbit/s"\n'
    return (line, "") if peers.takes(lake, line) else ("", f"{NOT_YET} (`[[line]]` is not known): ")


@contextlib.contextmanager
def people(where: Namespaces | Loopback, link: Link, address: str) -> Iterator[tuple[Proxied, Proxied]]:
    """Give ways for two people: the anonymous are told apart by address, and proxies connect from two."""
    with (
        Proxied(where, link, address, rate=False) as one,
        Proxied(where, link, address, source=where.other_source, rate=False) as other,
    ):
        yield one, other


def fairness(where: Namespaces | Loopback, lake: peers.Lake, link: Link, seconds: float) -> list[Finding]:
    """Let one person pull with eight connections and another with one, and compare what each gets of the line.

    What counts came between two moments: some time after all nine have had their first rows, and before any ends.
    """
    where.shape(link)
    line, note = shared(where, lake, link)
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(peers.lakegate(where, lake, line=line))
        one, other = stack.enter_context(people(where, Link(None), served.address))
        sql = served.asks("", "select * from {lineitem}")
        pullers = [
            stack.enter_context(peers.Asker(where, "flight", way.address)) for way in [*itertools.repeat(one, 8), other]
        ]
        for puller in pullers:
            puller.start(sql, headers={"lakegate-codec": "none"}, until=seconds, timeline=True)
        lines = [answered(puller.finish(seconds * 3 + 60))["timeline"] for puller in pullers]
    what = f"8 streams of one person against 1 of another at {link.name}, Jain's index"
    if any(len(line) < 2 for line in lines):
        return [Finding(what, "≥ 0.95", f"{note}a stream got nothing in {seconds:.0f} s", False)]
    begin, end = window(lines)
    if end - begin < seconds / 4:
        return [Finding(what, "≥ 0.95", f"{note}all nine ran for {end - begin:.1f} s only", None)]
    counted = [within(line, begin, end) for line in lines]
    rates = [sum(counted[:8]), counted[8]]
    index = jain(rates)
    seen = " and ".join(f"{rate * 8 / (end - begin) / 1e6:.1f}" for rate in rates)
    return [Finding(what, "≥ 0.95", f"{note}{index:.3f} ({seen} Mbit/s over {end - begin:.0f} s)", index >= 0.95)]


def window(lines: Sequence[list]) -> tuple[float, float]:
    """Return the moments between which all run, of when each had how much."""
    return max(line[0][0] for line in lines) + SETTLED_SECONDS, min(line[-1][0] for line in lines)


def within(line: list, begin: float, end: float) -> float:
    """Return the bytes that came between two moments; a message counts as come evenly since the one before."""
    moments, counts = zip(*line, strict=True)
    first, last = np.interp([begin, end], moments, counts)
    return float(last - first)


def small(where: Namespaces | Loopback, lake: peers.Lake, link: Link) -> list[Finding]:
    """Ask for single rows by key over a warm connection: alone, beside another person's bulk pull, beside one's own.

    Half of those alone come before, half after. With a round trip it is judged, as that is how people sit.
    """
    where.shape(link)
    line, note = shared(where, lake, link)
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(peers.lakegate(where, lake, line=line))
        one, other = stack.enter_context(people(where, link, served.address))
        asker = stack.enter_context(peers.Asker(where, "flight", one.address))
        keys = itertools.count(1, 32)  # of TPC-H's order keys each 32nd exists

        def asked(times: int) -> list[float]:
            statements = [f"select * from {{lineitem}} where l_orderkey = {next(keys)}" for _ in range(times)]
            sql = [served.asks("", statement) for statement in statements]
            return list(answered(asker.pull(sql, headers=where.headers, patience=120))["each"])

        asked(5)
        alone = asked(SMALL // 2)
        beside: dict[str, list[float]] = {}
        for who, way_there in (("another's", other), ("one's own", one)):
            with peers.Asker(where, "flight", way_there.address) as bulk:
                enough = way_there.count() + UNDER_WAY
                bulk.start(served.asks("", "select * from {lineitem}"), headers=where.headers, until=180.0)
                wait(way_there, enough)
                beside[who] = asked(SMALL)
            peers.at_rest(where, served.pid)
        alone += asked(SMALL // 2)
    judged, base = link.round_trip > 0, percentile(alone)
    return [
        Finding(
            f"one row by key beside {who} bulk pull at {link.name}, p95 of {SMALL}",
            "≤ 2 × alone" if judged else "(≤ 2 × alone)",
            f"{note}{percentile(seconds) * 1000:.0f} ms against {base * 1000:.0f}, {percentile(seconds) / base:.1f} × "
            f"(medians {statistics.median(seconds) * 1000:.0f} and {statistics.median(alone) * 1000:.0f} ms)",
            percentile(seconds) <= 2 * base if judged else None,
        )
        for who, seconds in beside.items()
    ]


def first(where: Namespaces | Loopback, lake: peers.Lake, link: Link, scale: float) -> list[Finding]:
    """Measure from a statement sent over a warm connection to the first rows unpacked; each time another statement."""
    where.shape(link)
    found = []
    limit = int(datasets.statements(link.bits, scale)["full"].rsplit(" ", 1)[1])
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(peers.lakegate(where, lake))
        line = stack.enter_context(way(where, link, served.address))
        plain, own = budget.WORDED
        asking = {**where.headers, "lakegate-dictionaries": "on"}
        kinds = ((budget.STOCK, "flight", where.headers), (plain, "flight", asking), (own, "lakegate", {}))
        for name, kind, headers in kinds:
            asker = stack.enter_context(peers.Asker(where, kind, line.address))
            answered(asker.pull(served.asks("", "select * from {lineitem} where l_orderkey = 1"), headers=headers))
            taken = []
            for turn in range(TIMES):
                sql = served.asks("", f"select * from {{lineitem}} where l_orderkey <= {limit - turn}")
                taken.append(answered(asker.pull(sql, headers=headers, first=True, patience=60))["first_seconds"])
                peers.at_rest(where, served.pid)
            seconds = statistics.median(taken)
            seen = f"{seconds * 1000:.0f} ms ({min(taken) * 1000:.0f} to {max(taken) * 1000:.0f})"
            met = seconds <= link.round_trip + 0.3
            found.append(Finding(f"first rows at {link.name}, {name}", "≤ RTT + 300 ms", seen, met))
    return found


def repeats(where: Namespaces | Loopback, lake: peers.Lake) -> list[Finding]:
    """Ask the same thing again, then after a hundredth of the rows was appended, with our client and its cache."""
    bars = (
        ("repeat of an unchanged query, warm connection, bytes on the wire", "≤ its schema + 4 kB"),
        ("the same after +1 % appended", "≤ 2 % of the full bytes"),
    )
    link = Link(None)
    where.shape(link)
    sql = "select * from bench.growing"
    with (
        peers.lakegate(where, lake) as served,
        tempfile.TemporaryDirectory() as cache,
        way(where, link, served.address) as line,
        peers.Asker(where, "lakegate", line.address, cache=Path(cache)) as asker,
    ):
        took = []
        for turn in range(3):
            if turn == 2:
                lake.append(0.01)
            before = line.sent()
            answer = answered(asker.pull(sql))
            took.append((line.sent() - before, answer))
    (full, answer), (again, _), (more, last) = took
    allowed = answer["schema_bytes"] + 4_000
    found = []
    for bar, seen, most in zip(bars, (again, more), (allowed, full * 0.02), strict=True):
        note = f"{NOT_YET}: " if seen > full / 2 else ""
        of = f"{seen:,} bytes, allowed {most:,.0f}; at first {full:,} for {answer['rows']:,} rows"
        found.append(Finding(*bar, note + of, seen <= most))
    if last["rows"] <= answer["rows"]:
        found.append(Finding("rows after the append", "more", f"{last['rows']:,} of {answer['rows']:,}", False))
    return found


def resume(where: Namespaces | Loopback, lake: peers.Lake, link: Link, scale: float, runs: int) -> list[Finding]:
    """Cut the line when half of a result has come, and see how much is sent again.

    Bytes are those the line carried, with what was on its way when it was cut.
    """
    what, bar = f"resume after a cut at half at {link.name}, bytes sent again", "≤ 3 %"
    where.shape(link)
    shares: list[float] = []
    once = 0
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(peers.lakegate(where, lake))
        proxy = stack.enter_context(Proxied(where, link, served.address))
        asker = stack.enter_context(peers.Asker(where, "lakegate", proxy.address))
        sql = served.asks("", datasets.statements(link.bits, scale)["full"])

        def sent() -> int:
            return proxy.count() if (by_line := where.sent()) is None else by_line

        answered(asker.pull(sql))  # what it learns of the server does not count
        for _ in range(min(3, runs)):
            before, passed = sent(), proxy.count()
            whole = answered(asker.pull(sql))
            once, half = sent() - before, (proxy.count() - passed) // 2
            proxy.cut(half)
            before = sent()
            cut = asker.pull(sql)
            bytes_cut = sent() - before
            if cut["error"] or cut["rows"] != whole["rows"]:
                return [Finding(what, bar, f"{NOT_YET}: {(cut['error'] or 'rows are missing')[:80]}", False)]
            shares.append(bytes_cut / once - 1)
    again = statistics.median(shares)
    judged = once >= RESUMED_BYTES
    note = "" if judged else "; too small to be judged"
    seen = f"{again:.1%} of {once:,} bytes ({min(shares):.1%} to {max(shares):.1%}){note}"
    return [Finding(what, bar, seen, again <= 0.03 if judged else None)]


def held_memory(where: Namespaces | Loopback, lake: peers.Lake, link: Link, seconds: float) -> list[Finding]:
    """Let sixteen clients pull different results through a slow line, and watch what the server holds."""
    where.shape(link)
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(peers.lakegate(where, lake, keeps=True))
        line = stack.enter_context(way(where, link, served.address))
        askers = []
        for number in range(16):
            asker = stack.enter_context(peers.Asker(where, "flight", line.address))
            text = f"select * from {{lineitem}} where l_orderkey > {number}"
            asker.start(served.asks("", text), headers=where.headers, until=seconds, timeout=seconds * 3)
            askers.append(asker)
        seen = []
        for _ in range(12):
            time.sleep(seconds / 15)  # the moments at which it is looked at
            seen.append(peers.memory(served.pid, "VmRSS"))
        most = peers.memory(served.pid, "VmHWM")
        for asker in askers:
            answered(asker.finish(seconds * 3 + 60))
    raw = lake.delta("lineitem").to_pyarrow_table(columns=["l_orderkey"]).num_rows * datasets.LINEITEM_ROW_BYTES
    early, late = max(seen[3:7]), max(seen[8:])
    larger = raw > peers.SERVER_MEMORY
    each = f"{raw / MIB:,.0f} MiB each" + ("" if larger else ", which is not larger than memory: not judged")
    what = f"16 different throttled pulls at {link.name}, the server's memory at most"
    seen_most = f"{most / MIB:,.0f} MiB; {each}"
    return [
        Finding(what, "≤ 1 GiB", seen_most, most <= 1024 * MIB if larger else None),
        Finding(
            "the same, growth with time",
            "none (5 % is not told from noise)",
            f"{early / MIB:,.0f} MiB, later {late / MIB:,.0f} MiB",
            late <= early * 1.05 if larger else None,
        ),
    ]


def wait(line: Proxied, enough: int, seconds: float = 60.0) -> None:
    """Wait until so many bytes have come through a proxy."""
    end = time.monotonic() + seconds
    while line.count() < enough:
        if time.monotonic() > end:
            raise SystemExit("a bulk pull did not get under way")
        time.sleep(0.02)


def percentile(seconds: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(seconds, n=20)[-1]


def answered(answer: dict) -> dict:
    """Return an answer that is none of failure."""
    if answer["error"]:
        raise SystemExit(answer["error"])
    return answer
