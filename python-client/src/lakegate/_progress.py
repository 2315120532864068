"""How far a download is: told to a function, or shown as a line on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

#: Seconds a download takes before a line appears that nobody asked for: short ones are done before it could be read.
PATIENCE = 1.0
#: Seconds between two lines, on a terminal and in a log.
TERMINAL_INTERVAL = 0.2
LOG_INTERVAL = 10.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is.

    Attributes
    ----------
    rows, bytes
        What has arrived; bytes as they lie unpacked in memory, of which fewer went over the line.
    total_rows
        How many rows there will be, where the server knows or has an estimate.
    seconds
        Time since the download began.
    finished
        Whether this is the last word on it.
    total_wire_bytes
        Bytes that all will take on the line, where the server has an estimate.
    expected_seconds
        How long all was expected to take, where the server knows the line.
    cuts
        How often the line was cut and the download tried to go on.
    """

    rows: int
    bytes: int
    total_rows: int | None
    seconds: float
    finished: bool
    total_wire_bytes: int | None = None
    expected_seconds: float | None = None
    cuts: int = 0

    @property
    def wire_bytes(self) -> int | None:
        """About how many bytes came over the line; None where the server has no estimate."""
        if self.total_wire_bytes is None or not self.total_rows:
            return None
        return int(self.total_wire_bytes * min(self.rows / self.total_rows, 1.0))

    @property
    def rate(self) -> float:
        """Bytes in a second, on average."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at the present pace, or as expected before there is one; None where not known, or passed."""
        if self.finished:
            return 0.0
        if self.rows == 0 and self.expected_seconds is not None:
            return max(self.expected_seconds - self.seconds, 0.0)
        if self.total_rows is None or not 0 < self.rows <= self.total_rows:
            return None
        return self.seconds * (self.total_rows - self.rows) / self.rows

    def __str__(self) -> str:
        rows = f"{self.rows:,}" if self.total_rows is None or self.finished else f"{self.rows:,} of {self.total_rows:,}"
        words = [f"{rows} rows", size_text(self.bytes), f"{size_text(self.rate)}/s"]
        if self.wire_bytes is not None and self.total_wire_bytes is not None and not self.finished:
            words.insert(1, f"about {size_text(self.wire_bytes)} of {size_text(self.total_wire_bytes)} on the line")
        left = self.seconds_left
        if self.finished:
            words.append(f"in {_duration(self.seconds)}")
        elif left is not None:
            words.append(f"{_duration(left)} left")
        if self.cuts:
            words.append("cut once, went on" if self.cuts == 1 else f"cut, went on at attempt {self.cuts}")
        return " · ".join(words)


#: Who wants to know: everybody with a terminal (None), whoever reads the error output (True), nobody (False), a
#: function.
Wish = bool | Callable[[Progress], object] | None


class Report:
    """Tells how one download goes on; `add` for each batch, `end` when no more will come."""

    def __init__(
        self,
        wish: Wish,
        *,
        total_rows: int | None,
        total_wire_bytes: int | None = None,
        expected_seconds: float | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream = sys.stderr if stream is None else stream
        # There is no error output at all under some graphical shells.
        self._terminal = self._stream is not None and self._stream.isatty()
        self._tell: Callable[[Progress], object] | None = wish if callable(wish) else None
        self._lines = self._stream is not None and (wish is True or (wish is None and self._terminal))
        self._clock = clock
        self._start = clock()
        self._interval = TERMINAL_INTERVAL if self._terminal else LOG_INTERVAL
        self._next = self._start + (PATIENCE if wish is None else self._interval)
        self._shown = wish is True
        self._total_rows = total_rows
        self._expected = (total_wire_bytes, expected_seconds)
        self._rows = self._bytes = self._cuts = 0

    def add(self, *, rows: int, bytes: int) -> None:  # noqa: A002 (what it is)
        """Count a batch that has arrived."""
        self._rows += rows
        self._bytes += bytes
        if self._tell is not None:
            self._tell(self._now(finished=False))
        elif self._lines and (now := self._clock()) >= self._next:
            self._next = now + self._interval
            self._shown = True
            self._write(self._now(finished=False))

    def cut(self) -> None:
        """Count an attempt to go on after the line was cut; say so where somebody looks."""
        self._cuts += 1
        if self._tell is not None:
            self._tell(self._now(finished=False))
        elif self._lines:
            self._shown = True
            self._write(self._now(finished=False))

    def end(self, *, finished: bool) -> None:
        """Say the last word where all has arrived; leave the terminal tidy in any case."""
        if self._tell is not None:
            if finished:
                self._tell(self._now(finished=True))
        elif self._lines and self._shown:
            if finished:
                self._write(self._now(finished=True))
            if self._terminal:
                self._stream.write("\n")
                self._stream.flush()

    def _now(self, *, finished: bool) -> Progress:
        seconds = self._clock() - self._start
        return Progress(self._rows, self._bytes, self._total_rows, seconds, finished, *self._expected, self._cuts)

    def _write(self, progress: Progress) -> None:
        # The second part wipes what a longer line left behind.
        self._stream.write(f"\r{progress}\x1b[K" if self._terminal else f"{progress}\n")
        self._stream.flush()


def size_text(number: float) -> str:
    """Return a number of bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
