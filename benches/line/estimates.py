"""What lakegate tells of the size of results before it sends them, against what it then sends."""

from __future__ import annotations

import contextlib
import json
import statistics
from typing import TYPE_CHECKING

import datasets
import peers
import sizes
from further import Finding, answered
from links import Link, way

if TYPE_CHECKING:
    from links import Loopback, Namespaces

#: Smallest result whose estimate is judged, in bytes: below it headers and descriptions of columns are all.
ESTIMATED_BYTES = 20_000


def measure(where: Namespaces | Loopback, lake: peers.Lake, scale: float) -> tuple[list[Finding], list[list[str]]]:
    """Ask a server that has sent nothing yet how large each result will be, then pull it; findings and a table."""
    link = Link(None)
    where.shape(link)
    texts = {**datasets.statements(link.bits, scale), **datasets.ESTIMATED}
    rows, ratios, unknown, small = [], [], [], 0
    for name_of, headers in (("plain", {}), ("with dictionaries", {"lakegate-dictionaries": "on"})):
        asked = {"headers": {**where.headers, **headers}}
        with contextlib.ExitStack() as stack:
            served = stack.enter_context(peers.lakegate(where, lake))
            line = stack.enter_context(way(where, link, served.address))
            asker = stack.enter_context(peers.Asker(where, "flight", line.address))
            statements = {name: served.asks(name, text) for name, text in texts.items()}
            told = {
                name: json.loads(answered(asker.pull(sql, describe=True, **asked))["metadata"] or "{}")
                for name, sql in statements.items()
            }
            for name, sql in statements.items():
                before = line.sent()
                answer = answered(asker.pull(sql, **asked))
                real = round((line.sent() - before) / where.around)
                estimate = told[name].get("estimate", {})
                guess = estimate.get("wire_bytes")
                if guess is None:
                    unknown.append(f"{name}, {name_of}")
                elif real < ESTIMATED_BYTES:
                    small += 1
                else:
                    ratios.append(guess / real)
                shown = f"{guess:,}" if guess is not None else "unknown"
                ratio = f"{guess / real:.2f}" if guess is not None else "–"
                about = estimate.get("rows")
                rows.append(
                    [
                        name,
                        name_of,
                        "unknown" if about is None else f"{about:,}",
                        f"{answer['rows']:,}",
                        shown,
                        f"{real:,}",
                        ratio,
                    ]
                )
    if not ratios:
        return [Finding("estimates", "median ≤ 25 %, 90th percentile ≤ 2 ×", "none was told", False)], rows
    error = statistics.median(abs(ratio - 1) for ratio in ratios)
    factors = sorted(max(ratio, 1 / ratio) if ratio else float("inf") for ratio in ratios)
    worst = sizes.quantile(factors, 0.9)
    of = f"{len(ratios)} results of more than {ESTIMATED_BYTES // 1000} kB; {len(unknown)} unknown, {small} smaller"
    return [
        Finding("estimated bytes, cold: median error", "≤ 25 %", f"{error:.0%} ({of})", error <= 0.25),
        Finding("estimated bytes, cold: 90th percentile", "≤ 2 ×", f"{worst:.2f} ×", worst <= 2),
    ], rows
