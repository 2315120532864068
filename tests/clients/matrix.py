"""The type matrix: a table with every type a lakegate table can hold, and what each client makes of it.

`expected.json` beside this file is the one table of results, read by the tests of every language. Each value is
written as text: `null`, `true`, `-12`, a decimal with all its digits, `"text"` in quotes (quotes and backslashes within
are escaped), `x'00ff'`, `2024-02-29`, `2024-02-29T12:34:56.789012` (with `Z` where it is an instant), floats by their
bits as a double (`f3ff8000000000000`, or `nan`), `{name: value, …}`, `[item, …]` and `{key => value, …}`.

`python tests/clients/matrix.py` writes the part of `expected.json` that follows from the table itself; what clients are
known to do differently is written there by hand, with the reason.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXPECTED = Path(__file__).resolve().parent / "expected.json"
ROWS = 10
UTC = dt.timezone.utc
D = decimal.Decimal

DAYS = [
    dt.date(2024, 2, 29),
    dt.date(1, 1, 1),
    dt.date(9999, 12, 31),
    dt.date(1970, 1, 1),
    dt.date(1969, 12, 31),
    dt.date(1582, 10, 4),  # the last day of the Julian calendar, which is another day in Java's old classes
    dt.date(1582, 10, 15),
    dt.date(1900, 3, 1),
]
TIMES = [
    dt.datetime(2024, 2, 29, 12, 34, 56, 789012),
    dt.datetime(1, 1, 1),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
    dt.datetime(1970, 1, 1),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
    dt.datetime(1582, 10, 4, 12),
    dt.datetime(2013, 3, 10, 2, 30),  # in New York this time was not
    dt.datetime(2013, 11, 3, 1, 30),  # and this was twice
]
INSTANTS = [moment.replace(tzinfo=UTC) for moment in TIMES]
NINES = D("9" * 38)
LEAST = NINES.copy_negate()  # a minus sign would round to 28 digits
EXACT = decimal.Context(prec=38)
DEEP = pa.struct(
    {
        "name": pa.string(),
        "tags": pa.list_(pa.string()),
        "scores": pa.map_(pa.string(), pa.float64()),
        "inner": pa.struct(
            {"instant": pa.timestamp("us", tz="UTC"), "exact": pa.decimal128(38, 10), "raw": pa.binary()}
        ),
    }
)

#: Name, SQL name of the type, Arrow type, values; the rest of the rows is null.
COLUMNS: list[tuple[str, str, pa.DataType, Sequence[Any]]] = [
    ("flag", "boolean", pa.bool_(), [True, False, True]),
    ("small", "smallint", pa.int16(), [7, -(2**15), 2**15 - 1, 0, -1]),
    ("whole", "int", pa.int32(), [7, -(2**31), 2**31 - 1, 0, -1]),
    ("large", "bigint", pa.int64(), [7, -(2**63), 2**63 - 1, 0, -1, 2**53 + 1]),
    (
        "single",
        "real",
        pa.float32(),
        [1.5, -3.4028234663852886e38, 3.4028234663852886e38, 0.0, -0.0, 2.0**-149, math.inf, -math.inf, math.nan],
    ),
    (
        "number",
        "double",
        pa.float64(),
        [0.1, -1.7976931348623157e308, 1.7976931348623157e308, 0.0, -0.0, 5e-324, math.inf, -math.inf, math.nan],
    ),
    ("money", "decimal(5,2)", pa.decimal128(5, 2), [D("1.25"), D("-999.99"), D("999.99"), D("0.00"), D("-0.01")]),
    ("units", "decimal(38,0)", pa.decimal128(38, 0), [D(7), LEAST, NINES, D(0), D(-1)]),
    (
        "exact",
        "decimal(38,10)",
        pa.decimal128(38, 10),
        [D("1.0000000001"), LEAST.scaleb(-10, EXACT), NINES.scaleb(-10, EXACT)],
    ),
    ("part", "decimal(38,38)", pa.decimal128(38, 38), [D("0.5"), LEAST.scaleb(-38, EXACT), NINES.scaleb(-38, EXACT)]),
    (
        "text",
        "string",
        pa.string(),
        ["plain", "", " ", "Zoë’s “x” 漢字 🎉", "a\nb\tc\r\x00d", 'O\'Brien "\\"', "e\u0301", "x" * 5000, "NULL"],
    ),
    ("raw", "binary", pa.binary(), [b"plain", b"", b"\x00", bytes(range(256)), b"\xff" * 3]),
    ("day", "date", pa.date32(), DAYS),
    ("instant", "timestamp", pa.timestamp("us", tz="UTC"), INSTANTS),
    ("local", "timestamp_ntz", pa.timestamp("us"), TIMES),
    (
        "record",
        "struct<a: int, b: string>",
        pa.struct({"a": pa.int32(), "b": pa.string()}),
        [{"a": 1, "b": "x"}, {"a": None, "b": None}, {"a": -(2**31), "b": ""}],
    ),
    ("list", "array<int>", pa.list_(pa.int32()), [[1, 2, 3], [], [None], [-(2**31), None, 2**31 - 1]]),
    ("words", "array<string>", pa.list_(pa.string()), [["a", "", None, "漢"], [], [None]]),
    ("pairs", "map<string, int>", pa.map_(pa.string(), pa.int32()), [[("a", 1), ("", None)], [], [("漢", 2**31 - 1)]]),
    (
        "deep",
        "struct<name: string, tags: array<string>, scores: map<string, double>, "
        "inner: struct<instant: timestamp, exact: decimal(38,10), raw: binary>>",
        DEEP,
        [
            {
                "name": "n",
                "tags": ["a", None],
                "scores": [("s", 0.5), ("t", None)],
                "inner": {"instant": INSTANTS[0], "exact": D("1.5000000000"), "raw": b"\x00"},
            },
            {"name": None, "tags": None, "scores": None, "inner": None},
            {"name": "", "tags": [], "scores": [], "inner": {"instant": None, "exact": None, "raw": b""}},
        ],
    ),
    (
        "records",
        "array<struct<day: date, flag: boolean>>",
        pa.list_(pa.struct({"day": pa.date32(), "flag": pa.bool_()})),
        [[{"day": DAYS[0], "flag": True}, {"day": None, "flag": None}, None], [], [None]],
    ),
    ("grid", "array<array<bigint>>", pa.list_(pa.list_(pa.int64())), [[[1, 2], [], None, [2**63 - 1]], [], [None]]),
    (
        "lists",
        "map<int, array<string>>",
        pa.map_(pa.int32(), pa.list_(pa.string())),
        [[(1, ["x"]), (2, []), (3, None)], [], [(-(2**31), [None])]],
    ),
]
NAMES = [name for name, *_ in COLUMNS]
KINDS = {name: kind for name, _, kind, _ in COLUMNS}


def table() -> pa.Table:
    """Return the table: a row's number and a column of each type."""
    columns: dict[str, pa.Array] = {"id": pa.array(range(1, ROWS + 1), pa.int32())}
    for name, _, kind, values in COLUMNS:
        columns[name] = pa.array([*values, *[None] * (ROWS - len(values))], kind)
    return pa.table(columns)


