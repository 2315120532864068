"""Figures of the line as Markdown, pictures, and the bars."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from further import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

BEGIN, END = "<!-- line: begin -->", "<!-- line: end -->"
PICTURES = (
    "\n![Seconds of a full table, by link](line-seconds.svg)\n\n![Bytes on the wire, by statement](line-bytes.svg)\n"
)
STOCK = "lakegate, stock pyarrow"
WORDED = ("lakegate, pyarrow with dictionaries", "lakegate, own client")
UNCOMPRESSED = ("ROAPI", "Sail", "DuckDB behind Flight")
#: Statements whose bytes have a bar: whole tables and projections.
WHOLE = ("full", "proj", "frames", "wide")
#: Smaller than this a pull is round trips, and says nothing of encodings.
LEAST_BYTES = 100_000


def median(values: Iterable[float]) -> float:
    """Return the median; not a number where there is none."""
    given = list(values)
    return statistics.median(given) if given else float("nan")


def cells(records: Sequence[dict]) -> dict[tuple[str, str, str], list[dict]]:
    """Return the pulls that succeeded, by link, statement and peer, in the order in which they were made."""
    found: dict[tuple[str, str, str], list[dict]] = {}
    for record in records:
        if not record["error"]:
            found.setdefault((record["link"], record["statement"], record["peer"]), []).append(record)
    return found


def middle(pulls: Sequence[dict], name: str) -> float:
    """Return the median of one figure."""
    return median(pull[name] for pull in pulls if pull[name] is not None)


def progress(link: str, statement: str, records: Sequence[dict]) -> None:
    """Print what a statement took, as it goes."""
    for (at, name, peer), pulls in cells(records).items():
        if (at, name) == (link, statement):
            size, seconds = middle(pulls, "wire_bytes") / 1e6, middle(pulls, "seconds")
            print(f"  {link}, {statement}, {peer}: {size:,.2f} MB, {seconds:.2f} s", flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def page(
    title: str, records: Sequence[dict], database: Sequence[dict], found: Sequence[Finding], absent: dict[str, str]
) -> str:
    """Return all figures."""
    parts = [f"{title}\n", "#### Bars\n", table(["what", "bar", "seen", ""], (finding.row() for finding in found))]
    made = cells(records)
    for link in dict.fromkeys(link for link, _, _ in made):
        rows = []
        for (at, statement, peer), pulls in made.items():
            if at == link:
                rows.append(row(statement, peer, pulls))
        head = [
            "statement",
            "who",
            "rows",
            "MB on the wire",
            "× stock",
            "s (least to most)",
            "first rows, s",
            "× limit",
        ]
        head += ["server CPU, s", "client CPU, s"]
        parts += [f"#### {link}\n", table(head, rows)]
    if database:
        rows = []
        for (link, _, peer), pulls in cells(database).items():
            figures = f"{middle(pulls, 'wire_bytes') / 1e6:,.2f}", f"{middle(pulls, 'seconds'):.2f}"
            rows.append([link, peer, f"{pulls[0]['rows']:,}", *figures])
        head = ["link", "who", "rows", "MB on the wire", "s"]
        parts += ["#### The same rows from the stand-in for SQL Server\n", table(head, rows)]
    failed = {f"{r['peer']}, {r['statement']}": r["error"] for r in [*records, *database] if r["error"]}
    missing = [f"* {name}: {why}" for name, why in {**absent, **failed}.items()]
    if missing:
        parts += ["#### Not measured\n", "\n".join(" ".join(line.split())[:300] for line in missing) + "\n"]
    return "\n".join(parts)


def row(statement: str, peer: str, pulls: Sequence[dict]) -> list[str]:
    """Return a line of a link's table."""
    seconds = [pull["seconds"] for pull in pulls]
    wire, first = middle(pulls, "wire_bytes"), middle(pulls, "first_seconds")
    spread = f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
    beyond = f"{median(pull['seconds'] / pull['limit'] for pull in pulls):.2f}"
    return [
        statement,
        peer,
        f"{pulls[0]['rows']:,}",
        f"{wire / 1e6:,.2f}",
        f"{wire / pulls[0]['sizes']['stock']:.2f}",
        spread,
        f"{first:.3f}",
        beyond,
        f"{middle(pulls, 'server_cpu_seconds'):.2f}",
        f"{middle(pulls, 'cpu_seconds'):.2f}",
    ]


