"""Makes the server of `served.py` known to the client's tests, and keeps their results out of the person's cache."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from served import client, served

__all__ = ["client", "served"]


@pytest.fixture(autouse=True)
def cache_of_the_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test a cache folder of its own where clients are not told another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
