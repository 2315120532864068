"""Lakegate beside a server that does nothing but send."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import peers
from further import Finding, answered
from links import Link

if TYPE_CHECKING:
    from links import Loopback, Namespaces

BARE = Path(__file__).with_name("bare.py")


def measure(where: Namespaces | Loopback, lake: peers.Lake, runs: int, absent: dict[str, str]) -> list[Finding]:
    """Compare the repeated pull of a table, uncompressed, with bare servers that stream the same batches.

    Lakegate keeps the encoded result of the first pull where it can, and computes it again where it cannot. All are
    asked by stock pyarrow, in turn.
    """
    where.shape(Link(None))
    taken: dict[str, list[float]] = {}
    programs = {"C++": [sys.executable, str(BARE)]}
    if rust := rust_program(lake.target):
        programs["Rust"] = [str(rust)]
    else:
        build = f"cargo bench --locked --no-run --profile {lake.target.name} --bench bare"
        absent["a bare Flight server (Rust)"] = f"not built: `{build}`"
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(peers.lakegate(where, lake, keeps=True))
        sql = served.asks("", "select * from {lineitem}")
        plain = dataclasses.replace(served, headers={"lakegate-codec": "none"})
        found = [plain, *(stack.enter_context(peers.bare(where, lake, plain, sql, p)) for p in programs.values())]
        askers = [stack.enter_context(peers.Asker(where, "flight", peer.address)) for peer in found]
        for run in range(runs + 1):  # the first fills caches
            for peer, asker in zip(found, askers, strict=True):
                answer = answered(asker.pull(sql, headers=peer.headers))
                taken.setdefault(peer.name, []).append(answer["seconds"] if run else 0.0)
    middle = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    ours = middle[plain.name]
    judged = next((name for name in middle if name.endswith("(Rust)")), None) or list(middle)[-1]
    findings = []
    for name, theirs in middle.items():
        if name == plain.name:
            continue
        what = f"unshaped, uncompressed, a repeated pull of the full table against {name} of the same batches"
        seen = f"{theirs / ours:.2f} × ({ours:.2f} s against {theirs:.2f} s)"
        is_judged = name == judged
        findings.append(
            Finding(what, "≥ 0.8 ×" if is_judged else "(≥ 0.8 ×)", seen, theirs >= 0.8 * ours if is_judged else None)
        )
    return findings


def rust_program(target: Path) -> Path | None:
    """Return the newest built `benches/bare.rs`, or nothing."""
    built = [path for path in (target / "deps").glob("bare-*") if path.suffix == ""]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)
