"""Pulls against pulls: all contenders, all statements, all links, in turn; and rows straight from a database."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

import asker
import budget
import datasets
import peers
import report
import sizes
from links import Link, way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from links import Loopback, Namespaces, Way

#: How far a sample's rows may be from another's, as each draws its own.
SAMPLE_SPREAD = 0.2
#: What is asked first over a connection, so that the pulls that count find it warm, and how long that may take.
WARMING, WARM_SECONDS = "select * from {lineitem} where l_orderkey = 1", 30.0


class Served:
    """A server, which is started anew where it does not come to rest."""

    def __init__(self, serve: Callable[[], AbstractContextManager[peers.Peer]]):
        self._serve = serve
        self._stack = contextlib.ExitStack()
        self.peer = self._stack.enter_context(serve())

    def again(self) -> None:
        """Start it anew; its address is another one then."""
        self._stack.close()
        self.peer = self._stack.enter_context(self._serve())

    def close(self) -> None:
        """End it."""
        self._stack.close()


@dataclass(frozen=True)
class Contender:
    """Who pulls from whom, and what it asks for."""

    name: str
    served: Served
    kind: str
    headers: dict[str, str]

    @property
    def peer(self) -> peers.Peer:
        """Return the server as it runs now, and how it is asked."""
        return dataclasses.replace(self.served.peer, name=self.name, kind=self.kind, headers=self.headers)


class Seat:
    """A contender at a link: its way and its client's process, which are made anew after a failure."""

    def __init__(self, where: Namespaces | Loopback, link: Link, contender: Contender):
        self.contender = contender
        self._where, self._link = where, link
        # What lakegate does by itself for clients on its own machine and in networks that are called fast.
        self._fast = {"lakegate-codec": "none"} if not link.bits and contender.name.startswith("lakegate") else {}
        self._stack = contextlib.ExitStack()
        self._address = ""
        self._open()

    def pull(self, name: str, text: str, patience: float) -> dict:
        """Pull once, and return what it took on both sides and on the wire; an error has no figures."""
        peer = self.contender.peer
        if peer.address != self._address:
            self.close()
            self._open()
        sent, cpu = self._way.sent(), 0.0
        asked = {"headers": self._headers(peer), "pandas": name == "frames", "timeout": patience}
        try:
            cpu = peers.processor_seconds(peer.pid)
            taken = self._asker.pull(peer.asks(name, text), patience=patience + 5, **asked)
        except OSError as problem:
            taken = dataclasses.asdict(asker.Pull(error=str(problem)))
        taken |= {"peer": peer.name, "statement": name, "wire_bytes": self._way.sent() - sent}
        taken |= {"server_cpu_seconds": 0.0, "server_peak_bytes": 0}
        with contextlib.suppress(FileNotFoundError):  # a server that is gone is started anew by `recover`
            taken["server_cpu_seconds"] = peers.processor_seconds(peer.pid) - cpu
            taken["server_peak_bytes"] = peers.memory(peer.pid, "VmHWM")
        return taken

    def _headers(self, peer: peers.Peer) -> dict[str, str]:
        """Return the headers of a call; our own client sends those it was made with."""
        return {**peer.headers, **self._fast} if peer.kind == "flight" else peer.headers

    def recover(self) -> str:
        """End the client and wait until its server and the line rest, else start the server anew; says which."""
        self.close()
        said = ""
        if not peers.at_rest(self._where, self.contender.peer.pid):
            said = "; it did not come to rest, and was started anew"
            try:
                self.contender.served.again()
            except OSError as problem:
                said = f"; it did not start again: {str(problem).strip()[-100:]}"
        self._open()
        return said

    def close(self) -> None:
        """End the client and its way."""
        self._stack.close()

    def _open(self) -> None:
        peer = self.contender.peer
        self._address = peer.address
        self._way: Way = self._stack.enter_context(way(self._where, self._link, peer.address))
        own = self._fast if peer.kind == "lakegate" else {}
        self._asker = self._stack.enter_context(peers.Asker(self._where, peer.kind, self._way.address, headers=own))
        if peer.kind in ("flight", "lakegate"):  # the others connect for each pull
            with contextlib.suppress(OSError):  # a server that does not answer is told of by the pull that counts
                asked = {"headers": self._headers(peer), "timeout": WARM_SECONDS}
                self._asker.pull(peer.asks("", WARMING), patience=WARM_SECONDS, **asked)