def bars(records: Sequence[dict]) -> list[Finding]:
    """Return the bars that pulls are held to: bytes, seconds, first rows, and peers."""
    made = cells(records)
    found = []
    for peers, size in ((WORDED, "stock"), ((STOCK,), "plain")):
        found += bytes_bar(made, peers, size)
    least = {}
    for (link, statement, peer), pulls in made.items():
        ours = made.get((link, statement, STOCK))
        if statement == "full" and peer in UNCOMPRESSED and ours:
            ratio = middle(pulls, "wire_bytes") / middle(ours, "wire_bytes")
            least[peer] = min(ratio, least.get(peer, ratio))
    for peer, ratio in least.items():
        found.append(
            Finding(f"bytes of lineitem, {peer} against a stock client", "≥ 4 ×", f"{ratio:.2f} ×", ratio >= 4)
        )
    for peer in (STOCK, *WORDED):
        ratios = [
            (median(p["seconds"] / p["limit"] for p in pulls), f"{statement} at {link}")
            for (link, statement, who), pulls in made.items()
            if who == peer and statement in WHOLE and (pulls[0]["bits"] or 10**12) <= 10**8
        ]
        if ratios:
            worst, where = max(ratios)
            what = f"time at ≤ 100 Mbit/s, {peer}"
            found.append(Finding(what, "≤ 1.10 × the limit", f"{worst:.2f} × at worst ({where})", worst <= 1.10))
    return found + first_rows(made) + unshaped(made)


def bytes_bar(made: dict[tuple[str, str, str], list[dict]], peers: Sequence[str], size: str) -> list[Finding]:
    """Return the bar of bytes for those clients, at the worst of whole tables and projections."""
    found = []
    for peer in peers:
        ratios = [
            (middle(pulls, "wire_bytes") / pulls[0]["around"] / pulls[0]["sizes"][size], f"{statement} at {link}")
            for (link, statement, who), pulls in made.items()
            if who == peer and statement in WHOLE and pulls[0]["sizes"][size] > LEAST_BYTES
        ]
        if ratios:
            worst, where = max(ratios)
            what = f"bytes of whole tables and projections, {peer}, without the headers of packets"
            bar = "≤ 1.05 × the best stock encoding" if size == "stock" else "≤ 1.05 × plain ZSTD 1"
            found.append(Finding(what, bar, f"{worst:.2f} × at worst ({where})", worst <= 1.05))
    return found


def first_rows(made: dict[tuple[str, str, str], list[dict]]) -> list[Finding]:
    """Return the bar of the first rows at 10 Mbit/s."""
    found = []
    for (link, statement, peer), pulls in made.items():
        if pulls[0]["bits"] == 10**7 and statement == "full" and peer.startswith("lakegate"):
            seconds, most = middle(pulls, "first_seconds"), pulls[0]["round_trip"] + 0.3
            what = f"first rows at {link}, {peer}"
            found.append(Finding(what, "≤ RTT + 300 ms", f"{seconds * 1000:.0f} ms", seconds <= most))
    return found


def unshaped(made: dict[tuple[str, str, str], list[dict]]) -> list[Finding]:
    """Return whether lakegate is faster than ROAPI and Sail on the same files where no line is in the way."""
    found = []
    for peer in ("ROAPI", "Sail"):
        ours, theirs = (made.get(("unshaped", "full", who)) for who in (STOCK, peer))
        if ours and theirs:
            ratio = middle(theirs, "seconds") / middle(ours, "seconds")
            found.append(
                Finding(f"unshaped, full table, against {peer}", "faster", f"{ratio:.2f} × as fast", ratio > 1)
            )
    return found


def plots(records: Sequence[dict], folder: Path) -> None:
    """Draw seconds of the full table by link, and bytes by statement, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "line"
    made = cells(records)
    links = list(dict.fromkeys(link for link, _, _ in made))
    bars_of(
        {(link, peer): middle(pulls, "seconds") for (link, name, peer), pulls in made.items() if name == "full"},
        "seconds, full table", folder / "line-seconds.svg",
    )  # fmt: skip
    bars_of(
        {
            (statement, peer): middle(pulls, "wire_bytes") / 1e6
            for (link, statement, peer), pulls in made.items()
            if link == links[-1]
        },
        f"MB on the wire, {links[-1]}", folder / "line-bytes.svg",
    )  # fmt: skip


def bars_of(values: dict[tuple[str, str], float], label: str, path: Path) -> None:
    """Draw one group of bars for each first word, one bar of it for each second."""
    from matplotlib import pyplot

    groups = list(dict.fromkeys(group for group, _ in values))
    peers = list(dict.fromkeys(peer for _, peer in values))
    figure, axes = pyplot.subplots(figsize=(10, 4.5), layout="constrained")
    width = 0.8 / max(1, len(peers))
    for number, peer in enumerate(peers):
        at = [place + number * width - 0.4 for place, group in enumerate(groups) if (group, peer) in values]
        axes.bar(
            at, [values[group, peer] for group in groups if (group, peer) in values], width, label=peer, align="edge"
        )
    axes.set_xticks(range(len(groups)), groups)
    axes.set_yscale("log")
    axes.set_ylabel(label)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def write(page_file: Path, text: str) -> None:
    """Put figures between the markers of a page."""
    before, rest = page_file.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page_file.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")
