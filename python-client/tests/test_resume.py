"""Downloads whose line is cut: at a stand-in (tests/standin.py), and at the real server through a way that breaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import flight

import lakegate
from breaking import Breaking
from lakegate import _client, _download, _said
from lakegate._download import Download, StartOver
from lakegate._errors import from_arrow, was_cut
from served import Served, program, run, serve
from standin import Resuming, label, told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakegate import Progress

ROWS = 10_000
#: Rows of the real server's table: some 16 MB on the line.
MANY = 1_000_000


def plain(rows: int, of: int = 1000) -> list[pa.RecordBatch]:
    return [pa.record_batch({"n": pa.array(range(start, start + of), pa.int64())}) for start in range(0, rows, of)]


@pytest.fixture
def server() -> Iterator[Resuming]:
    with Resuming(plain(ROWS), told=told()) as running:
        yield running


def numbers(result: lakegate.Result) -> list[int]:
    return result.to_arrow()["n"].to_pylist()  # type: ignore[no-any-return]


def test_a_download_goes_on_after_the_last_batch_that_came(server: Resuming) -> None:
    server.cut_before = [3, 3, 7]
    with lakegate.connect(server.url, cache=False) as client:
        assert [row[0] for row in client.sql("q")] == list(range(ROWS))
    asked = [headers["lakegate-resume"] for headers in server.fetched]
    assert server.asked[0]["lakegate-resume"] == "0"
    assert asked == ["0", f"4:{'03' * 16};opening", f"4:{'03' * 16};opening", f"8:{'07' * 16};opening"]


def test_a_socket_that_breaks_is_a_cut(server: Resuming) -> None:
    server.batches = plain(400_000)
    with Breaking(server.url) as way, lakegate.connect(way.url, cache=False) as client:
        numbers(client.sql("q"))
        whole = way.carried
        way.cut_after = whole // 2
        assert numbers(client.sql("q")) == list(range(400_000))
        assert way.cuts == 1
        assert whole <= way.carried - whole < whole * 1.5
    assert server.downloads == 3


def test_progress_says_that_it_went_on(server: Resuming) -> None:
    server.cut_before = [5]
    seen: list[Progress] = []
    with lakegate.connect(server.url, cache=False) as client:
        client.sql("q").to_arrow(progress=seen.append)
    assert [progress.cuts for progress in seen] == [0] * 5 + [1] * 7
    assert "cut once, went on" in str(seen[-1])


def test_what_went_on_is_kept_whole(server: Resuming, tmp_path: Path) -> None:
    server.cut_before = [5]
    with lakegate.connect(server.url, cache=tmp_path) as client:
        for _ in range(2):
            assert numbers(client.sql("q")) == list(range(ROWS))
    assert server.downloads == 2


def test_whoever_does_not_want_it_gets_the_error(server: Resuming) -> None:
    server.cut_before = [5]
    with lakegate.connect(server.url, cache=False, reconnect=0) as client, pytest.raises(lakegate.Unavailable):
        client.sql("q").to_arrow()
    assert server.downloads == 1


def test_a_server_that_never_comes_back_is_not_waited_for_longer_than_was_said(server: Resuming) -> None:
    server.cut_before = [1] * 1000
    with lakegate.connect(server.url, cache=False, reconnect=0.3) as client, pytest.raises(lakegate.Unavailable):
        client.sql("q").to_arrow()
    assert 2 <= server.downloads < 20


def test_a_cut_before_anything_came_is_told_at_once(server: Resuming) -> None:
    server.cut_before = [0]
    with lakegate.connect(server.url, cache=False) as client, pytest.raises(lakegate.Unavailable):
        client.sql("q").to_arrow()
    assert server.downloads == 1


def test_leaving_while_it_tries_in_vain_ends_it(server: Resuming) -> None:
    server.cut_before = [1] * 1000
    tried = threading.Event()
    with lakegate.connect(server.url, cache=False) as client:
        result = client.sql("q")
        ended: list[BaseException] = []

        def read() -> None:
            try:
                result.to_arrow(progress=lambda progress: tried.set() if progress.cuts else None)
            except lakegate.LakegateError as error:
                ended.append(error)

        reading = threading.Thread(target=read)
        reading.start()
        assert tried.wait(30)
        result.close()
        reading.join(30)
    assert [type(error) for error in ended] == [lakegate.Cancelled]


ABORTED = flight.FlightServerError("Flight returned aborted error, with message: it has to start over")
CUT = flight.FlightUnavailableError("Flight returned unavailable error, with message: Socket closed")
EXPIRED = flight.FlightUnauthorizedError("Flight returned unauthorized error, with message: the ticket has expired")


class Chunk:
    """A batch and its label, as pyarrow's reader gives them."""

    def __init__(self, number: int):
        self.data = pa.record_batch({"n": [number]})
        self.app_metadata = pa.py_buffer(label(number + 1))


