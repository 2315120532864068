"""The connection to a server and what can be asked of it."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import flight

from lakegate import _cache, _confirm, _protocol, _said
from lakegate._announcement import ColumnSize, Estimate
from lakegate._cache import Cache, default_folder, owner
from lakegate._download import CANCELLING
from lakegate._errors import InvalidQuery, NotFound, translated
from lakegate._fetch import Fetch, Terms
from lakegate._result import Result
from lakegate._source import RESUME, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

#: Where `lakegate serve` listens unless told otherwise.
DEFAULT_URL = "grpc://127.0.0.1:8815"
#: Seconds to try to go on for, after the line was cut.
RECONNECT_SECONDS = 300.0
# Between two attempts to connect, in milliseconds: gRPC's own wait up to two minutes.
_CONNECTING = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # A line that died without a word is noticed, so that a download goes on over another.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # During a download the client sends no data of its own, and gRPC would stop asking after two times.
    ("grpc.http2.max_pings_without_data", 0),
]
#: Longest time in seconds that asking the server to stop may take.
CANCEL_SECONDS = 5.0
# Fewer bytes on the way; people see plain types all the same.
_DICTIONARIES = b"lakegate-dictionaries"
_SCHEMES = ("grpc://", "grpc+tcp://", "grpc+tls://", "grpc+unix://")


@dataclass(frozen=True, slots=True, order=True)
class Table:
    """A table one may read.

    Attributes
    ----------
    schema
        The schema it is in, such as `weather` or `system`.
    name
        Its own name.
    kind
        `TABLE` or `VIEW`, as the server says.
    """

    schema: str
    name: str
    kind: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def connect(
    url: str = DEFAULT_URL,
    *,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
    timeout: float | None = None,
    tls_ca_file: str | Path | None = None,
    tls_certificate_file: str | Path | None = None,
    tls_key_file: str | Path | None = None,
    allow_plaintext: bool = False,
    headers: dict[str, str] | None = None,
    cache: bool | str | Path = True,
    cache_size: int | None = None,
    reconnect: float = RECONNECT_SECONDS,
    confirm_above: str | int | None = _confirm.AT_TERMINAL,
) -> Client:
    """Connect to a server.

    Parameters
    ----------
    url
        `grpc://host:port`, or `grpc+tls://host:port` for an encrypted connection.
    user, password
        Who asks; exchanged for the token of a session once. Only for servers that have users.
    token
        A personal token or one of an identity provider, instead of user and password.
    timeout
        Longest time in seconds one call may take; a download over one connection is one call. No limit where
        it is not given (the server has its own for statements).
    tls_ca_file
        PEM file with the authorities to trust; the system's where it is not given. For a certificate that vouches for
        itself, as `lakegate cert dev` makes them, the certificate.
    tls_certificate_file, tls_key_file
        PEM files with a certificate of the client and its private key, for servers that take them.
    allow_plaintext
        Send password or token to another machine without encryption.
    headers
        Further gRPC headers for each call, with lower-case names.
    cache
        Whether results are kept on the local disk, so that what has not changed is not sent again; or the folder
        where. The server is asked each time whether it is the same, and whether one may have it.
    cache_size
        Bytes all results in the folder may take; the smaller of 10 GiB and a tenth of the free disk where it is not
        given.
    reconnect
        Seconds to try for, where the line is cut in the middle of a download, until the next rows come; 0 gives up at
        once.
    confirm_above
        Bytes on the line, such as `"500MB"` or `"2GiB"`. Of a result that the server knows to be larger no row is
        fetched before whoever sits at the terminal, or `confirm` of :meth:`Client.sql`, agrees; where nobody can be
        asked it is refused with `TooLarge`. None fetches whatever comes. Where nothing is given, whoever sits at a
        terminal is asked above 1 GiB, and programs are not held up.

    Returns
    -------
    Client
        To be closed, or used in a `with` block.

    Raises
    ------
    Unauthenticated
        When user and password are not accepted.
    Unavailable
        When user and password are given and nobody answers; otherwise the first call tells.
    ValueError
        When the arguments contradict one another or the URL is none.
    """
    return Client(
        url,
        user=user,
        password=password,
        token=token,
        timeout=timeout,
        tls_ca_file=tls_ca_file,
        tls_certificate_file=tls_certificate_file,
        tls_key_file=tls_key_file,
        allow_plaintext=allow_plaintext,
        headers=headers,
        cache=cache,
        cache_size=cache_size,
        reconnect=reconnect,
        confirm_above=confirm_above,
    )


class Client:
    """A connection to a server; see :func:`connect` for its parameters. Several threads may share it."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        timeout: float | None = None,
        tls_ca_file: str | Path | None = None,
        tls_certificate_file: str | Path | None = None,
        tls_key_file: str | Path | None = None,
        allow_plaintext: bool = False,
        headers: dict[str, str] | None = None,
        cache: bool | str | Path = True,
        cache_size: int | None = None,
        reconnect: float = RECONNECT_SECONDS,
        confirm_above: str | int | None = _confirm.AT_TERMINAL,
    ):
        if not url.startswith(_SCHEMES):
            raise ValueError(f"{url!r} is no address; write grpc://host:port or grpc+tls://host:port")
        if token is not None and user is not None:
            raise ValueError("give a token or a user with password, not both")
        if (user is None) != (password is None):
            raise ValueError("user and password belong together")
        if timeout is not None and timeout <= 0:
            raise ValueError(f"timeout is {timeout} seconds; it has to be more than 0")
        if reconnect < 0:
            raise ValueError(f"reconnect is {reconnect} seconds; it has to be 0 or more")
        if (tls_certificate_file is None) != (tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file belong together")
        if (user or token) and not allow_plaintext and not _is_private(url):
            raise ValueError(
                f"{url} is not encrypted, and a password or token sent there could be read on the way; use "
                "grpc+tls://host:port, or allow_plaintext=True on a network you trust"
            )
        self.url = url
        self._timeout = timeout
        self._reconnect = reconnect
        self._limit = _confirm.size_of(confirm_above)
        self._headers = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        certificate = _content(tls_certificate_file)
        self._cache = Cache(
            folder=default_folder() if cache is True else Path(cache) if cache else None,
            owner=owner(url, user=user, token=token, certificate=certificate, headers=self._headers),
            size=cache_size,
        )
        if not any(name == _DICTIONARIES for name, _ in self._headers):
            self._headers.append((_DICTIONARIES, b"on"))
        with translated(url):
            self._flight = flight.FlightClient(
                url,
                tls_root_certs=_content(tls_ca_file),
                cert_chain=certificate,
                private_key=_content(tls_key_file),
                generic_options=_CONNECTING,
                middleware=[_said.Listener()],
            )
            if token is not None:
                self._headers.append((b"authorization", f"Bearer {token}".encode()))
            elif user is not None:
                self._headers.append(self._flight.authenticate_basic_token(user, password, self._options()))

    @property
    def cache(self) -> Cache:
        """The results of this server and person that are on the local disk."""
        return self._cache

    def sql(
        self,
        query: str,
        *,
        params: Sequence[Any] | None = None,
        fresh: bool = False,
        max_staleness: float | None = None,
        confirm: Callable[[Estimate], bool] | None = None,
    ) -> Result:
        """Ask a question in SQL.

        The statement is understood at once, so that mistakes in it are raised here; rows are fetched when the
        result is asked for them.

        Parameters
        ----------
        query
            One statement. Parameters are written `?`, or `$1`, `$2`, …; an older state of a table is
            read with `t VERSION AS OF 12` or `t TIMESTAMP AS OF '2026-01-31T12:00:00Z'`.
        params
            Values of the parameters in order: None, bool, int, float, str, bytes, `Decimal`, date, datetime
            and whatever else Arrow makes a value of.
        fresh
            Fetch the rows from the server even where the same are on the local disk.
        max_staleness
            Seconds for which the rows on the local disk count as the answer after the server said so; within them it
            is not asked at all, neither whether there are newer ones, nor whether one may still have them.
        confirm
            Called with an :class:`Estimate` where that is above `confirm_above`; True fetches the rows.

        Raises
        ------
        InvalidQuery
            When the statement or a parameter is wrong.
        NotFound
            When it names a table that is not there.
        LakegateError
            One of the other subclasses, for what else may happen.
        """
        if isinstance(params, (str, bytes)) or hasattr(params, "keys"):
            raise TypeError("params is a list or tuple of values, one for each ? or $n in order")
        if max_staleness is not None and max_staleness < 0:
            raise ValueError(f"max_staleness is {max_staleness} seconds; it has to be 0 or more")
        terms = self._terms(fresh=fresh, max_staleness=max_staleness, confirm=confirm)
        if params is None or len(params) == 0:
            command = _protocol.statement_query(query)
            return self._result(
                lambda headers: self._info(command, headers), question=_cache.question(query.encode()), terms=terms
            )
        values = _parameter_batch(params)
        return self._result(
            lambda headers: self._prepared_info(query, values, headers),
            question=_cache.question(query.encode(), _as_bytes(values)),
            terms=terms,
        )

    def estimate(self, query: str, *, params: Sequence[Any] | None = None) -> Estimate:
        """Ask how large the result of a query will be, without fetching it, with all columns among the heaviest.

        Parameters
        ----------
        query, params
            As in :meth:`sql`.
        """
        # Not the description of the result: for that the server runs statements that change something.
        told = self.sql(f"explain estimate {query}", params=params, fresh=True).to_arrow(progress=False).to_pylist()
        whole, columns = told[0], told[1:]
        sizes = (ColumnSize(row["column"], row["wire_bytes"]) for row in columns if row["wire_bytes"] is not None)
        return Estimate(
            rows=whole["rows"],
            rows_exact=whole["rows_exact"] is True,
            wire_bytes=whole["wire_bytes"],
            seconds=whole["seconds"],
            heaviest=tuple(sizes),
        )

    def tables(self, *, schema: str | None = None) -> list[Table]:
        """List the tables one may read, in order.

        Parameters
        ----------
        schema
            Only those of this schema.
        """
        listed = self._listed(_protocol.get_tables()).to_arrow()
        found = (
            Table(schema=row["db_schema_name"], name=row["table_name"], kind=row["table_type"])
            for row in listed.to_pylist()
        )
        return sorted(table for table in found if schema is None or table.schema == schema)

    def schema(self, table: str) -> pa.Schema:
        """Return the names and Arrow types of a table's columns.

        Parameters
        ----------
        table
            `schema.table`.

        Raises
        ------
        NotFound
            When there is no such table.
        """
        schema_name, dot, table_name = table.partition(".")
        if not dot or not schema_name or not table_name:
            raise InvalidQuery(f"{table!r} is no table name; write schema.table")
        command = _protocol.get_tables(schema_pattern=schema_name, table_pattern=table_name, with_schema=True)
        # The names are patterns to the server, in which `_` stands for any character.
        for row in self._listed(command).to_arrow().to_pylist():
            if (row["db_schema_name"], row["table_name"]) == (schema_name, table_name):
                return pa.ipc.read_schema(pa.py_buffer(row["table_schema"]))
        raise NotFound(f"there is no table {table}; .tables() lists those there are")

    def close(self) -> None:
        """Close the connection; downloads still under way fail."""
        for thread in threading.enumerate():
            if thread.name == CANCELLING and thread is not threading.current_thread():
                thread.join(CANCEL_SECONDS)
        self._flight.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<lakegate.Client {self.url}>"

    def _options(self, headers: Sequence[tuple[bytes, bytes]] = ()) -> flight.FlightCallOptions:
        return flight.FlightCallOptions(timeout=self._timeout, headers=[*self._headers, *headers])

    def _bind(self, handle: bytes, values: pa.RecordBatch) -> bytes:
        """Give a prepared statement its values; return the handle to go on with."""
        descriptor = flight.FlightDescriptor.for_command(_protocol.prepared_statement_query(handle))
        writer, answers = self._flight.do_put(descriptor, values.schema, self._options())
        with writer:
            writer.write_batch(values)
            writer.done_writing()
            metadata = answers.read()
        return handle if metadata is None else _protocol.bound_handle(metadata.to_pybytes(), handle)

    def _terms(self, **terms: Any) -> Terms:
        return Terms(reconnect=self._reconnect, limit=self._limit, **terms)

    def _listed(self, command: bytes) -> Result:
        """Return what there is, anew each time."""
        return self._result(lambda headers: self._info(command, headers), question=None, terms=self._terms(fresh=True))

    def _result(
        self,
        describe: Callable[[list[tuple[bytes, bytes]]], flight.FlightInfo],
        *,
        question: str | None,
        terms: Terms,
    ) -> Result:
        source = Source(
            describe=describe,
            stream=lambda ticket, position: self._flight.do_get(ticket, self._options([(RESUME, position.encode())])),
            cancel=self._cancel,
            url=self.url,
        )
        return Result(Fetch(source=source, cache=self._cache, question=question, terms=terms))

    def _info(self, command: bytes, headers: list[tuple[bytes, bytes]]) -> flight.FlightInfo:
        return self._flight.get_flight_info(flight.FlightDescriptor.for_command(command), self._options(headers))

    def _prepared_info(
        self, query: str, values: pa.RecordBatch, headers: list[tuple[bytes, bytes]]
    ) -> flight.FlightInfo:
        prepare = flight.Action("CreatePreparedStatement", _protocol.create_prepared_statement(query))
        answer = next(iter(self._flight.do_action(prepare, self._options())))
        handle = _protocol.prepared_statement_handle(answer.body.to_pybytes())
        try:
            bound = self._bind(handle, values)
            # The ticket holds the statement with its values, so the handle is no longer needed after this.
            return self._info(_protocol.prepared_statement_query(bound), headers)
        finally:
            close = flight.Action("ClosePreparedStatement", _protocol.close_prepared_statement(handle))
            with contextlib.suppress(pa.ArrowException, flight.FlightError):  # only tidies up
                list(self._flight.do_action(close, self._options()))

    def _cancel(self, info: flight.FlightInfo) -> None:
        """Ask the server to stop what it does for a result; not for long, somebody waits at the keyboard."""
        action = flight.Action("CancelFlightInfo", _protocol.cancel_flight_info(info.serialize()))
        options = flight.FlightCallOptions(timeout=CANCEL_SECONDS, headers=self._headers)
        with contextlib.suppress(pa.ArrowException, flight.FlightError, OSError):
            list(self._flight.do_action(action, options))


def _is_private(url: str) -> bool:
    """Tell whether what is sent to an address is encrypted or stays on this machine."""
    parts = urlsplit(url)
    if parts.scheme in ("grpc+tls", "grpc+unix") or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _content(file: str | Path | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


def _parameter_batch(params: Sequence[Any]) -> pa.RecordBatch:
    """Return the values as one row, a column for each."""
    columns = []
    for number, value in enumerate(params, start=1):
        try:
            columns.append(pa.array([value]))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise InvalidQuery(
                f"parameter {number} is a {type(value).__name__}, of which Arrow makes no value: {error}"
            ) from error
    return pa.record_batch(columns, names=[str(number) for number in range(1, len(columns) + 1)])


def _as_bytes(values: pa.RecordBatch) -> bytes:
    """Return values with their types, for a name of the question."""
    return values.schema.serialize().to_pybytes() + values.serialize().to_pybytes()  # type: ignore[no-any-return]
