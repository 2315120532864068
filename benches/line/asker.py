"""A client's process: connects once, then pulls what each line of standard input says, and answers with what it took.

`asker.py KIND ADDRESS` where the kind is `flight` (pyarrow's client, Flight SQL), `lakegate` (our client; with
`--cache FOLDER` where it has one), `files` (whole Parquet files over HTTP, then DuckDB), `pymssql` or `connectorx`.

A line is JSON: `sql`, a statement or several that are asked in turn; `headers`; `times` to ask so often; `until`,
seconds after which it stops, asking again where an answer ends before; `first` to stop at the first rows; `timeline` to
tell when how much had come; `timeout`, seconds one call may take; `pandas` to make a DataFrame; `describe` to ask what
there would be, and pull nothing.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Longest one answer may take, so that a peer that hangs is known for it.
TIMEOUT_SECONDS = 120
SQL = "type.googleapis.com/arrow.flight.protocol.sql."


@dataclass
class Pull:
    """What pulling took: rows, plain bytes of Arrow, seconds to the first rows and to the end, of the processor too."""

    rows: int = 0
    raw_bytes: int = 0
    seconds: float = 0.0
    first_seconds: float | None = None
    cpu_seconds: float = 0.0
    pandas_seconds: float | None = None
    schema_bytes: int = 0
    #: The seconds of each time it was asked.
    each: list[float] = field(default_factory=list)
    #: Moments of the machine's monotonic clock, and the plain bytes that had come by then.
    timeline: list[tuple[float, int]] = field(default_factory=list)
    #: What the server told of the result beforehand.
    metadata: str | None = None
    error: str | None = None


class Flight:
    """pyarrow's own client, which asks for nothing unless headers do."""

    def __init__(self, address: str, _: argparse.Namespace):
        self._client = flight.connect(f"grpc://{address}")

    def info(self, sql: str, asked: dict[str, Any]) -> tuple[flight.FlightInfo, flight.FlightCallOptions]:
        """Return the description of a result, and how it is asked for."""
        headers = [(k.encode(), v.encode()) for k, v in asked.get("headers", {}).items()]
        options = flight.FlightCallOptions(timeout=asked.get("timeout", TIMEOUT_SECONDS), headers=headers)
        return self._client.get_flight_info(flight.FlightDescriptor.for_command(command(sql)), options), options

    def batches(self, sql: str, asked: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """Ask, and give what comes."""
        info, options = self.info(sql, asked)
        for endpoint in info.endpoints:
            reader = self._client.do_get(endpoint.ticket, options)
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)
            try:
                for chunk in reader:
                    if chunk.data is not None:
                        yield chunk.data
            finally:
                reader.cancel()


