"""pyarrow's exceptions become ours, with the server's own words and none of pyarrow's."""

import pyarrow as pa
import pytest
from pyarrow import flight

import lakegate
from lakegate._errors import from_arrow

# What pyarrow 26 raised for a gRPC code with the message "no x, with message: y.\nhelp", and what it is here.
WORDS = "no x, with message: y.\nhelp"
REFUSED = flight.FlightUnauthenticatedError
DEBUG = (
    f". gRPC client debug context: NOT_FOUND:{WORDS}. Client context: IOError: Server never sent a data message. "
    "Detail: Internal"
)
SEEN = [
    (pa.ArrowInvalid, "Flight returned invalid argument error, with message: ", lakegate.InvalidQuery),
    (pa.ArrowInvalid, "gRPC returned out-of-range error, with message: ", lakegate.InvalidQuery),
    (pa.ArrowInvalid, "gRPC returned resource exhausted error, with message: ", lakegate.ResourceExhausted),
    (pa.ArrowInvalid, "gRPC returned precondition failed error, with message: ", lakegate.Conflict),
    (flight.FlightInternalError, "gRPC returned aborted error, with message: ", lakegate.Conflict),
    (pa.ArrowException, "Unknown: Flight returned already exists error, with message: ", lakegate.Conflict),
    (pa.ArrowKeyError, "Flight returned not found error, with message: ", lakegate.NotFound),
    (
        flight.FlightUnauthenticatedError,
        "Flight returned unauthenticated error, with message: ",
        lakegate.Unauthenticated,
    ),
    (flight.FlightUnauthorizedError, "Flight returned unauthorized error, with message: ", lakegate.PermissionDenied),
    (flight.FlightTimedOutError, "Flight returned timeout error, with message: ", lakegate.Timeout),
    (flight.FlightCancelledError, "Flight cancelled call, with message: ", lakegate.Cancelled),
    (pa.ArrowNotImplementedError, "Flight returned unimplemented error, with message: ", lakegate.Unsupported),
    (flight.FlightUnavailableError, "Flight returned unavailable error, with message: ", lakegate.Unavailable),
    (flight.FlightInternalError, "Flight returned internal error, with message: ", lakegate.InternalError),
    (flight.FlightServerError, "Flight RPC failed with message: ", lakegate.InternalError),
]


@pytest.mark.parametrize("closing", ["", DEBUG])
@pytest.mark.parametrize(("raised", "opening", "expected"), SEEN)
def test_kind_and_words_come_through(
    raised: type[Exception], opening: str, expected: type[Exception], closing: str
) -> None:
    error = from_arrow(raised(opening + WORDS + closing), url="grpc://h:1")
    assert type(error) is expected
    assert str(error) == WORDS


def test_a_dead_address_is_named_with_what_to_do() -> None:
    with (
        lakegate.connect("grpc://127.0.0.1:1", timeout=10) as client,
        pytest.raises(lakegate.Unavailable, match=r"127\.0\.0\.1:1; is `lakegate serve` running"),
    ):
        client.sql("select 1")


def test_everything_has_one_root() -> None:
    for name in lakegate.__all__:
        found = getattr(lakegate, name)
        if isinstance(found, type) and issubclass(found, Exception):
            assert issubclass(found, lakegate.LakegateError)


@pytest.mark.parametrize(
    "options",
    [{"token": "t", "user": "u", "password": "p"}, {"user": "u"}, {"timeout": 0}, {"url": "http://127.0.0.1:1"}],
)
def test_arguments_that_make_no_sense_are_refused_at_once(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"give|belong|timeout|address"):
        lakegate.connect(**{"url": "grpc://127.0.0.1:1", **options})  # type: ignore[arg-type]
