"""Where the rows of one statement come from: its description, and its rows from a position on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from lakegate._announcement import Announcement, announcement
from lakegate._errors import Conflict, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyarrow import flight

#: Header that says which messages of a result came already (`docs/serving.md`, "Cut lines").
RESUME = b"lakegate-resume"
#: Its value for a result from its beginning on.
START = "0"
_IF_NONE_MATCH = b"lakegate-if-none-match"
_HAVE = b"lakegate-have"


@dataclass(frozen=True, slots=True)
class Had:
    """What is here of an earlier answer to the same question; nothing where both are None."""

    identity: str | None = None
    basis: str | None = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return what tells the server of it."""
        told = [(_IF_NONE_MATCH, self.identity), (_HAVE, self.basis)]
        return [(name, value.encode()) for name, value in told if value is not None]


class Source:
    """A statement as the server understands it.

    Parameters
    ----------
    describe
        Asks the server for the description of the result, with headers besides.
    stream
        Begins to fetch what a ticket stands for, from a position on.
    cancel
        Tells the server to stop what it does for a description.
    url
        The server's address, for errors.
    """

    def __init__(
        self,
        *,
        describe: Callable[[list[tuple[bytes, bytes]]], flight.FlightInfo],
        stream: Callable[[flight.Ticket, str], flight.FlightStreamReader],
        cancel: Callable[[flight.FlightInfo], None],
        url: str,
    ):
        self.url = url
        self._describe = describe
        self._stream = stream
        self._cancel = cancel
        self._had = Had()
        self._info: flight.FlightInfo | None = None
        self._announced = Announcement()

    def ask(self, had: Had) -> tuple[pa.Schema, Announcement]:
        """Ask what the result is, saying what is here already; return its columns as they travel, and the rest."""
        with translated(self.url):
            # An endpoint for each call, and the same: rights and versions are looked at anew.
            info = self._describe([*had.headers(), (RESUME, START.encode())])
            announced = announcement(info)
            wanted = 0 if announced.not_modified and had.identity is not None else 1
            if len(info.endpoints) != wanted:
                raise pa.ArrowNotImplementedError(
                    f"the server spreads the result over {len(info.endpoints)} endpoints; this client reads one"
                )
            self._had, self._info, self._announced = had, info, announced
            return info.schema, announced

    @property
    def is_named(self) -> bool:
        """Whether the server names the result, so that it can be told later whether it is the same."""
        return self._announced.identity is not None

    def ask_again(self) -> None:
        """Ask for a new ticket in place of one that is not good any more.

        Raises
        ------
        Conflict
            When the result would be another one now.
        """
        before = self._announced
        _, now = self.ask(self._had)
        if before.identity is None or (before.identity, before.appended_to) != (now.identity, now.appended_to):
            raise Conflict("the ticket of the download is not good any more, and the result is another one by now")

    def open(self, position: str) -> flight.FlightStreamReader:
        """Begin to fetch the rows from a position on."""
        assert self._info is not None  # noqa: S101 (it was asked)
        return self._stream(self._info.endpoints[0].ticket, position)

    def cancel(self) -> None:
        """Tell the server to stop what it does for the result."""
        if self._info is not None:
            self._cancel(self._info)
