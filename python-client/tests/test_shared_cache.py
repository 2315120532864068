"""One cache for this client and the command line: what one of them fetched the other does not fetch again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import lakegate
from served import Served, run

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = "select * from t.everything order by id"
PEOPLE = "select name, born from t.people"
GROWING = "select n from t.growing"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def fetch(served: Served, folder: Path, query: str) -> str:
    """Fetch rows with the command line, and return what it told."""
    at = ["--server", served.url, "--cache", str(folder)]
    return run(served.program, served.folder, "query", *at, query, "-o", str(folder.with_name("rows.arrow"))).stderr


def nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it an error of this client to download anything from now on."""

    def refuse(**_: object) -> None:
        raise AssertionError("rows are downloaded")

    monkeypatch.setattr("lakegate._fetch.Download", refuse)


def test_this_client_takes_what_the_command_line_fetched(
    served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lakegate.connect(served.url, cache=False) as client:
        wanted = client.sql(EVERYTHING).to_arrow()
    fetch(served, folder, EVERYTHING)
    nothing_is_sent(monkeypatch)
    with lakegate.connect(served.url, cache=folder) as client:
        assert len(client.cache.entries()) == 1
        assert client.sql(EVERYTHING).to_arrow().equals(wanted)
        # Also what it remembers of the question.
        assert client.sql(EVERYTHING, max_staleness=3600).to_arrow().equals(wanted)
        assert len(client.cache.entries()) == 1


def test_the_command_line_takes_what_this_client_fetched(served: Served, folder: Path) -> None:
    for query in (EVERYTHING, PEOPLE):
        with lakegate.connect(served.url, cache=folder) as client:
            rows = client.sql(query).to_arrow()
        assert f"{rows.num_rows} rows" in (told := fetch(served, folder, query)) and "unchanged" in told
        with lakegate.connect(served.url, cache=folder) as client:
            assert client.sql(query).to_arrow().equals(rows)
    with lakegate.connect(served.url, cache=folder) as client:
        assert len(client.cache.entries()) == 2


def test_each_adds_new_rows_to_those_of_the_other(served: Served, folder: Path) -> None:
    def numbers() -> list[int]:
        with lakegate.connect(served.url, cache=folder) as client:
            return sorted(client.sql(GROWING).to_arrow()["n"].to_pylist())

    def entries() -> int:
        with lakegate.connect(served.url, cache=folder) as client:
            return len(client.cache.entries())

    fetch(served, folder, GROWING)
    before = numbers()
    for times in (1, 2):
        served.file(f"in/growing/shared-{times}.csv", f"n\n{1000 + times}\n")
        served.sync("t.growing")
        if times == 1:
            assert numbers() == [*before, 1001]
            assert "unchanged" in fetch(served, folder, GROWING)
        else:
            assert "of which 1 new" in fetch(served, folder, GROWING)
            assert numbers() == [*before, 1001, 1002]
        # The new rows stand alone.
        assert entries() == 1 + times
