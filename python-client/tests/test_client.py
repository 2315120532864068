"""The client against a real server."""

from __future__ import annotations

import datetime
import decimal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars
import pyarrow as pa
import pyarrow.parquet
import pytest

import lakegate
from served import EVERYTHING, Served

if TYPE_CHECKING:
    from collections.abc import Callable

ALL = "select * from t.everything order by id"


def test_rows_arrive_as_they_were_in_the_file(client: lakegate.Client) -> None:
    assert client.sql(ALL).to_arrow().to_pylist() == EVERYTHING.to_pylist()


def test_types_arrive_as_they_were_in_the_file(client: lakegate.Client) -> None:
    found = {field.name: field.type for field in client.sql(ALL).schema}
    assert {name: found[name] for name in EVERYTHING.column_names[:13]} == {
        field.name: field.type for field in EVERYTHING.schema.remove(14).remove(13)
    }
    assert found["list"].value_type == pa.int32()
    assert [field.name for field in found["struct"]] == ["a", "b"]


def test_pandas_polars_rows_and_batches_agree(client: lakegate.Client) -> None:
    result = client.sql("select id, text, money from t.everything order by id")
    expected = result.to_arrow().to_pylist()
    assert [dict(zip(result.columns, row, strict=True)) for row in result] == expected
    assert [row for batch in result.batches() for row in batch.to_pylist()] == expected
    assert result.to_polars().to_dicts() == expected
    assert result.to_pandas(types="arrow")["text"].tolist()[:2] == ["Zoë's “x”", ""]
    assert result.to_pandas()["id"].tolist() == [1, 2, 3]
    assert isinstance(result.to_polars(), polars.DataFrame)


def test_the_ways_for_large_results_give_the_same_rows(client: lakegate.Client, tmp_path: Path) -> None:
    with client.sql("select id, text, money from t.everything order by id") as result:
        expected = result.to_arrow()
        assert expected.schema == result.schema
        assert result.schema.field("text").type == pa.string()
        assert result.to_parquet(tmp_path / "rows.parquet") == 3
        assert pa.parquet.read_table(tmp_path / "rows.parquet").equals(expected)
        for _ in range(2):
            assert pa.Table.from_batches(result.iter_batches(2)).equals(expected)
        shards = [
            row for i in range(2) for batch in result.iter_batches(1, shuffle=4, shard=(i, 2)) for row in batch["id"]
        ]
        assert sorted(row.as_py() for row in shards) == [1, 2, 3]
        assert str(result.to_pandas(categories=True)["text"].dtype) == "category"
        with pytest.raises(lakegate.TooLarge):
            result.to_pandas(max_memory=1)


def test_pandas_gets_times_as_times(client: lakegate.Client) -> None:
    frame = client.sql("select instant, day from t.everything order by id").to_pandas()
    assert str(frame["instant"].dtype).startswith("datetime64[us, UTC")
    assert str(frame["day"].dtype).startswith("datetime64[")


def test_an_empty_result_has_its_columns(client: lakegate.Client) -> None:
    result = client.sql("select id, text from t.everything where false")
    assert result.to_arrow().num_rows == 0
    assert result.to_pandas().columns.tolist() == ["id", "text"]
    assert list(result) == []


@pytest.mark.parametrize(
    "value",
    [
        7,
        -1.5,
        True,
        None,
        "Zoë's ? $1 -- x",
        b"\x00\xff",
        decimal.Decimal("12.34"),
        datetime.date(2013, 1, 1),
        datetime.datetime(2013, 1, 1, 6, 0, 0, 1),
    ],
)
def test_a_parameter_comes_back_as_it_was_given(client: lakegate.Client, value: Any) -> None:
    assert list(client.sql("select ? as value", params=[value])) == [(value,)]


def test_parameters_are_bound_in_order_in_both_ways_of_writing(client: lakegate.Client) -> None:
    assert list(client.sql("select id from t.everything where id >= ? and id < ?", params=(2, 3))) == [(2,)]
    assert list(client.sql("select id from t.everything where id < $2 and id >= $1", params=(2, 3))) == [(2,)]
    assert list(client.sql("select text from t.everything where text = ?", params=["Zoë's “x”"])) == [("Zoë's “x”",)]


def test_parameters_of_the_wrong_shape_are_refused(client: lakegate.Client) -> None:
    for params in ("text", {"a": 1}):
        with pytest.raises(TypeError, match="list or tuple"):
            client.sql("select ?", params=params)  # type: ignore[arg-type]
    with pytest.raises(lakegate.InvalidQuery, match="parameter 2 is a object"):
        client.sql("select ?, ?", params=[1, object()])
    with pytest.raises(lakegate.LakegateError):
        client.sql("select ?, ?", params=[1]).to_arrow()


@pytest.mark.parametrize(
    ("query", "expected", "words"),
    [
        ("selec 1", lakegate.InvalidQuery, "selec"),
        ("select no_such_column from t.everything", lakegate.InvalidQuery, "no_such_column"),
        ("select * from t.no_such_table", lakegate.NotFound, "no_such_table"),
        ("delete from t.everything", lakegate.LakegateError, ""),
        ("select 1; select 2", lakegate.InvalidQuery, ""),
    ],
)
def test_mistakes_are_raised_when_the_statement_is_sent(
    client: lakegate.Client, query: str, expected: type[Exception], words: str
) -> None:
    with pytest.raises(expected) as raised:
        client.sql(query)
    assert words in str(raised.value)
    assert "gRPC" not in str(raised.value)
    assert type(raised.value) is not lakegate.InternalError


