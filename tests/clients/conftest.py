"""Makes the server of the Python client's tests known to the tests of other clients, and two with unusual tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python-client" / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import walked as tables
from served import Served, client, serve, served

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["client", "served", "slowly", "walked"]


@pytest.fixture(autouse=True)
def cache_of_the_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test a cache folder of its own: our own client keeps results."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server over the tables of `walked.py`."""
    prepared = tables.prepare(tmp_path_factory.mktemp("walked"))
    with serve(prepared.program, prepared.folder) as url:
        yield Served(url=url, folder=prepared.folder, program=prepared.program)


@pytest.fixture(scope="session")
def slowly(walked: Served) -> Iterator[Served]:
    """The same tables behind a slow line."""
    with tables.slow(walked) as url:
        yield Served(url=url, folder=walked.folder, program=walked.program)