@contextlib.contextmanager
def running(
    where: Namespaces | Loopback, lake: peers.Lake, wanted: tuple[str, ...], absent: dict[str, str]
) -> Iterator[list[Contender]]:
    """Serve the lake by lakegate and by the peers that are wanted; why one cannot goes into `absent`."""
    with contextlib.ExitStack() as stack:
        served = Served(lambda: peers.lakegate(where, lake))
        stack.callback(served.close)
        asking = {**where.headers, "lakegate-dictionaries": "on"}
        plain, own = budget.WORDED
        found = [
            Contender(budget.STOCK, served, "flight", where.headers),
            Contender(plain, served, "flight", asking),
            Contender(own, served, "lakegate", {}),
        ]
        for word in wanted:
            serve = peers.PEERS[word]
            try:
                other = Served(lambda serve=serve: serve(where, lake))
            except OSError as problem:
                absent[word] = (str(problem).strip().splitlines() or ["did not start"])[-1][:200]
                continue
            stack.callback(other.close)
            found.append(Contender(other.peer.name, other, other.peer.kind, {}))
        yield found


class Theory:
    """The sizes of results, each measured once, and kept in a file."""

    def __init__(self, lake: peers.Lake, scale: float):
        self._lake = lake
        self._path = lake.home.parent / f"sizes-{scale:g}.json"
        self._known = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}

    def sizes(self, name: str, text: str) -> sizes.Sizes:
        """Return the sizes of a statement's result."""
        if text not in self._known:
            tables = {table: f"'{self._lake.files / table}/*.parquet'" for table in datasets.TABLES}
            asked = (datasets.SAMPLES["duckdb"] if name == "sample" else text).format(**tables)
            with duckdb.connect() as database:
                found = sizes.sizes(database.sql(asked).to_arrow_reader(sizes.ROWS))
            self._known[text] = dataclasses.asdict(found)
            self._path.write_text(json.dumps(self._known, indent=1), encoding="utf-8")
        return sizes.Sizes(**self._known[text])

    def files_bytes(self, text: str) -> int:
        """Return the bytes of the files of all tables that a statement reads."""
        named = [self._lake.files / table for table in budget.tables(text)]
        return sum(path.stat().st_size for folder in named for path in folder.glob("*.parquet"))


@dataclass(frozen=True)
class Wanted:
    """Which pulls are made."""

    links: tuple[Link, ...]
    statements: tuple[str, ...]
    peers: tuple[str, ...]
    runs: int
    scale: float

    def texts(self, link: Link) -> dict[str, str]:
        """Return the statements that are pulled through a link."""
        texts = datasets.statements(link.bits, self.scale)
        return {name: texts[name] for name in self.statements}


def planned(wanted: Wanted, theory: Theory, others: list[str]) -> dict[str, float]:
    """Return about how many seconds each link takes; `others` are the names of all contenders."""
    plan = {}
    for link in wanted.links:
        texts = wanted.texts(link)
        found = {name: theory.sizes(name, text) for name, text in texts.items()}
        files = {name: theory.files_bytes(text) for name, text in texts.items()}
        plan[link.name] = budget.matrix_seconds(link, found, files, others, wanted.runs)
    return plan