def beyond() -> pa.Table:
    """Return days and moments that Arrow can hold and hardly any language's calendar can: 100,000 years off."""
    days, moments = 36_525_000, 3_155_760_000_000_000_000
    return pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int32()),
            "day": pa.array([-days, days, None], pa.int32()).cast(pa.date32()),
            "instant": pa.array([-moments, moments, None], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "local": pa.array([-moments, moments, None], pa.int64()).cast(pa.timestamp("us")),
        }
    )


def text(value: Any) -> str:
    """Return a Python value that is not nested as the text `expected.json` has for it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    for kind, written in WRITERS:
        if isinstance(value, kind):
            return written(value)
    raise TypeError(f"nobody said how a {type(value)} is written")


def double(value: float) -> str:
    """Return a float by its bits as a double, so that nothing hides in its text."""
    return "nan" if math.isnan(value) else f"f{struct.pack('>d', value).hex()}"


def quoted(value: str) -> str:
    """Return a text in quotes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def moment(value: dt.datetime) -> str:
    """Return a date and time with all six digits of the second, and `Z` where it has a zone."""
    plain = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return plain.isoformat(timespec="microseconds") + ("Z" if value.tzinfo else "")


WRITERS: list[tuple[type, Callable[[Any], str]]] = [
    (int, str),
    (float, double),
    (decimal.Decimal, lambda value: f"{value:f}"),
    (str, quoted),
    (bytes, lambda value: f"x'{value.hex()}'"),
    (dt.datetime, moment),
    (dt.date, dt.date.isoformat),
]