class Own:
    """Lakegate's client for Python."""

    def __init__(self, address: str, given: argparse.Namespace):
        import lakegate

        known = inspect.signature(lakegate.connect).parameters
        terms: dict[str, Any] = {"cache": str(given.cache) if given.cache else False} if "cache" in known else {}
        if given.header:
            terms["headers"] = dict(header.split("=", 1) for header in given.header)
        self._client = lakegate.connect(f"grpc://{address}", timeout=TIMEOUT_SECONDS, allow_plaintext=True, **terms)

    def batches(self, sql: str, asked: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """Ask, and give what comes."""
        if asked.get("headers"):
            raise ValueError("our client sends the headers it is made with")
        result = self._client.sql(sql)
        yield pa.RecordBatch.from_pylist([], schema=result.schema)
        yield from result.batches()


class Files:
    """What a client of Delta Sharing does: whole files, and then the statement over them, here by DuckDB."""

    def __init__(self, address: str, _: argparse.Namespace):
        self._address = address

    def batches(self, sql: str, _: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """Fetch the files of the tables that are named `files:<table>`, and ask DuckDB."""
        import duckdb

        with tempfile.TemporaryDirectory() as folder:
            for table in set(re.findall(r"files:(\w+)", sql)):
                for number, name in enumerate(self._read(f"{table}/files.txt").decode().split()):
                    (Path(folder) / f"{table}-{number}.parquet").write_bytes(self._read(f"{table}/{name}"))
            asked = re.sub(r"files:(\w+)", rf"read_parquet('{folder}/\1-*.parquet')", sql)
            with duckdb.connect() as database:
                yield from database.sql(asked).to_arrow_reader(65_536)

    def _read(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self._address}/{path}") as answer:
            return bytes(answer.read())


class Database:
    """A pull straight from the database."""

    def __init__(self, address: str, given: argparse.Namespace):
        self._host, self._port = address.rsplit(":", 1)
        self._kind, self._password = given.kind, given.password

    def batches(self, sql: str, _: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """Ask, and give all of it as one table."""
        if self._kind == "connectorx":
            import connectorx

            url = (
                f"mssql://sa:{self._password}@{self._host}:{self._port}/ops?encrypt=true&trust_server_certificate=true"
            )
            yield from connectorx.read_sql(url, sql, return_type="arrow").to_batches()
            return
        import pymssql

        with (
            pymssql.connect(
                server=self._host, port=self._port, user="sa", password=self._password, database="ops"
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            names = [column[0] for column in cursor.description]
            while rows := cursor.fetchmany(65_536):
                columns = [pa.array(column) for column in zip(*rows, strict=True)]
                yield pa.RecordBatch.from_arrays(columns, names=names)


KINDS = {"flight": Flight, "lakegate": Own, "files": Files, "pymssql": Database, "connectorx": Database}


def command(sql: str) -> bytes:
    """Return Flight SQL's command for a statement."""
    return part(1, f"{SQL}CommandStatementQuery".encode()) + part(2, part(1, sql.encode()))


def part(number: int, value: bytes) -> bytes:
    """Return a field of bytes in protobuf's wire format."""
    size, length = len(value), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


def pull(client: Any, asked: dict[str, Any]) -> Pull:
    """Pull as a line says."""
    if asked.get("describe"):
        return Pull(metadata=client.info(asked["sql"], asked)[0].app_metadata.decode())
    taken = Pull()
    kept: list[pa.RecordBatch] = []
    statements = asked["sql"] if isinstance(asked["sql"], list) else [asked["sql"]]
    started, cpu = time.perf_counter(), time.process_time()
    until = asked.get("until")
    goes_on = True
    while goes_on:
        began = time.perf_counter()
        for batch in client.batches(statements[len(taken.each) % len(statements)], asked):
            note(taken, batch, time.perf_counter() - started, asked)
            if asked.get("pandas"):
                kept.append(batch)
            if until is not None and time.perf_counter() - started >= until:
                break
            if asked.get("first") and taken.rows:
                break
        taken.each.append(time.perf_counter() - began)
        times_left = len(taken.each) < asked.get("times", len(statements))
        goes_on = times_left if until is None else time.perf_counter() - started < until
    taken.seconds = time.perf_counter() - started
    if asked.get("pandas"):
        pa.Table.from_batches(kept).to_pandas()
        taken.pandas_seconds = time.perf_counter() - started
    taken.cpu_seconds = time.process_time() - cpu
    return taken


def note(taken: Pull, batch: pa.RecordBatch, now: float, asked: dict[str, Any]) -> None:
    """Count a batch that came `now` seconds after the start."""
    taken.schema_bytes = taken.schema_bytes or batch.schema.serialize().size
    taken.rows += batch.num_rows
    taken.raw_bytes += batch.nbytes
    if batch.num_rows and taken.first_seconds is None:
        taken.first_seconds = now
    if batch.num_rows and asked.get("timeline"):
        taken.timeline.append((time.monotonic(), taken.raw_bytes))


def main() -> None:
    """Answer line after line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("kind", choices=KINDS)
    arguments.add_argument("address")
    arguments.add_argument("--cache", type=Path)
    arguments.add_argument("--header", action="append", default=[], help="NAME=VALUE that our client sends")
    arguments.add_argument("--password")
    given = arguments.parse_args()
    client = KINDS[given.kind](given.address, given)
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            taken = pull(client, json.loads(line))
        except Exception as problem:  # noqa: BLE001, RUF100 whatever it is, it is an answer
            taken = Pull(error=f"{type(problem).__name__}: {problem}"[:500])
        print(json.dumps(asdict(taken)), flush=True)


if __name__ == "__main__":
    main()
