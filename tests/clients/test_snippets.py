"""docs/clients.md is true: its code is run, and its table says what expected.json says."""

from __future__ import annotations

import contextlib
import io
import os
import re
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

import matrix
import snippets
from snippets import Server, Snippet
from walked import secured

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from served import Served

#: The page's columns, and which clients of expected.json each stands for.
SHOWN = {
    "pyarrow, ADBC, polars, DuckDB, pandas¹, arrow-go, Node.js, `lakegate query`": [
        "rust",
        "pyarrow",
        "adbc",
        "polars",
        "duckdb",
        "pandas-pyarrow",
        "go-arrow",
        "go-adbc",
        "node-rust",
        "node-javascript",
    ],
    "pandas without ¹": ["pandas"],
    "SQLAlchemy": ["sqlalchemy"],
    "JDBC, in the zone UTC": ["jdbc"],
    "Go's `database/sql`": ["go-database-sql"],
}


def cell(column: str, clients: list[str]) -> str:
    told = {what(matrix.expected()["clients"][client], column) for client in clients}
    assert len(told) == 1, f"{column}: {clients} differ"
    return told.pop()


def what(client: dict[str, Any], column: str) -> str:
    differs = client["differs"].get(column)
    if differs is None:
        return "exact"
    return ("an error: " if "error" in differs else "") + differs["why"]


def the_table() -> str:
    lines = [f"| type | {' | '.join(SHOWN)} |", f"| --- |{' --- |' * len(SHOWN)}"]
    for name, kind, *_ in matrix.COLUMNS:
        cells = [cell(name, clients) for clients in SHOWN.values()]
        lines.append(f"| `{kind}` | {' | '.join(cells)} |")
    lines += ["", '¹ with `dtype_backend="pyarrow"`']
    return "\n".join(lines)


def test_the_table_of_types_is_what_the_clients_were_seen_to_do() -> None:
    page = snippets.PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- types -->\n", "\n<!-- /types -->"
    shown = page[page.index(begin) + len(begin) : page.index(end)]
    if os.environ.get("LAKEGATE_WRITE_DOCS"):
        snippets.PAGE.write_text(page.replace(begin + shown + end, begin + the_table() + end), encoding="utf-8")
        return
    assert shown == the_table(), "LAKEGATE_WRITE_DOCS=1 writes the table anew"


def test_every_block_of_the_page_is_run_by_somebody() -> None:
    for snippet in snippets.snippets():
        assert snippet.language in snippets.CODE | snippets.SETTINGS, f"line {snippet.line}: {snippet.language}"
        if snippet.language in snippets.CODE:
            assert snippet.promised, f"line {snippet.line} prints nothing that could be looked at"
    elsewhere = (snippets.HERE / "run").read_text(encoding="utf-8")
    for language in snippets.CODE - {"python", "sh"}:
        assert re.search(rf'snippets\.py"? {language} ', elsewhere), f"nobody runs {language}"


@pytest.fixture(scope="module")
def server(walked: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    address = urllib.parse.urlparse(walked.url)
    with secured(tmp_path_factory.mktemp("tls") / "secured") as (url, authority):
        port = urllib.parse.urlparse(url).port
        yield Server(address.hostname or "", str(address.port), str(port), str(authority))


@pytest.mark.parametrize("snippet", snippets.of("python"), ids=lambda snippet: f"line {snippet.line}")
def test_python(server: Server, snippet: Snippet) -> None:
    printed = io.StringIO()
    code = compile(snippet.at(server), f"clients.md:{snippet.line}", "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "__main__"})  # noqa: S102 what the page tells people to run
    snippet.check(printed.getvalue())


@pytest.mark.parametrize("snippet", snippets.of("sh"), ids=lambda snippet: f"line {snippet.line}")
def test_shell(
    walked: Served, server: Server, snippet: Snippet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The program under test may have another name than the page has for it.
    (tmp_path / "lakegate").symlink_to(walked.program)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    snippet.check(snippets.run(snippet, server, "."))
