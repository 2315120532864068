"""Results on the local disk, against a stand-in that says whether they are the same (tests/standin.py)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lakegate
from lakegate import _cache
from lakegate._rows_file import RowsFileWriter, sweep
from standin import IDENTITY, Standin, numbered, told

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[Standin]:
    with Standin(numbered(3000), told=told()) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def files(folder: Path) -> list[Path]:
    """Return the files with rows."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".known")


def numbers(result: lakegate.Result) -> list[int]:
    return result.to_arrow()["n"].to_pylist()  # type: ignore[no-any-return]


def test_what_has_not_changed_is_not_sent_again(server: Standin, folder: Path) -> None:
    for _ in range(2):  # also not to another connection
        with lakegate.connect(server.url, cache=folder) as client:
            assert numbers(client.sql("select 1")) == list(range(3000))
            assert [row[0] for row in client.sql("select 1")] == list(range(3000))
    assert server.downloads == 1
    server.told = told("cd" * 32)
    with lakegate.connect(server.url, cache=folder) as client:
        numbers(client.sql("select 1"))
        assert server.downloads == 2
        assert [entry.identity for entry in client.cache.entries()] == ["cd" * 32, IDENTITY]


def test_kept_rows_are_the_same_rows_with_the_same_types(server: Standin, folder: Path) -> None:
    with lakegate.connect(server.url, cache=folder) as client:
        first = client.sql("q").to_arrow()
        again = client.sql("q").to_arrow()
        assert again.equals(first) and again.schema.equals(client.sql("q").schema)
        frame = client.sql("q").to_pandas(categories=True)
        assert str(frame["word"].dtype) == "category"
        assert frame["word"].astype(object).where(frame["word"].notna(), None).tolist() == first["word"].to_pylist()
    assert server.downloads == 1


def test_fresh_asks_the_server(server: Standin, folder: Path) -> None:
    with lakegate.connect(server.url, cache=folder) as client:
        numbers(client.sql("q"))
        numbers(client.sql("q", fresh=True))
        assert server.downloads == 2
        numbers(client.sql("q"))
        assert (server.downloads, len(client.cache.entries())) == (2, 1)


@pytest.mark.parametrize(
    "said",
    [
        None,
        b"no JSON",
        b"[1]",
        {"lakegate": 2, "identity": IDENTITY},
        {"lakegate": 1},
        {"lakegate": 1, "identity": 7},
        {"lakegate": 1, "identity": "../../" + "a" * 20},
        {"lakegate": 1, "identity": "AB" * 32},
    ],
)
def test_nothing_is_kept_of_what_has_no_identity(server: Standin, folder: Path, said: object) -> None:
    server.told = said
    with lakegate.connect(server.url, cache=folder) as client:
        assert [numbers(client.sql("q"))[-1] for _ in range(2)] == [2999, 2999]
    assert server.downloads == 2
    assert files(folder.parent) == []


def test_nothing_is_kept_where_nobody_wants_it(server: Standin, folder: Path) -> None:
    for options in ({"cache": False}, {"cache": folder, "cache_size": 0}):
        with lakegate.connect(server.url, **options) as client:  # type: ignore[arg-type]
            numbers(client.sql("q"))
            assert (client.cache.folder, client.cache.size(), client.cache.entries()) == (None, 0, [])
            client.cache.clear()
    assert files(folder.parent) == []


