"""What a server tells of a result before any row is fetched."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow import flight

# Hexadecimal only, because it names a file.
_IDENTITY = re.compile(r"[0-9a-f]{16,64}")
# What is sealed travels in a header again.
_BASIS = re.compile(r"[A-Za-z0-9_-]{1,4096}")


@dataclass(frozen=True, slots=True)
class ColumnSize:
    """What a column takes on the line.

    Attributes
    ----------
    column
        Its name.
    wire_bytes
        Bytes, about.
    """

    column: str
    wire_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """How large a result will be, before any row is fetched. What is None is not known.

    Attributes
    ----------
    rows
        How many rows will come.
    rows_exact
        Whether it is exactly that many.
    wire_bytes
        Bytes that will go over the line, packed as this client gets them.
    seconds
        How long that takes at the present share of the line; known where the server knows the line.
    heaviest
        The columns that take most, the heaviest first.
    """

    rows: int | None = None
    rows_exact: bool = False
    wire_bytes: int | None = None
    seconds: float | None = None
    heaviest: tuple[ColumnSize, ...] = ()


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is known of a result that was not fetched yet.

    Attributes
    ----------
    identity
        The same for two results exactly when they have the same rows; None where the server does not say.
    basis
        What to show the server later, to be sent new rows alone.
    not_modified
        Whether it is the result that was said to be here already; then there is nothing to fetch.
    appended_to
        The identity of a result that is here, to which what is sent is added; None where all is sent.
    estimate
        How large what is sent will be.
    """

    identity: str | None = None
    basis: str | None = None
    not_modified: bool = False
    appended_to: str | None = None
    estimate: Estimate = Estimate()

    @property
    def rows(self) -> int | None:
        """How many rows are sent; None where that is not known exactly."""
        return self.estimate.rows if self.estimate.rows_exact else None


def announcement(info: flight.FlightInfo) -> Announcement:
    """Read what a server says of a result: `total_records`, and JSON in `app_metadata`.

    What is missing or not understood is not known; a newer server may say more.
    """
    told = _json(info.app_metadata)
    return Announcement(
        identity=_text(told.get("identity"), _IDENTITY),
        basis=_text(told.get("basis"), _BASIS),
        not_modified=told.get("not_modified") is True,
        appended_to=_text(told.get("appended_to"), _IDENTITY),
        estimate=_estimate(info, told.get("estimate")),
    )


def _estimate(info: flight.FlightInfo, told: Any) -> Estimate:
    told = told if isinstance(told, dict) else {}
    exact = info.total_records >= 0
    rows = info.total_records if exact else _number(told.get("rows"))
    named = told.get("heaviest")
    heaviest = [
        ColumnSize(column["column"], int(size))
        for column in (named if isinstance(named, list) else [])
        if isinstance(column, dict)
        and isinstance(column.get("column"), str)
        and (size := _number(column.get("wire_bytes"))) is not None
    ]
    wire_bytes = _number(told.get("wire_bytes"))
    return Estimate(
        rows=None if rows is None else int(rows),
        rows_exact=exact,
        wire_bytes=None if wire_bytes is None else int(wire_bytes),
        seconds=_number(told.get("seconds")),
        heaviest=tuple(heaviest),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        return None
    return value


def _text(value: Any, form: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None


def _json(data: bytes) -> dict[str, Any]:
    """Return the object of a lakegate server, empty where it is another's or none."""
    try:
        found = json.loads(data) if data else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("lakegate") == 1 else {}
