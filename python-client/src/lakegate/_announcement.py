"""What a server tells of a result before any row is fetched."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow import flight

# Hexadecimal only, because it names a file.
_IDENTITY = re.compile(r"[0-9a-f]{16,128}")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is known of a result that was not fetched yet.

    Attributes
    ----------
    identity
        The same for two results exactly when they have the same rows; None where the server does not say.
    rows
        How many rows there are; None where that is not known exactly.
    estimated_rows
        About how many rows there are, `rows` where that is known.
    """

    identity: str | None = None
    rows: int | None = None
    estimated_rows: int | None = None


def announcement(info: flight.FlightInfo) -> Announcement:
    """Read what a server says of a result: `total_records`, and JSON in `app_metadata` (`identity`, `estimate.rows`).

    What is missing or not understood is not known; a newer server may say more.
    """
    told = _json(info.app_metadata)
    identity = told.get("identity")
    if not isinstance(identity, str) or not _IDENTITY.fullmatch(identity):
        identity = None
    rows = info.total_records if info.total_records >= 0 else None
    estimate = told.get("estimate")
    estimated = estimate.get("rows") if isinstance(estimate, dict) else None
    if isinstance(estimated, bool) or not isinstance(estimated, (int, float)) or not 0 <= estimated < 2**63:
        estimated = None
    return Announcement(
        identity=identity,
        rows=rows,
        estimated_rows=rows if rows is not None else None if estimated is None else int(estimated),
    )


def _json(data: bytes) -> dict[str, Any]:
    """Return the object of a lakegate server, empty where it is another's or none."""
    try:
        found = json.loads(data) if data else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("lakegate") == 1 else {}