class Script:
    """A stand-in for a source: each `open` gives the next of some streams, of batch numbers and errors."""

    url = "grpc://stand-in"

    def __init__(self, *streams: list[int | Exception]):
        self._streams = [iter(stream) for stream in streams]
        self._stream: Iterator[int | Exception] = iter(())
        self.opened: list[str] = []
        self.asked_again = 0
        self.is_named = False

    def open(self, position: str) -> Script:
        self.opened.append(position.partition(":")[0])
        self._stream = self._streams.pop(0)
        return self

    def read_chunk(self) -> Chunk:
        found = next(self._stream)
        if isinstance(found, Exception):
            raise found
        return Chunk(found)

    def ask_again(self) -> None:
        self.asked_again += 1

    def cancel(self) -> None:
        """There is nothing to stop."""


def read(script: Script) -> list[int]:
    source: Any = script
    return [batch["n"][0].as_py() for batch in Download(source=source, reconnect=5).batches()]


def test_what_was_handed_out_is_not_mixed_with_other_rows() -> None:
    script = Script([0, 1, CUT], [ABORTED])
    with pytest.raises(StartOver, match="ask for the rows again"):
        read(script)
    assert script.opened == ["0", "3"]


def test_a_ticket_that_expired_is_asked_for_again() -> None:
    script = Script([0, 1, CUT], [EXPIRED], [2])
    assert read(script) == [0, 1, 2]
    assert (script.opened, script.asked_again) == (["0", "3", "3"], 1)
    with pytest.raises(lakegate.PermissionDenied):
        read(Script([0, CUT], [EXPIRED], [EXPIRED]))
    with pytest.raises(lakegate.PermissionDenied):
        read(Script([EXPIRED]))
    # While rows that were here were handed out.
    script = Script([EXPIRED], [0, 1])
    script.is_named = True
    assert read(script) == [0, 1]


def test_what_the_server_says_of_the_statement_is_final() -> None:
    for said in (
        flight.FlightCancelledError("Flight cancelled call, with message: the statement was cancelled on request"),
        flight.FlightInternalError("Flight returned internal error, with message: something went wrong"),
        flight.FlightTimedOutError("Flight returned timeout error, with message: it ran out of time"),
    ):
        script = Script([0, said], [1])
        with pytest.raises(lakegate.LakegateError):
            read(script)
        assert script.opened == ["0"]
    reset = flight.FlightInternalError("Flight returned internal error, with message: Received RST_STREAM with code 2")
    assert read(Script([0, reset], [1])) == [0, 1]


@pytest.mark.parametrize(("headers", "goes_on"), [([], True), (["kind"], False), (["kind", "retry"], True)])
def test_what_cannot_be_had_is_asked_for_again_only_if_the_server_did_not_say_why(
    headers: list[str], goes_on: bool
) -> None:
    names = {"kind": "lakegate-error-kind", "retry": "lakegate-retry"}

    class Saying(Script):
        """Says with each error what pyarrow hears of a real server's."""

        def read_chunk(self) -> Chunk:
            try:
                return super().read_chunk()
            except flight.FlightError:
                info: Any = None
                _said.Listener().start_call(info).received_headers({names[name]: ["x"] for name in headers})
                raise

    said = "Flight returned unavailable error, with message: the storage does not answer"
    script = Saying([0, flight.FlightUnavailableError(said)], [1, CUT], [2])
    if goes_on:
        assert read(script) == [0, 1, 2]
    else:
        with pytest.raises(lakegate.Unavailable, match="the storage does not answer"):
            read(script)
        assert script.opened == ["0"]