def test_a_failure_while_rows_are_computed_is_the_persons_own(client: lakegate.Client) -> None:
    with pytest.raises(lakegate.InvalidQuery):
        client.sql("select cast(text as int) from t.everything").to_arrow()


def test_a_timeout_is_named(served: Served) -> None:
    slow = "select count(*) from t.everything " + " ".join(f"cross join t.everything a{i}" for i in range(18))
    with lakegate.connect(served.url, timeout=1.0) as client, pytest.raises(lakegate.Timeout):
        client.sql(slow + " where a0.number + a17.number > 1e300").to_arrow()


def test_tables_and_schema_tell_what_is_there(client: lakegate.Client) -> None:
    names = [str(table) for table in client.tables()]
    assert {"t.everything", "t.growing", "t.people", "system.loads"} <= set(names)
    assert names == sorted(names)
    assert [str(table) for table in client.tables(schema="t")] == ["t.everything", "t.growing", "t.people"]
    assert client.schema("t.people") == client.sql("select * from t.people").schema
    with pytest.raises(lakegate.NotFound, match="t_people"):
        client.schema("t.t_people")
    with pytest.raises(lakegate.NotFound):
        client.schema("t.p_ople")
    with pytest.raises(lakegate.InvalidQuery, match=r"schema\.table"):
        client.schema("people")


def test_rejects_tell_file_line_and_reason(client: lakegate.Client) -> None:
    assert list(client.sql("select name from t.people order by name")) == [("Ada",), ("Edsger",)]
    found = client.sql("select file, line from system.rejects where table_name = 'people' order by line").to_arrow()
    assert found["line"].to_pylist() == [3, 4]
    assert all(file.endswith("people.csv") for file in found["file"].to_pylist())


def test_a_new_version_is_seen_at_once_and_the_old_one_stays(served: Served, client: lakegate.Client) -> None:
    def total(clause: str = "") -> int:
        ((found,),) = client.sql(f"select sum(n) from t.growing {clause}")
        return found

    version_query = "select version from system.tables where table_schema = 't' and table_name = 'growing'"
    ((version,),) = client.sql(version_query)
    before, ticket = total(), client.sql("select sum(n) from t.growing")
    moment = datetime.datetime.now(datetime.timezone.utc).isoformat()
    served.file(f"in/growing/{before}.csv", f"n\n{before}\n")
    served.sync("t.growing")
    assert total() == 2 * before
    assert total(f"version as of {version}") == before
    assert total(f"timestamp as of '{moment}'") == before
    assert list(ticket) == [(before,)], "a statement sent before the load reads what was there then"


def test_a_notebook_shows_a_limited_preview(client: lakegate.Client) -> None:
    many = "select a.id as number, '<b>' as markup, repeat('x', 500) as long, null as nothing from t.everything a "
    many += " ".join(f"cross join t.everything b{i}" for i in range(3))
    shown = client.sql(many)._repr_html_()
    assert shown.count("<tr>") == 21
    assert "the first 20 rows" in shown
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "x" * 101 not in shown
    assert "<i>null</i>" in shown
    assert "3 rows" in client.sql(ALL)._repr_html_()


def test_leaving_a_loop_early_leaves_the_connection_usable(client: lakegate.Client) -> None:
    endless = "select a.id from t.everything a " + " ".join(f"cross join t.everything b{i}" for i in range(16))
    for _ in client.sql(endless).batches():
        break
    with client.sql(endless) as result:
        next(iter(result))
    assert list(client.sql("select 1")) == [(1,)]


MEASURE = """
import resource, sys
sys.path.insert(0, {source!r})
import lakegate
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
with lakegate.connect({url!r}) as client:
    query = "select repeat('x', 2000) as wide from t.everything a " + " ".join(
        f"cross join t.everything b{{i}}" for i in range(10))
    seen, start = 0, None
    for batch in client.sql(query).batches():
        seen += batch.nbytes
        start = start or peak()
    print(seen, peak() - start)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
def test_batches_keep_one_batch_in_memory(served: Served) -> None:
    source = str(Path(lakegate.__file__).resolve().parents[1])
    script = MEASURE.format(source=source, url=served.url)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seen, grown = map(int, done.stdout.split())
    assert seen > 300_000_000
    assert grown < seen / 5, f"{grown} bytes more for {seen} bytes of rows"


def test_threads_may_share_a_client(client: lakegate.Client, in_threads: Callable[..., list[Any]]) -> None:
    answers = in_threads(lambda number: list(client.sql("select ? + 1", params=[number])), range(16))
    assert answers == [[(number + 1,)] for number in range(16)]


@pytest.fixture
def in_threads() -> Callable[..., list[Any]]:
    from concurrent.futures import ThreadPoolExecutor

    def run(work: Callable[[Any], Any], values: Any) -> list[Any]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(work, values))

    return run
