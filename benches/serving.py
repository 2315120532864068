"""Small statements, one row by key, lists of tables, and idle sessions: what serving costs beside the work itself.

ROAPI answers the same statement over the same protocol, asked by the same client (`serving.rs`). Both have the same two
cores, which the client shares.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.flight as flight

from measure import MIB, definition, print_table, settings, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent
ROWS = 1_000_000
IDLE_SESSIONS = 200


def run(target: Path, folder: Path, *, runs: int = 3, seconds: int = 5, tables: tuple[int, int] = (20, 2_000)) -> None:
    """Measure and print; `target` is the folder of the built program, named like its profile."""
    home = folder / "serving"
    shutil.rmtree(home, ignore_errors=True)
    lake(home, target, 1)
    client = [str(bench(target))]
    with served(target, home) as url:
        rates(home, client, url, runs, seconds)
        idle(url, int((home / "pid").read_text(encoding="utf-8")))
    costs(home, client)
    walks(target, folder, client, tables)


def bench(target: Path) -> Path:
    """Build the client and return it."""
    command = ["cargo", "bench", "--locked", "--no-run", "--profile", target.name, "--bench", "serving"]
    told = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stderr
    return Path(told.rsplit("(", 1)[1].split(")")[0])


def lake(home: Path, target: Path, tables: int) -> None:
    """Make a lake of so many small tables, and one of many rows with a key."""
    settings(home)
    (home / "in").mkdir()
    lines = "".join(f"{number},row {number}\n" for number in range(ROWS if tables == 1 else 10))
    (home / "in" / "t.csv").write_text("id,text\n" + lines, encoding="utf-8")
    settled(home / "in" / "t.csv")
    for number in range(tables):
        text = '[source]\nfiles = "in/t.csv"\n[load]\nmode = "upsert"\n[table]\nkey = ["id"]\n'
        text += '[[columns]]\nname = "id"\ntype = "bigint"\n[[columns]]\nname = "text"\ntype = "string"\n'
        definition(home, f"s/t{number}", text)
    subprocess.run([str(target / "lakegate"), "sync"], cwd=home, check=True, capture_output=True)


@contextlib.contextmanager
def served(target: Path, home: Path) -> Iterator[str]:
    """Serve a lake for the length of the block; gives the address."""
    command = [str(target / "lakegate"), "serve", "--flight", "127.0.0.1:0", "--no-loads", "--ready-file", "ready"]
    with subprocess.Popen(command, cwd=home, stderr=subprocess.DEVNULL) as server:
        try:
            while not (home / "ready").exists():
                time.sleep(0.05)
            (home / "pid").write_text(str(server.pid), encoding="utf-8")
            yield (home / "ready").read_text(encoding="utf-8").strip().replace("grpc://", "http://")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


@contextlib.contextmanager
def roapi(home: Path) -> Iterator[str]:
    """Serve one small file with ROAPI for the length of the block; gives the address of its Flight SQL service."""
    ports = []
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    (home / "one.csv").write_text("id\n1\n", encoding="utf-8")
    command = [str(Path(sys.executable).with_name("roapi")), "--table", "one=one.csv"]
    for name, port in zip(("http", "postgres", "flight-sql"), ports, strict=True):
        command += [f"--addr-{name}", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[2])):
                    break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{ports[2]}"
        finally:
            server.terminate()
            server.wait()


def rates(home: Path, client: list[str], url: str, runs: int, seconds: int) -> None:
    """Compare `select 1` through a prepared statement with ROAPI, in turn."""
    rows = []
    with roapi(home) as rival:
        for connections in (1, 16):
            taken: list[list[float]] = [[], []]
            for _ in range(runs):
                for side, of_side in zip((url, rival), taken, strict=True):
                    command = [*client, "rate", "--url", side, "--sql", "select 1", "--seconds", str(seconds)]
                    command += ["--connections", str(connections)]
                    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    of_side.append(float(told))
            ours, theirs = (sorted(of_side)[runs // 2] for of_side in taken)
            rows.append([str(connections), f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}"])
    head = ["connections", "lakegate, statements/s", "ROAPI", "times ROAPI's"]
    print_table(f"`select 1`, prepared once, median of {runs} runs of {seconds} s", head, rows)


def costs(home: Path, client: list[str]) -> None:
    """Compare one row by key over Flight with the same plan in process and a bare call."""
    rows = []
    for name, sql in (("select 1", "select 1"), ("one row by key", "select * from s.t0 where id = 500000")):
        command = [*client, "cost", "--folder", str(home), "--sql", sql]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        over_flight, inside, bare = (int(word) for word in told.split())
        rows.append([name, str(over_flight), str(inside), str(bare), f"{over_flight / (inside + bare):.2f}"])
    head = ["statement", "over Flight, us", "in process, us", "bare call, us", "over Flight / (both)"]
    print_table("One prepared statement, medians", head, rows)


def walks(target: Path, folder: Path, client: list[str], counts: tuple[int, int]) -> None:
    """Compare listing many tables with listing few, when none has changed."""
    rows = []
    for count in counts:
        home = folder / f"walk-{count}"
        shutil.rmtree(home, ignore_errors=True)
        lake(home, target, count)
        with served(target, home) as url:
            pid = int((home / "pid").read_text(encoding="utf-8"))
            subprocess.run([*client, "walk", "--url", url, "--times", "1"], check=True, capture_output=True)
            before = read_bytes(pid)
            told = subprocess.run(
                [*client, "walk", "--url", url, "--times", "5"], check=True, capture_output=True, text=True
            ).stdout
            read = read_bytes(pid) - before
        tables, micros = (int(word) for word in told.split())
        rows.append([f"{tables:,}", f"{micros / 1000:.1f}", f"{micros / tables:.0f}", f"{read / tables / 6:.0f}"])
        shutil.rmtree(home, ignore_errors=True)
    head = ["tables", "ms", "us a table", "bytes read a table"]
    print_table("All tables with their columns, none of them changed, median of 5", head, rows)


def read_bytes(pid: int) -> int:
    """Return how many bytes a process has read by now, from files and sockets."""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="utf-8").splitlines()
    return int(lines[0].removeprefix("rchar: "))


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def idle(url: str, pid: int) -> None:
    """Open sessions that do nothing any more, and see what they cost."""
    address = url.replace("http://", "grpc://")
    before = resident(pid)
    clients = []
    for _ in range(IDLE_SESSIONS):
        client = flight.connect(address)
        client.do_get(flight.Ticket(b"select 1")).read_all()
        clients.append(client)
    after = resident(pid)
    rows = [[str(IDLE_SESSIONS), f"{before / MIB:.0f}", f"{after / MIB:.0f}", f"{(after - before) / MIB:.1f}"]]
    print_table("Idle sessions, each on a connection of its own", ["sessions", "MiB before", "MiB", "MiB more"], rows)
    for client in clients:
        client.close()
