"""How often each contender pulls, and how long all of it takes, so that a whole run ends within about an hour.

What lakegate's clients take counts by the median of all runs. Peers that send rows as they are take as long as the line
needs for their bytes, which does not change from one run to the next: at slow lines they pull once, else three times.
Whole files are the same for each statement over the same tables: at slow lines they are fetched once for each set.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from datasets import STATEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from links import Link
    from sizes import Sizes

STOCK = "lakegate, stock pyarrow"
WORDED = ("lakegate, pyarrow with dictionaries", "lakegate, own client")
UNCOMPRESSED = ("ROAPI", "Sail", "DuckDB behind Flight")
FILES = "whole files over HTTP"
CONTENDERS = (STOCK, *WORDED, *UNCOMPRESSED, FILES)
#: Most runs of a peer where the processor decides.
PEER_RUNS = 3
#: Longest that whole files may take through a line to be measured there, in seconds.
PATIENCE = 45
#: Plain bytes a second that are scanned, packed and unpacked on two cores, roughly.
WORKED_BYTES = 250_000_000
#: Seconds a statement takes that scans a table of SF1 and gives little, and what each call takes besides.
SCAN_SECONDS, CALL_SECONDS = 0.5, 0.05
#: Beyond three times what the line needs, a peer that has not answered in so long does not any more.
ANSWER_SECONDS = 30.0
#: Roughly what the parts beside the matrix take at full size, in seconds, with the servers' starts; `repeat` adds rows
#: to the lake, and comes last.
PARTS = {
    "database": 90,
    "first": 90,
    "fair": 100,
    "small": 240,
    "resume": 60,
    "memory": 80,
    "bare": 90,
    "estimates": 120,
    "repeat": 40,
}
#: Loading the lake and measuring sizes, which are kept, in seconds.
PREPARED_SECONDS = 240


def encoding(peer: str) -> str:
    """Return which of a result's sizes a contender sends."""
    return "plain" if peer == STOCK else "stock" if peer in WORDED else "raw"


def tables(text: str) -> frozenset[str]:
    """Return the tables a statement reads, of its text with braces."""
    return frozenset(re.findall(r"{(\w+)}", text)) - {"few", "frames_few", "wide_few"}


def runs(peer: str, link: Link, name: str, wanted: int) -> int:
    """Return how often a contender pulls a statement through a link; 0 where it tells nothing new."""
    if peer.startswith("lakegate"):
        return wanted
    if not link.is_slow:
        return min(PEER_RUNS, wanted)
    if peer != FILES:
        return 1
    first = next(other for other, text in STATEMENTS.items() if tables(text) == tables(STATEMENTS[name]))
    return 1 if name == first else 0


def seconds(link: Link, size: Sizes, peer: str, files_bytes: int) -> float:
    """Return about how long one pull takes."""
    sent = files_bytes if peer == FILES else getattr(size, encoding(peer)) * 1.05
    line = sent / link.bytes_per_second if link.bytes_per_second else 0.0
    scan = SCAN_SECONDS if size.rows < SMALL_ROWS else 0.0
    return 2 * link.round_trip + max(line, size.raw / WORKED_BYTES) + scan + CALL_SECONDS


#: Results of fewer rows than this are cheap to send and dear to find.
SMALL_ROWS = 1_000


def patience(link: Link, size: Sizes, files_bytes: int) -> float:
    """Return how many seconds an answer may take before its peer has failed."""
    slowest = max(size.raw, files_bytes) / link.bytes_per_second if link.bytes_per_second else 0.0
    return ANSWER_SECONDS + 3 * max(slowest, size.raw / WORKED_BYTES)


def matrix_seconds(
    link: Link, found: Mapping[str, Sizes], files: Mapping[str, int], peers: Iterable[str], wanted: int
) -> float:
    """Return about how long all contenders take for all statements at a link; `files` are the bytes by statement."""
    taken = 0.0
    for peer in peers:
        for name, size in found.items():
            one = seconds(link, size, peer, files[name])
            if peer == FILES and too_long(link, files[name]):
                continue
            taken += one * runs(peer, link, name, wanted)
    return taken


def too_long(link: Link, files_bytes: int) -> str:
    """Return why whole files are not fetched through a line, or nothing."""
    needed = files_bytes / link.bytes_per_second if link.bytes_per_second else 0
    return f"not measured: {files_bytes / 1e6:,.0f} MB would take {needed:,.0f} s" if needed > PATIENCE else ""
