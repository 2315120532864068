"""What is not one pull against another: shares of a line, repeats, cuts, memory.

Each says where lakegate cannot do it yet, which it learns from lakegate itself.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import peers
from links import Link, Proxied, way
from sizes import jain

if TYPE_CHECKING:
    from links import Loopback, Namespaces

MIB = 1024 * 1024
NOT_YET = "not there yet"


@dataclass(frozen=True)
class Finding:
    """One line of the bars: what was seen, and whether the bar is met (None where there was nothing to measure)."""

    what: str
    bar: str
    seen: str
    met: bool | None

    def row(self) -> list[str]:
        """Return it for a table."""
        return [self.what, self.bar, self.seen, "–" if self.met is None else "met" if self.met else "**missed**"]


def fairness(where: Namespaces | Loopback, lake: peers.Lake, link: Link, seconds: float) -> list[Finding]:
    """Let one person pull with eight connections and another with one; then ask small things beside a bulk pull."""
    bars = ("8 streams against 1, Jain's index", "≥ 0.95"), ("p95 of a small query beside a bulk pull", "≤ 2 × alone")
    networks = ", ".join(f'"{network}"' for network in where.networks)
    line = f'\n[[line]]\nnetworks = [{networks}]\nrate = "{(link.bits or 0) // 1_000_000}Mbit/s"\n'
    shared = peers.takes(lake, line)
    note = "" if shared else f"{NOT_YET} (`[[line]]` is not known): the connections share by themselves, "
    where.shape(link)
    found = []
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(peers.lakegate(where, lake, line=line if shared else ""))
        # Anonymous people are told apart by address: a proxy connects from a second one.
        one = stack.enter_context(Proxied(where, Link(None), served.address)).address
        source = where.other_source
        two = stack.enter_context(Proxied(where, Link(None), served.address, source=source, rate=False)).address
        asked = {"headers": {"lakegate-codec": "none"}, "until": seconds, "skip": seconds / 4}
        sql = served.asks("", "select * from {lineitem}")
        pullers = [stack.enter_context(peers.Asker(where, "flight", at)) for at in [one] * 8 + [two]]
        for puller in pullers:
            puller.start(sql, **asked)
        counted = [answered(puller.finish())["counted_bytes"] for puller in pullers]
        index = jain([sum(counted[:8]), counted[8]])
        found.append(Finding(*bars[0], f"{note}{index:.3f}", index >= 0.95))
        small = stack.enter_context(peers.Asker(where, "flight", one))
        point = served.asks("", "select * from {lineitem} where l_orderkey = 30017")
        small.pull(point)
        alone = percentile(answered(small.pull(point, times=40))["each"])
        pullers[0].start(sql, headers=asked["headers"], until=max(10.0, alone * 200))
        beside = percentile(answered(small.pull(point, times=40))["each"])
        pullers[0].finish()
        seen = f"{note}{beside * 1000:.0f} ms against {alone * 1000:.0f} ms, {beside / alone:.1f} ×"
        found.append(Finding(*bars[1], seen, beside <= 2 * alone))
    return found


def repeats(where: Namespaces | Loopback, lake: peers.Lake, served: peers.Peer) -> list[Finding]:
    """Ask the same thing again, then after a hundredth of the rows was appended, with our client and its cache."""
    bars = (
        ("repeat of an unchanged query, bytes on the wire", "≤ its schema + 4 kB"),
        ("the same after +1 % appended", "≤ 2 % of the full bytes"),
    )
    link = Link(None)
    where.shape(link)
    sql = "select * from bench.growing"
    with (
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
        found.append(Finding(*bar, f"{note}{seen:,} bytes of {full:,}", seen <= most))
    if last["rows"] <= answer["rows"]:
        found.append(Finding("rows after the append", "more", f"{last['rows']:,} of {answer['rows']:,}", False))
    return found


def resume(where: Namespaces | Loopback, served: peers.Peer, link: Link, sql: str) -> Finding:
    """Cut the line when half of a result has come, and see how much is sent again."""
    bar = ("resume after a cut at half, bytes sent again", "≤ 3 %")
    where.shape(link)
    with Proxied(where, link, served.address) as proxy, peers.Asker(where, "lakegate", proxy.address) as asker:
        answered(asker.pull(sql))  # what it learns of the server does not count
        before = proxy.count()
        whole = answered(asker.pull(sql))
        once = proxy.count() - before
        proxy.cut(once // 2)
        before = proxy.count()
        cut = asker.pull(sql)
        bytes_cut = proxy.count() - before
    if cut["error"] or cut["rows"] != whole["rows"]:
        return Finding(*bar, f"{NOT_YET}: {(cut['error'] or 'rows are missing')[:80]}", False)
    again = bytes_cut / once - 1
    return Finding(*bar, f"{again:.1%} of {once:,} bytes", again <= 0.03)


def held_memory(where: Namespaces | Loopback, lake: peers.Lake, link: Link, seconds: float) -> list[Finding]:
    """Let sixteen clients pull different results through a slow line, and watch what the server holds."""
    where.shape(link)
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(peers.lakegate(where, lake))
        line = stack.enter_context(way(where, link, served.address))
        for number in range(16):
            asker = stack.enter_context(peers.Asker(where, "flight", line.address))
            text = f"select * from {{lineitem}} where l_orderkey > {number}"
            asker.start(served.asks("", text), until=seconds)
        seen = []
        for _ in range(12):
            time.sleep(seconds / 15)  # the moments at which it is looked at
            seen.append(peers.memory(served.pid, "VmRSS"))
        most = peers.memory(served.pid, "VmHWM")
    early, late = max(seen[3:7]), max(seen[8:])
    return [
        Finding(
            "16 throttled pulls, the server's memory at most", "≤ 1 GiB", f"{most / MIB:,.0f} MiB", most <= 1024 * MIB
        ),
        Finding(
            "the same, growth with time",
            "none",
            f"{early / MIB:,.0f} MiB, later {late / MIB:,.0f} MiB",
            late <= early * 1.05,
        ),
    ]


def percentile(seconds: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(seconds, n=20)[-1]


def answered(answer: dict) -> dict:
    """Return an answer that is none of failure."""
    if answer["error"]:
        raise SystemExit(answer["error"])
    return answer
