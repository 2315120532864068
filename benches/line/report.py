"""Figures of the line as Markdown, pictures, and the bars."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Any

from budget import PARTS, STOCK, UNCOMPRESSED, WORDED, encoding
from further import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

BEGIN, END = "<!-- line: begin -->", "<!-- line: end -->"
PART = "<!-- line: {} -->"
PICTURES = (
    "![Seconds of a full table, by link](line-seconds.svg)\n\n![Bytes on the wire, by statement](line-bytes.svg)\n"
)
#: Statements whose bytes have a bar: whole tables and projections.
WHOLE = ("full", "proj", "frames", "wide")
#: Smaller than this a pull is round trips and headers, and says nothing of encodings.
LEAST_BYTES = 1_000_000
#: What a part is called that has no table by link.
HEADINGS = {
    "matrix": "Pulls",
    "database": "The same rows from the stand-in for SQL Server",
    "estimates": "Bytes told beforehand by a server that had sent nothing",
}


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


class Page:
    """The figures as blocks of the page, one a part; blocks and bars of parts that are not known stay as they are."""

    def __init__(self, parts: dict[str, dict[str, Any]]):
        order = ["matrix", *PARTS]
        parts = dict(sorted(parts.items(), key=lambda item: order.index(item[0])))
        self._parts = parts
        self.rows = [[part, *finding.row()] for part, known in parts.items() for finding in findings(part, known)]
        self.blocks = {part: block(part, known) for part, known in parts.items()}

    def text(self, page: str = "") -> str:
        """Return all blocks: those that are known, and the others of a page's text between its markers."""
        rows, blocks = list(self.rows), dict(self.blocks)
        for name, text in split(page).items():
            if name == "bars":
                old = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()[4:]]
                rows += [row for row in old if len(row) == len(HEAD) and row[0] not in self._parts]
            elif name not in blocks:
                blocks[name] = text
        bars = f"#### Bars\n\n{table(HEAD, rows)}"
        return "\n".join(f"{PART.format(name)}\n\n{text}" for name, text in {"bars": bars, **blocks}.items())

    def write(self, path: Path) -> None:
        """Put the figures between the markers of a page."""
        before, rest = path.read_text(encoding="utf-8").split(BEGIN)
        within, after = rest.split(END)
        path.write_text(f"{before}{BEGIN}\n\n{self.text(within)}\n{END}{after}", encoding="utf-8")


HEAD = ("part", "what", "bar", "seen", "")


def split(page: str) -> dict[str, str]:
    """Return the blocks of a page's text by the parts they are of."""
    pieces = re.split(r"<!-- line: (\w+) -->\n", page)
    return {name: text.strip("\n") + "\n" for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def findings(part: str, known: dict[str, Any]) -> list[Finding]:
    """Return the bars of a part."""
    return bars(known["pulls"]) if part == "matrix" else [Finding(**found) for found in known.get("findings", [])]


def block(part: str, known: dict[str, Any]) -> str:
    """Return what the page says of a part beside its bars."""
    title = HEADINGS.get(part)
    pieces = [f"#### {title}\n"] if title else []
    pieces.append(f"{known['title']}; {known['around']}\n" if title else f"`{part}`: {known['title']}.\n")
    if part == "matrix":
        pieces += [sizes_table(known["pulls"]), *link_tables(known["pulls"]), PICTURES]
    elif part == "database":
        pieces.append(database_table(known["pulls"]))
    elif part == "estimates":
        head = ["statement", "encoding", "rows told", "rows", "bytes told", "bytes", "told / real"]
        pieces.append(table(head, known["rows"]))
    failed = {
        f"{r['peer']}, {r['statement']}, from {r['link']} on": r["error"] for r in known.get("pulls", []) if r["error"]
    }
    missing = [f"* {name}: {why}" for name, why in {**known.get("absent", {}), **failed}.items()]
    if missing:
        pieces += ["Not measured:\n", "\n".join(" ".join(line.split())[:300] for line in missing) + "\n"]
    return "\n".join(pieces)


def sizes_table(records: Sequence[dict]) -> str:
    """Return what each result takes in the encodings that are compared with."""
    rows = []
    for (link, statement), size in {(r["link"].split(",")[0], r["statement"]): r["sizes"] for r in records}.items():
        figures = [f"{size[name] / 1e6:,.2f}" for name in ("raw", "plain", "stock", "best")]
        rows.append([link, statement, f"{size['rows']:,}", *figures])
    head = ["link", "statement", "rows", "MB plain", "ZSTD 1", "best stock clients decode", "least of all"]
    return table(head, rows)


def link_tables(records: Sequence[dict]) -> Iterator[str]:
    """Return a table for each link."""
    made = cells(records)
    head = ["statement", "who", "runs", "rows", "MB on the wire", "× stock", "s (least to most)", "first rows, s"]
    head += ["× limit", "server CPU, s", "client CPU, s"]
    for link in dict.fromkeys(link for link, _, _ in made):
        rows = [row(statement, peer, pulls) for (at, statement, peer), pulls in made.items() if at == link]
        yield f"##### {link}\n\n{table(head, rows)}"


def database_table(records: Sequence[dict]) -> str:
    """Return what the database and lakegate took for the same rows."""
    rows = []
    for (link, _, peer), pulls in cells(records).items():
        figures = f"{middle(pulls, 'wire_bytes') / 1e6:,.2f}", f"{middle(pulls, 'seconds'):.2f}"
        rows.append([link, peer, f"{pulls[0]['rows']:,}", *figures])
    return table(["link", "who", "rows", "MB on the wire", "s"], rows)


def row(statement: str, peer: str, pulls: Sequence[dict]) -> list[str]:
    """Return a line of a link's table."""
    seconds = [pull["seconds"] for pull in pulls]
    wire, first = middle(pulls, "wire_bytes"), middle(pulls, "first_seconds")
    spread = f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
    beyond = f"{median(pull['seconds'] / pull['limit'] for pull in pulls):.2f}"
    return [
        statement,
        peer,
        str(len(pulls)),
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
        if statement == "full" and peer in UNCOMPRESSED and ours and pulls[0]["bits"]:
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
            if pulls[0]["sizes"][encoding(peer)] > LEAST_BYTES
        ]
        if ratios:
            worst, where = max(ratios)
            what = f"time at ≤ 100 Mbit/s of results > 1 MB, {peer}"
            found.append(Finding(what, "≤ 1.10 × the limit", f"{worst:.2f} × at worst ({where})", worst <= 1.10))
    return found + unshaped(made)


def bytes_bar(made: dict[tuple[str, str, str], list[dict]], peers: Sequence[str], size: str) -> list[Finding]:
    """Return the bar of bytes for those clients, at the worst of whole tables and projections."""
    found = []
    for peer in peers:
        ratios = [
            (middle(pulls, "wire_bytes") / pulls[0]["around"] / pulls[0]["sizes"][size], f"{statement} at {link}")
            for (link, statement, who), pulls in made.items()
            if who == peer and statement in WHOLE and pulls[0]["bits"]  # else rows go as they are
            if pulls[0]["sizes"][size] > LEAST_BYTES
        ]
        if ratios:
            worst, where = max(ratios)
            what = f"bytes of whole tables and projections > 1 MB, {peer}, without the headers of packets"
            bar = "≤ 1.05 × the best stock encoding" if size == "stock" else "≤ 1.05 × plain ZSTD 1"
            found.append(Finding(what, bar, f"{worst:.2f} × at worst ({where})", worst <= 1.05))
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