def measure(
    where: Namespaces | Loopback, lake: peers.Lake, wanted: Wanted, theory: Theory, absent: dict[str, str]
) -> list[dict]:
    """Let all contenders pull all statements through all links, in turn; returns a record of each pull."""
    records: list[dict] = []
    copied = sizes.copied_bytes_per_second()
    hopeless: dict[tuple[str, str], str] = {}
    with running(where, lake, wanted.peers, absent) as found:
        plan = planned(wanted, theory, [contender.name for contender in found])
        print(f"pulls: about {sum(plan.values()) / 60:.0f} minutes", flush=True)
        for link in wanted.links:
            print(f" {link.name}: about {plan[link.name] / 60:.0f} minutes", flush=True)
            where.shape(link)
            with contextlib.ExitStack() as stack:
                seats = [Seat(where, link, contender) for contender in found]
                for seat in seats:
                    stack.callback(seat.close)
                for name, text in wanted.texts(link).items():
                    one = Statement(link, name, text, theory.sizes(name, text), theory.files_bytes(text))
                    for record in one.pulled(seats, wanted.runs, absent, hopeless):
                        size = one.size
                        cpu = record["cpu_seconds"] + record["server_cpu_seconds"]
                        best = size.plain if record["peer"] == budget.STOCK else size.stock
                        record["limit"] = sizes.limit(link, best, size.raw, cpu, copied)
                        record |= {"sizes": dataclasses.asdict(size), "around": where.around}
                        records.append(record)
                    report.progress(link.name, name, records)
    return records


@dataclass(frozen=True)
class Statement:
    """One statement at one link."""

    link: Link
    name: str
    text: str
    size: sizes.Sizes
    files_bytes: int

    def pulled(
        self, seats: list[Seat], runs: int, absent: dict[str, str], hopeless: dict[tuple[str, str], str]
    ) -> Iterator[dict]:
        """Let all pull in turn; whoever failed once is not asked again, and the line rests before the next."""
        for run in range(runs):
            for seat in seats:
                peer = seat.contender.name
                if run >= budget.runs(peer, self.link, self.name, runs) or (peer, self.name) in hopeless:
                    continue
                if peer == budget.FILES and (why := budget.too_long(self.link, self.files_bytes)):
                    absent[f"{peer}, {self.name}, {self.link.name}"] = why
                    continue
                patience = budget.patience(self.link, self.size, self.files_bytes)
                taken = seat.pull(self.name, self.text, patience)
                if taken["error"] and "TimedOut" in taken["error"]:
                    taken["error"] = f"no whole answer within {patience:.0f} s"
                taken |= {
                    "link": self.link.name,
                    "bits": self.link.bits,
                    "round_trip": self.link.round_trip,
                    "run": run,
                }
                taken["error"] = taken["error"] or self.wrong(taken)
                if taken["error"]:
                    taken["error"] += f" ({taken['wire_bytes'] / 1e6:,.1f} MB had come){seat.recover()}"
                    hopeless[peer, self.name] = taken["error"]
                    print(f"  {self.link.name}, {self.name}, {peer} failed: {taken['error'][:160]}", flush=True)
                yield taken

    def wrong(self, taken: dict) -> str | None:
        """Return what is wrong with the rows that came, so that no other answer is compared with the right one."""
        rows, right = taken["rows"], self.size.rows
        close = abs(rows - right) <= SAMPLE_SPREAD * right if self.name == "sample" else rows == right
        return None if close else f"{rows:,} rows instead of {right:,}"


def database(
    where: Namespaces | Loopback, lake: peers.Lake, link: Link, runs: int, absent: dict[str, str]
) -> list[dict]:
    """Pull the same rows from the database and from lakegate, in turn."""
    where.shape(link)
    records = []
    with contextlib.ExitStack() as stack:
        served = Served(lambda: peers.lakegate(where, lake))
        stack.callback(served.close)
        try:
            base = Served(lambda: peers.database(where, lake))
        except OSError as problem:
            absent["a pull from the database"] = str(problem)[-200:]
            return []
        stack.callback(base.close)
        found = [
            Contender(budget.STOCK, served, "flight", where.headers),
            Contender(budget.WORDED[1], served, "lakegate", {}),
        ]
        for name in ("pymssql", "connectorx"):
            if peers.importable(name):
                found.append(Contender(f"{name}, from the database", base, name, {}))
            else:
                absent[name] = "not installed"
        seats = [Seat(where, link, contender) for contender in found]
        for seat in seats:
            stack.callback(seat.close)
        for _ in range(runs):
            for seat in seats:
                taken = seat.pull("pulled", "select * from {pulled}", asker.TIMEOUT_SECONDS)
                if taken["error"]:
                    taken["error"] += seat.recover()
                records.append(taken | {"link": link.name})
    return records