def test_the_real_server_marks_what_it_says_itself(many: Served) -> None:
    with lakegate.connect(many.url, cache=False) as client:
        _said.listen()
        with pytest.raises(lakegate.NotFound):
            client.sql("select * from t.nowhere")
        assert _said.is_final()
        _said.listen()
        client.sql("select 1")
        assert not _said.is_final()


def test_a_batch_that_comes_twice_is_an_error() -> None:
    with pytest.raises(lakegate.InternalError, match="twice"):
        read(Script([0, 1, CUT], [1, 2]))


def test_only_cuts_are_cuts() -> None:
    assert not was_cut(from_arrow(pa.ArrowInvalid("x"), url="u"))
    assert was_cut(from_arrow(CUT, url="u"))


def prepared(folder: Path) -> Served:
    """Load `t.many`: numbers that do not compress, and a few words."""
    found = Served(url="", folder=folder, program=program())
    (folder / "lakegate.toml").write_text('[lake]\nlocation = "lake"\n')
    found.table("t.many", '[source]\nfiles = "in/many/*.parquet"\nformat = "parquet"\n')
    found.file("in/many/1.parquet", rows(0, MANY))
    found.sync()
    return found


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real server over `t.many`, whose files grow."""
    found = prepared(tmp_path_factory.mktemp("many"))
    with serve(found.program, found.folder) as url:
        yield Served(url=url, folder=found.folder, program=found.program)


def rows(start: int, count: int) -> pa.Table:
    numbers = pa.array(range(start, start + count), pa.int64())
    noise = pa.compute.multiply(pa.compute.sin(pa.compute.cast(numbers, pa.float64())), 1e9)
    words = pa.array([f"word {number // 1000 % 7}" for number in range(start, start + count)])
    return pa.table({"n": numbers, "noise": noise, "word": words})


def test_the_real_server_goes_on_and_next_to_nothing_comes_twice(many: Served) -> None:
    with Breaking(many.url) as way, lakegate.connect(way.url, cache=False) as client:
        expected = client.sql("select * from t.many").to_arrow()
        whole = way.carried
        way.cut_after = whole // 2
        seen: list[Progress] = []
        found = client.sql("select * from t.many").to_arrow(progress=seen.append)
        assert (way.cuts, seen[-1].cuts >= 1) == (1, True)
        # What was in buffers when it was cut counts as sent, though it never came: some megabytes on this machine.
        assert way.carried - whole <= whole * 1.03 + (4 << 20)
    assert found.equals(expected)
    assert sorted(found["n"].to_pylist()) == list(range(MANY))


def test_a_download_goes_on_after_a_restart_of_the_real_server(tmp_path: Path) -> None:
    found = prepared(tmp_path)
    with serve(found.program, found.folder) as url, Breaking(url) as way:
        client = lakegate.connect(way.url, cache=False)
        batches = client.sql("select n, word from t.many").batches()
        arrived = [next(batches)]
    with serve(found.program, found.folder) as url, Breaking(url, port=way.port), client:
        arrived += batches
    assert sorted(pa.Table.from_batches(arrived)["n"].to_pylist()) == list(range(MANY))


def test_a_line_that_dies_without_a_word_is_noticed(many: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = [(name, 1000 if value == 20_000 else value) for name, value in _client._CONNECTING]
    monkeypatch.setattr(_client, "_CONNECTING", impatient)
    with Breaking(many.url) as way, lakegate.connect(way.url, cache=False) as client:
        way.hold_after = 2 << 20

        def carry_others() -> None:
            assert way.held.wait(60)
            way.hold_after = None

        threading.Thread(target=carry_others, daemon=True).start()
        seen: list[Progress] = []
        found = client.sql("select n from t.many").to_arrow(progress=seen.append)
        assert way.held.is_set()
        assert seen[-1].cuts >= 1
        assert len(set(found["n"].to_pylist())) == found.num_rows >= MANY


def test_rows_in_no_order_start_over_where_nothing_was_handed_out(tmp_path: Path) -> None:
    found = prepared(tmp_path)
    query = "select n, count(*) as times, min(noise) as noise from t.many group by n"
    with serve(found.program, found.folder) as url, Breaking(url) as way:
        client = lakegate.connect(way.url, cache=False)
        arriving = client.sql(query).batches()
        arrived = [next(arriving)]
        result, begun = client.sql(query), threading.Event()
        tables: list[pa.Table] = []

        def read() -> None:
            tables.append(result.to_arrow(progress=lambda _: begun.set()))

        # The first stream fills its window with what nobody reads.
        way.hold_after = way.carried + (16 << 20)
        reading = threading.Thread(target=read)
        reading.start()
        assert begun.wait(60)
    with serve(found.program, found.folder) as url, Breaking(url, port=way.port), client:
        reading.join(120)
        assert tables[0].num_rows == MANY
        with pytest.raises(lakegate.Conflict, match="ask for the rows again"):
            arrived += arriving


WAITING = """
import signal, sys, lakegate
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in what runs in the background
with lakegate.connect(sys.argv[1], cache=False) as client:
    try:
        for _ in client.sql(sys.argv[2]).batches():
            print("rows", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_frees_the_real_server_at_once(many: Served) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(lakegate.__file__).resolve().parents[1])}
    query = "select a.n, b.noise from t.many a cross join t.many b"
    command = [sys.executable, "-c", WAITING, many.url, query]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "rows\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert out.splitlines()[-1] == "interrupted"
    # Its own text is not like that.
    running = "select count(*) from system.queries where status = 'running' and text like '%cross ' || 'join%'"
    patience = time.monotonic() + 1.5  # a client that only goes away is waited for longer
    with lakegate.connect(many.url, cache=False) as client:
        while list(client.sql(running)) != [(0,)]:
            assert time.monotonic() < patience


