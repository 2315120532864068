"""What the server itself says of a call that fails, beside gRPC's code: whether to ask again is in vain."""

from __future__ import annotations

import threading

from pyarrow import flight

# Goes with whatever the server says of a failure; what breaks on the way to it has none.
_KIND = "lakegate-error-kind"
# Goes with what it says of this moment alone, not of what was asked for.
_RETRY = "lakegate-retry"


class _Heard(threading.local):
    """What came with the last call of this thread: gRPC tells it on the thread that made the call."""

    is_final = False


_heard = _Heard()


def listen() -> None:
    """Forget what the calls of this thread were told before."""
    _heard.is_final = False


def is_final() -> bool:
    """Tell whether the server said of the last call of this thread why it failed, and not to ask again."""
    return _heard.is_final


class Listener(flight.ClientMiddlewareFactory):  # type: ignore[misc]
    """Listens to each call of a client."""

    def start_call(self, info: flight.CallInfo) -> _Call:
        return _Call()


class _Call(flight.ClientMiddleware):  # type: ignore[misc]
    def received_headers(self, headers: dict[str, list[str]]) -> None:
        names = {name.lower() for name in headers}
        if _KIND in names:
            _heard.is_final = _RETRY not in names
