"""Readers that know nothing of lakegate read the lake's tables from disk and agree with the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import deltalake
import polars
import pytest

from served import EVERYTHING, Served

if TYPE_CHECKING:
    import lakegate

TABLES = ["everything", "people", "growing"]


def rows(listed: list[dict[str, object]]) -> list[str]:
    """Return rows in an order of their own; maps of values compare as text because lists cannot be sorted."""
    return sorted(map(repr, listed))


@pytest.mark.parametrize("name", TABLES)
def test_deltalake_and_polars_read_what_the_server_says(served: Served, client: lakegate.Client, name: str) -> None:
    expected = rows(client.sql(f"select * from t.{name}").to_arrow().to_pylist())
    path = str(served.folder / "lake" / "t" / name)
    assert rows(deltalake.DeltaTable(path).to_pyarrow_table().to_pylist()) == expected
    assert rows(polars.read_delta(path).to_dicts()) == expected


def test_the_table_in_the_lake_is_the_file_that_was_dropped(served: Served) -> None:
    table = deltalake.DeltaTable(str(served.folder / "lake" / "t" / "everything"))
    assert rows(table.to_pyarrow_table().to_pylist()) == rows(EVERYTHING.to_pylist())


def test_tables_need_no_reader_features_beyond_times_without_zone(served: Served) -> None:
    for name in TABLES:
        protocol = deltalake.DeltaTable(str(served.folder / "lake" / "t" / name)).protocol()
        assert set(protocol.reader_features or []) <= {"timestampNtz"}