def test_an_unchanged_result_is_not_sent_and_a_grown_one_in_part(many: Served, tmp_path: Path) -> None:
    query = "select * from t.many"
    with Breaking(many.url) as way, lakegate.connect(way.url, cache=tmp_path) as client:
        before = client.sql(query).to_arrow()
        whole, schema = way.carried, len(before.schema.serialize())
        assert client.sql(query).to_arrow().equals(before)
        assert way.carried - whole <= schema + 4096
        many.file("in/many/2.parquet", rows(before.num_rows, MANY // 100))
        run(many.program, many.folder, "sync", "t.many")
        mark = way.carried
        grown = client.sql(query).to_arrow()
        assert way.carried - mark <= whole * 0.02
        assert sorted(grown["n"].to_pylist()) == list(range(MANY + MANY // 100))
        assert grown.slice(0, before.num_rows).equals(before)
        mark = way.carried
        assert client.sql(query).to_arrow().equals(grown)
        assert way.carried - mark <= schema + 4096
        assert len(client.cache.entries()) == 2
        assert client.cache.size() < before.nbytes * 1.2


def test_the_real_server_tells_the_size_before(many: Served) -> None:
    with lakegate.connect(many.url, cache=False, confirm_above="1MB") as client:
        estimate = client.estimate("select * from t.many")
        assert estimate.rows_exact
        assert estimate.rows is not None
        assert estimate.rows >= MANY
        assert estimate.wire_bytes is not None
        assert {column.column for column in estimate.heaviest} <= {"n", "noise", "word"}
        with pytest.raises(lakegate.TooLarge, match=r"noise \("):
            client.sql("select * from t.many").to_arrow()
        assert client.sql("select * from t.many", confirm=lambda _: True).to_arrow().num_rows == estimate.rows


def test_pauses_are_short_first_and_bounded() -> None:
    assert _download.FIRST_PAUSE < 1 < _download.LONGEST_PAUSE <= 10
