"""The demo's way, with a handful of made-up rows in the place of the package it fetches."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import zipfile
from functools import partial

import pytest

import lakegate
import served

sys.path.insert(0, str(served.REPOSITORY / "python-client" / "demo"))

from typing import TYPE_CHECKING

import changes
import demo
import landing
import operational
import pulls
import thin_line
import tour

if TYPE_CHECKING:
    from pathlib import Path

FLIGHTS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
    "origin,dest,air_time,distance,hour,minute,time_hour"
)
WEATHER = "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour"
#: Rows of each kind: enough that the broken ones stay below the tenth that may be rejected.
ROWS = 60
#: Flights that take a dozen messages.
MANY = 100_000


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return package(tmp_path, flights=ROWS)


def package(folder: Path, *, flights: int) -> Path:
    """Write a package like the real one in form."""
    hours = [f"2013-{1 + number % 12:02}-{1 + number % 28:02}T{number % 24:02}:00:00Z" for number in range(ROWS)]
    flown = [
        f"2013,{1 + number % 12},1,517,515,{'NA' if number % 9 == 0 else number * 7919 % 1009},830,819,11,AA,{number},"
        f"N{number},EWR,IAH,227,1400,5,15,{hours[number % ROWS]}"
        for number in range(flights)
    ]
    weather = [
        f"{origin},2013,{1 + number % 12},1,1,39.02,26.06,59.37,270,10.3,NA,0,1012,{number % 10},{hour}"
        for origin in ("EWR", "JFK", "LGA")
        for number, hour in enumerate(hours)
    ]
    planes = [f"N{number},{1990 + number % 20},Fixed wing,BOEING,737,2,140,NA,Turbo-fan" for number in range(ROWS)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as inner:
        inner.writestr("flights.csv", "\n".join([FLIGHTS, *flown]) + "\n")
    contents = {
        "flights.csv.zip": packed.getvalue(),
        "weather.csv": "\n".join([WEATHER, *weather]).encode(),
        "planes.csv": "\n".join(["tailnum,year,type,manufacturer,model,engines,seats,speed,engine", *planes]).encode(),
        "airlines.csv": b"carrier,name\nAA,American Airlines Inc.\n",
        "airports.csv": b"faa,name,lat,lon,alt,tz,dst,tzone\nIAH,Houston,29.98,-95.34,97,-6,A,America/Chicago\n",
    }
    path = folder / "package.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{landing.PACKAGE}-{landing.VERSION}/{landing.PACKAGE}/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_the_repositorys_definitions_load_what_the_demo_lays_out(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(served.REPOSITORY / "tables", folder / "tables")
    landing.lay_out(archive, folder / "landing")
    program = served.program()
    served.run(program, folder, "check")
    served.run(program, folder, "sync")
    last = ROWS // 12
    with served.serve(program, folder) as url, lakegate.connect(url) as client:
        counts = {
            str(table): next(iter(client.sql(f"select count(*) from {table}")))[0]
            for table in client.tables(schema="nyc")
        }
        assert counts == {
            "nyc.flights": ROWS - last,
            "nyc.planes": ROWS,
            "nyc.weather": 3 * ROWS,
        }
        rejected = client.sql("select table_name, count(*) from system.rejects group by 1 order by 1").rows()
        assert list(rejected) == [("planes", len(landing.BROKEN_PLANES)), ("weather", len(landing.BROKEN_WEATHER))]
        assert list(client.sql("select distinct p.engine['kind'] from nyc.planes p")) == [("Turbo-fan",)]
        assert tour.newest_flights(client) == (0, ROWS - last)
        landing.lay_out_flights(archive, folder / "landing" / "flights", keep=lambda m: m == landing.LAST_MONTH)
        served.run(program, folder, "sync", "nyc.flights")
        assert tour.newest_flights(client) == (1, ROWS)
        read = "select rows_read from system.loads where table_name = 'flights' order by started_at desc limit 1"
        assert list(client.sql(read)) == [(last,)]


def test_the_lake_follows_the_demos_changes_of_the_database(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo.lay_out(archive, folder)
    with operational.served(served.database(), folder) as port:
        configuration = demo.CONFIGURATION + operational.CONNECTION.format(port=port)
        (folder / "lakegate.toml").write_text(configuration, encoding="utf-8")
        program = served.program()
        served.run(program, folder, "doctor", "ops")
        served.run(program, folder, "sync")
        with (
            served.serve(program, folder, loads=True) as url,
            lakegate.connect(url) as client,
            operational.Colleague(folder, port) as colleague,
        ):
            assert not client.sql(tour.JOIN.replace("count(*) >= 500", "count(*) >= 1")).to_pandas().empty
            # It ends the test where anything but the change is in the lake; how long each took is the demo's to tell.
            assert len(changes.walk(client, colleague)) == len(changes.all_changes(last=ROWS))
            read = "select sum(rows_read) from system.loads where table_name = 'flights' and version > 0"
            assert list(client.sql(read + " and table_schema = 'ops'")) == [(4,)]


def test_over_the_demos_thin_line_nothing_is_sent_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive, folder, program = package(tmp_path, flights=MANY), tmp_path / "demo", served.program()
    landing.lay_out_flights(archive, folder / "landing" / "flights", keep=lambda _: True)
    shutil.copytree(served.REPOSITORY / "tables", folder / "tables")
    (folder / "lakegate.toml").write_text(demo.CONFIGURATION + pulls.CONFIGURATION, encoding="utf-8")
    served.run(program, folder, "sync", "nyc.flights")
    with served.serve(program, folder) as url, thin_line.ThinLine(url) as line:
        moved = pulls.walk(line, partial(served.run, program, folder), archive=archive, folder=folder)
    # That the rows are right it looks at itself.
    assert moved.again < moved.whole * 0.3
    assert moved.repeated < moved.whole * 0.05
    assert moved.grown < moved.whole * 0.2
    told = capsys.readouterr().out
    assert f"{MANY:,} rows, about" in told
    assert "went on" in told
