"""What can go wrong, under one root, with the server's own words."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import flight

if TYPE_CHECKING:
    from collections.abc import Iterator


class LakegateError(Exception):
    """Root of everything this package raises; its text is the server's message."""

    # Whether the server said so of what was asked for, rather than of this moment: to ask again would be in vain.
    _is_final = False


class InvalidQuery(LakegateError):
    """The statement or one of its parameters is wrong: syntax, an unknown column, a type that does not fit."""


class NotFound(LakegateError):
    """What was named does not exist, or has not been loaded yet."""


class Unauthenticated(LakegateError):
    """The server does not know who asks: user, password or token are missing, wrong or expired."""


class PermissionDenied(LakegateError):
    """Who asks is known and may not."""


class Conflict(LakegateError):
    """Somebody else changed or holds what was asked for."""


class ResourceExhausted(LakegateError):
    """A limit of the server was reached: memory, disk, or time in the queue."""


class Unavailable(LakegateError):
    """Nobody answers at the address, or the server is going down; the same call may succeed later."""


class Timeout(LakegateError):
    """The call took longer than `timeout`, or the statement longer than the server allows."""


class Cancelled(LakegateError):
    """The statement was given up on request."""


class Unsupported(LakegateError):
    """The server deliberately does not do this."""


class TooLarge(LakegateError):
    """The rows would not fit into memory, or are more than was to be fetched without a question (`confirm_above`).

    Nothing is wrong with the statement. The text says what to do instead.
    """


class InternalError(LakegateError):
    """A mistake in the server or damaged data; worth a report."""


# pyarrow puts an opening of its own before the server's message, and where several gRPC codes share
# one exception the opening is all that tells them apart (C++ `FromGrpcStatus`).
_OPENING = re.compile(r"^(?P<opening>[^\n]{0,80}?)(?:, with message|failed with message): ", re.DOTALL)
_CLOSING = re.compile(r"\. (?:gRPC client debug context|Client context|Detail): .*$", re.DOTALL)
_BY_OPENING: dict[str, type[LakegateError]] = {
    "aborted": Conflict,
    "already exists": Conflict,
    "precondition failed": Conflict,
    "resource exhausted": ResourceExhausted,
}
_BY_CLASS: tuple[tuple[type[BaseException], type[LakegateError]], ...] = (
    (flight.FlightUnauthenticatedError, Unauthenticated),
    (flight.FlightUnauthorizedError, PermissionDenied),
    (flight.FlightUnavailableError, Unavailable),
    (flight.FlightTimedOutError, Timeout),
    (flight.FlightCancelledError, Cancelled),
    (pa.ArrowCancelled, Cancelled),
    (pa.ArrowKeyError, NotFound),
    (pa.ArrowNotImplementedError, Unsupported),
    (pa.ArrowInvalid, InvalidQuery),
    (flight.FlightError, InternalError),
    (pa.ArrowException, InternalError),
    (OSError, Unavailable),
)


_RESET = re.compile(r"RST_STREAM|Stream removed|Socket closed|Connection reset|GOAWAY")
# All that pyarrow tells when no connection could be made for a login.
_LOGIN_BROKE = "Could not finish writing before closing"


def from_arrow(error: BaseException, *, url: str) -> LakegateError:
    """Return the error a person should see for one of pyarrow's.

    Parameters
    ----------
    error
        What pyarrow raised in a call to the server.
    url
        The server's address, named where nobody answers there.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    found = _OPENING.match(text)
    opening = found["opening"] if found else ""
    message = _CLOSING.sub("", text[found.end() :] if found else text)
    kind = next((kind for words, kind in _BY_OPENING.items() if words in opening), None)
    if kind is None:
        kind = next((kind for known, kind in _BY_CLASS if isinstance(error, known)), InternalError)
    if _LOGIN_BROKE in message:
        return Unavailable(
            f"the connection to {url} ended before the login; is `lakegate serve` running there, with TLS if the "
            "address says grpc+tls, and is its certificate believed (tls_ca_file)?"
        )
    if kind is Unavailable and "connect" in message:
        message = f"nobody answers at {url}; is `lakegate serve` running there? ({message})"
    return kind(message)


def was_cut(error: LakegateError) -> bool:
    """Tell whether the connection ended, or its server is going away: the rest may come when it is asked for again."""
    if error._is_final:
        return False
    if isinstance(error, Unavailable):
        return True
    # What resets a stream is told as gRPC's own words alone.
    return isinstance(error, (Cancelled, InternalError)) and bool(_RESET.search(str(error.__cause__)))


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn pyarrow's exceptions of the enclosed calls to a server into this package's."""
    try:
        yield
    except LakegateError:
        raise
    except (pa.ArrowException, flight.FlightError, KeyError, OSError) as error:
        raise from_arrow(error, url=url) from error
