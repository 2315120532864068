"""A question before much is fetched, while nothing is yet."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from lakegate._announcement import Estimate
from lakegate._errors import TooLarge
from lakegate._progress import size_text

if TYPE_CHECKING:
    from typing import TextIO

#: Where nothing else is said: whoever sits at a terminal is asked about more than 1 GiB, which takes more than a minute
#: and a half of a line of 100 Mbit/s; programs nobody watches fetch what they ask for.
AT_TERMINAL = "1GiB at a terminal"
#: Decides about what is above the limit; True fetches it.
Confirm = Callable[[Estimate], bool]
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kKMGT]i?)?B?")
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


def size_of(text: str | int | None) -> int | None:
    """Return a size as bytes: a number, or a text such as `1GiB`, `500 MB`; None is none.

    So is `AT_TERMINAL` where nobody sits at one.

    Raises
    ------
    ValueError
        When it is neither.
    """
    if text == AT_TERMINAL:
        return 1 << 30 if _somebody_watches(sys.stdin, sys.stderr) else None
    if text is None or (isinstance(text, int) and not isinstance(text, bool) and text >= 0):
        return text
    found = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is no size; write bytes, or 500MB, 1GiB, …")
    unit = found["unit"] or ""
    base = 1024 if unit.endswith("i") else 1000
    return int(float(found["number"]) * base ** _POWERS.get(unit[:1].upper(), 0))


def check(estimate: Estimate, limit: int | None, confirm: Confirm | None) -> None:
    """Let a result pass that is not known to be above the limit, or is wanted all the same.

    Who decides is `confirm`, else whoever sits at the terminal, else nobody.

    Raises
    ------
    TooLarge
        When it is above the limit, and nobody wants it.
    """
    if limit is None or estimate.wire_bytes is None or estimate.wire_bytes <= limit:
        return
    wanted = bool(confirm(estimate)) if confirm is not None else _asked(estimate, sys.stdin, sys.stderr)
    if not wanted:
        raise TooLarge(
            f"{told(estimate)}, and more than {size_text(limit)} is not fetched without a question; select fewer "
            "columns or rows, take a sample (tablesample bernoulli (1) repeatable (7)), or give "
            "sql(…, confirm=lambda estimate: True) or connect(…, confirm_above=None)"
        )


def told(estimate: Estimate) -> str:
    """Return what an estimate says, for people."""
    words = f"the result would be about {size_text(estimate.wire_bytes or 0)} on the line"
    if estimate.rows is not None:
        words += f", {'' if estimate.rows_exact else 'about '}{estimate.rows:,} rows"
    if estimate.seconds is not None:
        words += f", {estimate.seconds:,.0f} s"
    if estimate.heaviest:
        columns = (f"{column.column} ({size_text(column.wire_bytes)})" for column in estimate.heaviest)
        words += f"; the heaviest columns are {', '.join(columns)}"
    return words


def _asked(estimate: Estimate, keyboard: TextIO | None, screen: TextIO | None) -> bool:
    """Ask whoever sits at the terminal; no where nobody does."""
    if keyboard is None or screen is None or not _somebody_watches(keyboard, screen):
        return False
    screen.write(f"{told(estimate)}. Fetch it? [y/N] ")
    screen.flush()
    return keyboard.readline().strip().lower() in ("y", "yes")


def _somebody_watches(keyboard: TextIO | None, screen: TextIO | None) -> bool:
    return keyboard is not None and screen is not None and keyboard.isatty() and screen.isatty()
