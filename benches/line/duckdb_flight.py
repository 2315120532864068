"""DuckDB behind pyarrow's Flight server, as one would put it there in an afternoon.

`duckdb_flight.py HOST FOLDER` serves each folder in it as a table, and takes Flight SQL's command for a statement.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import duckdb
from pyarrow import flight

ROWS = 65_536


class Server(flight.FlightServerBase):
    """Answers statements; the ticket is the command itself."""

    def __init__(self, host: str, folder: Path):
        super().__init__(f"grpc://{host}:0")
        self._database = duckdb.connect()
        for table in sorted(path for path in folder.iterdir() if path.is_dir()):
            self._database.execute(f"create view {table.name} as select * from '{table}/*.parquet'")

    def get_flight_info(self, _: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """Plan the statement for its schema."""
        asked = self._database.cursor().sql(f"select * from ({statement(descriptor.command)}) limit 0")
        endpoint = flight.FlightEndpoint(descriptor.command, [])
        return flight.FlightInfo(asked.to_arrow_reader(1).schema, descriptor, [endpoint], -1, -1)

    def do_get(self, _: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        """Run the statement, and stream what it gives."""
        return flight.RecordBatchStream(self._database.cursor().sql(statement(ticket.ticket)).to_arrow_reader(ROWS))


def statement(command: bytes) -> str:
    """Return the text in Flight SQL's command: the second field of an Any, and in it the first."""
    _, rest = field(command)
    value, _ = field(rest)
    return field(value)[0].decode()


def field(data: bytes) -> tuple[bytes, bytes]:
    """Return the first field's bytes, and what comes after."""
    size, at, shift = 0, 1, 0
    while True:
        size |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return data[at : at + size], data[at + size :]


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("host")
    arguments.add_argument("folder", type=Path)
    given = arguments.parse_args()
    server = Server(given.host, given.folder)
    print(f"listening on {given.host}:{server.port}", flush=True)
    server.serve()