def texts(kind: pa.DataType, values: Sequence[Any]) -> list[str]:
    """Return the texts of values whose Arrow type is known: in Python a map may look like a list or a struct."""
    return [typed(kind, value) for value in values]


def padded(values: list[str]) -> list[str]:
    """Return a value for each row: what the file does not list is null."""
    return values + ["null"] * (ROWS - len(values))


def typed(kind: pa.DataType, value: Any) -> str:
    """Return a value's text by its Arrow type."""
    if value is None:
        return "null"
    if pa.types.is_struct(kind):
        return "{" + ", ".join(f"{f.name}: {typed(f.type, value[f.name])}" for f in kind.fields) + "}"
    if pa.types.is_map(kind):
        items = value.items() if isinstance(value, dict) else value
        pairs = (f"{typed(kind.key_type, key)} => {typed(kind.item_type, item)}" for key, item in items)
        return "{" + ", ".join(pairs) + "}"
    if pa.types.is_nested(kind):
        return "[" + ", ".join(typed(kind.value_type, item) for item in value) + "]"
    return text(value)


def expected() -> dict[str, Any]:
    """Return what `expected.json` holds."""
    with EXPECTED.open(encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def of_the_table() -> list[dict[str, Any]]:
    """Return the part of `expected.json` that follows from the table itself."""
    columns = table()
    return [
        {"name": name, "type": sql, "values": texts(kind, columns[name].to_pylist()[: len(values)])}
        for name, sql, kind, values in COLUMNS
    ]


def write(content: dict[str, Any]) -> None:
    """Write `expected.json`: a line for each column, and for each thing a client does differently."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    columns = ",\n".join(f"  {line(column)}" for column in content["columns"])
    clients = []
    for name, client in content["clients"].items():
        differs = ",\n".join(f"    {line(column)}: {line(what)}" for column, what in client["differs"].items())
        types = f'   "types": {line(client["types"])},'
        clients.append(f'  {line(name)}: {{\n{types}\n   "differs": {{\n{differs}\n   }}\n  }}')
    joined = ",\n".join(clients)
    EXPECTED.write_text(f'{{\n "columns": [\n{columns}\n ],\n "clients": {{\n{joined}\n }}\n}}\n', encoding="utf-8")


class Client:
    """What one client is known to make of the table."""

    def __init__(self, name: str) -> None:
        content = expected()
        self.name = name
        self.columns = {column["name"]: column["values"] for column in content["columns"]}
        self.types: dict[str, str] = content["clients"][name]["types"]
        self.differs: dict[str, dict[str, Any]] = content["clients"][name]["differs"]

    def values(self, column: str) -> list[str] | None:
        """Return the values of a column; none where asking for it is an error."""
        differs = self.differs.get(column, {})
        return None if "error" in differs else padded(differs.get("values", self.columns[column]))

    def error(self, column: str) -> str | None:
        """Return what the error says that asking for a column gives."""
        return self.differs.get(column, {}).get("error")


if __name__ == "__main__":
    content = expected() if EXPECTED.exists() else {"clients": {}}
    write({"columns": of_the_table(), "clients": content["clients"]})
