"""The least a Flight server can do: hands out batches that lie in its memory, by pyarrow's server (C++).

`bare.py --host HOST --from ADDRESS --sql SQL` fetches a result from another server once, and streams the very batches
to whoever asks for anything. `benches/bare.rs` is the same in Rust.
"""

from __future__ import annotations

import argparse
import contextlib

import pyarrow as pa
from pyarrow import flight

import asker


class Server(flight.FlightServerBase):
    """Answers everything with the same batches."""

    def __init__(self, host: str, rows: pa.Table):
        super().__init__(f"grpc://{host}:0")
        self._rows = rows

    def get_flight_info(self, _: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """Tell of the batches."""
        endpoint = flight.FlightEndpoint(b"all", [])
        return flight.FlightInfo(self._rows.schema, descriptor, [endpoint], -1, -1)

    def do_get(self, _: flight.ServerCallContext, _ticket: flight.Ticket) -> flight.FlightDataStream:
        """Stream them."""
        return flight.RecordBatchStream(self._rows)


def fetched(address: str, sql: str) -> pa.Table:
    """Return a result, in the batches in which it came."""
    client = asker.Flight(address, argparse.Namespace())
    with contextlib.closing(client.batches(sql, {})) as batches:
        return pa.Table.from_batches([batch for batch in batches if batch.num_rows])


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--host", required=True)
    arguments.add_argument("--from", dest="source", required=True)
    arguments.add_argument("--sql", required=True)
    given = arguments.parse_args()
    server = Server(given.host, fetched(given.source, given.sql))
    print(f"listening on {given.host}:{server.port}", flush=True)
    server.serve()