@pytest.mark.parametrize("damage", ["bit", "cut", "longer", "empty"])
def test_a_damaged_file_is_thrown_away_and_fetched_again(server: Standin, folder: Path, damage: str) -> None:
    with lakegate.connect(server.url, cache=folder) as client:
        numbers(client.sql("q"))
        (path,) = files(folder)
        content = bytearray(path.read_bytes())
        if damage == "bit":
            content[len(content) // 2] ^= 1
        path.write_bytes({"cut": content[:-1], "longer": content + b"x", "empty": b""}.get(damage, content))
        assert numbers(client.sql("q")) == list(range(3000))
        assert server.downloads == 2
        assert numbers(client.sql("q")) == list(range(3000))
    assert server.downloads == 2


def test_rows_of_other_types_are_not_taken(server: Standin, folder: Path) -> None:
    with lakegate.connect(server.url, cache=folder) as client:
        numbers(client.sql("q"))
        server.batches = [batch.rename_columns(["n", "other"]) for batch in server.batches]
        assert client.sql("q").to_arrow().column_names == ["n", "other"]
    assert server.downloads == 2


def test_a_download_that_ends_early_leaves_nothing(server: Standin, folder: Path) -> None:
    server.fail_before = 2
    with lakegate.connect(server.url, cache=folder) as client:
        with pytest.raises(lakegate.LakegateError, match="ends here"):
            client.sql("q").to_arrow()
        assert files(folder) == []
        server.fail_before = None
        for _ in client.sql("q").batches():
            break
        assert files(folder) == []


def test_what_was_not_used_for_longest_goes_first(server: Standin, folder: Path) -> None:
    def ask(identity: str, size: int) -> list[str]:
        server.told = told(identity)
        with lakegate.connect(server.url, cache=folder, cache_size=size) as client:
            numbers(client.sql("q"))
            return [entry.identity for entry in client.cache.entries()]

    first, second, third = ("11" * 16, "22" * 16, "33" * 16)
    ask(first, 10**9)
    (path,) = files(folder)
    room = 2 * path.stat().st_size + 100
    ask(second, room)
    assert server.downloads == 2
    ask(first, room)  # used again, so the second goes
    assert server.downloads == 2
    assert ask(third, room) == [third, first]
    assert server.downloads == 3
    assert ask("44" * 16, path.stat().st_size - 1) == [third, first], "what is too large for the whole is not kept"
    assert len(files(folder)) == 2


def test_each_person_and_server_has_results_of_its_own(server: Standin, folder: Path) -> None:
    for token in ("a", "b"):
        with lakegate.connect(server.url, token=token, cache=folder) as client:
            numbers(client.sql("q"))
            assert len(client.cache.entries()) == 1
    assert server.downloads == 2
    with lakegate.connect(server.url, token="a", cache=folder) as client:  # noqa: S106
        client.cache.clear()
        assert client.cache.size() == 0
    assert len(files(folder)) == 1
    assert not [path for path in folder.rglob("*") if "127.0.0.1" in path.name]


def test_a_renewed_token_of_an_identity_provider_is_the_same_person() -> None:
    def named(claims: str) -> str:
        import base64

        body = base64.urlsafe_b64encode(claims.encode()).decode().rstrip("=")
        return _cache.owner("u", user=None, token=f"h.{body}.s", certificate=None, headers=[])

    ann = named('{"iss": "i", "sub": "ann", "exp": 1}')
    assert ann == named('{"iss": "i", "sub": "ann", "exp": 2}')
    assert ann != named('{"iss": "i", "sub": "bob", "exp": 1}')


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file modes")
def test_others_on_the_machine_cannot_read_it(server: Standin, folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with lakegate.connect(server.url, cache=folder) as client:
        numbers(client.sql("q"))
        assert client.cache.folder is not None
        for path, mode in ((folder, 0o755), (client.cache.folder, 0o700), (files(folder)[0], 0o600)):
            assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_folder_that_cannot_be_written_only_keeps_nothing(server: Standin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with lakegate.connect(server.url, cache=tmp_path / "file" / "cache") as client:
        assert numbers(client.sql("q")) == list(range(3000))
        assert client.cache.entries() == []


def test_many_at_once_do_not_disturb_one_another(server: Standin, folder: Path) -> None:
    script = (
        "import sys, lakegate\n"
        "with lakegate.connect(sys.argv[1], cache=sys.argv[2]) as client:\n"
        "    for _ in range(5):\n"
        "        assert client.sql('q', fresh=True).to_arrow().num_rows == 3000\n"
        "        assert client.sql('q').to_arrow().num_rows == 3000\n"
    )
    source = str(Path(lakegate.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, "-c", script, server.url, str(folder)]
    running = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    with lakegate.connect(server.url, cache=folder) as client:
        assert len(client.cache.entries()) == len(files(folder)) == 1


def test_threads_share_one_cache(server: Standin, folder: Path) -> None:
    answers: list[int] = []
    with lakegate.connect(server.url, cache=folder) as client:
        threads = [
            threading.Thread(target=lambda: answers.append(client.sql("q").to_arrow().num_rows)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [3000] * 8


def test_clearing_does_not_disturb_who_reads(server: Standin, folder: Path) -> None:
    with lakegate.connect(server.url, cache=folder) as client:
        numbers(client.sql("q"))
        reading = client.sql("q").batches()
        next(reading)
        client.cache.clear()
        assert sum(batch.num_rows for batch in reading) == 2000


def test_what_dead_processes_left_is_swept(tmp_path: Path) -> None:
    left = RowsFileWriter(tmp_path, numbered(1)[0].schema.remove(1))
    sweep(tmp_path, alive=lambda process: process == os.getpid())
    assert files(tmp_path) == [left.path]
    sweep(tmp_path, alive=lambda _: False)
    assert files(tmp_path) == []
    left.discard()


def test_the_default_folder_is_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cache.default_folder() == tmp_path / "lakegate"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert _cache.default_folder() == Path.home() / ".cache/lakegate"
