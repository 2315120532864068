"""The data that is pulled, made from seeds, and the statements that pull it.

TPC-H's lineitem, orders and customer; frames of emotions, as a model is trained on; and a table of 200 columns.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

#: Rows of one session of the frames.
FRAMES = 3_000
#: Plain bytes of Arrow that a row of lineitem takes.
LINEITEM_ROW_BYTES = 169
WIDE_ROWS = 100_000
WIDE_COLUMNS = 200
#: Emotions whose probabilities a frame has.
EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness")
ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)

PROJECTED = "l_orderkey, l_partkey, l_extendedprice, l_shipmode"

#: Statements by name. `{table}` is what a peer calls the table; `{few}` bounds what is pulled through a slow line.
STATEMENTS = {
    "full": "select * from {lineitem} where l_orderkey <= {few}",
    "proj": f"select {PROJECTED} from {{lineitem}} where l_orderkey <= {{few}}",
    "filter": "select * from {lineitem} where l_shipdate >= date '1995-03-01' and l_shipdate < date '1995-03-26'",
    "point": "select * from {lineitem} where l_orderkey = 30017",
    "topn": "select * from {lineitem} order by l_extendedprice desc, l_orderkey, l_linenumber limit 100",
    "agg": """select l_returnflag, l_linestatus, sum(l_quantity) as quantity, sum(l_extendedprice) as price,
        sum(l_extendedprice * (1 - l_discount)) as discounted, avg(l_discount) as discount, count(*) as lines
        from {lineitem} where l_shipdate <= date '1998-09-02'
        group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus""",
    "join": """select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_shippriority
        from {customer} join {orders} on c_custkey = o_custkey join {lineitem} on l_orderkey = o_orderkey
        where c_mktsegment = 'BUILDING' and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
        group by l_orderkey, o_orderdate, o_shippriority order by revenue desc, o_orderdate, l_orderkey limit 10""",
    "sample": "select * from {lineitem} tablesample bernoulli (1) repeatable (7)",
    "frames": "select * from {frames} where frame < {frames_few}",
    "wide": "select * from {wide} where id < {wide_few}",
}
#: How others write a sample; each draws rows of its own.
SAMPLES = {
    "duckdb": "select * from {lineitem} tablesample 1 percent (bernoulli, 7)",
    "sail": "select * from {lineitem} tablesample (1 percent) repeatable (7)",
}
#: Further statements whose size is told beforehand, and then measured.
ESTIMATED = {
    "keys": "select * from {lineitem} where l_orderkey between 100000 and 130000",
    "dates": "select l_orderkey, l_shipdate, l_extendedprice from {lineitem} where l_shipdate < date '1993-01-01'",
    "many": "select * from {orders} where o_orderkey in (1, 33, 66, 99, 1000, 4001, 7008, 30017)",
    "amounts": "select * from {orders} where o_totalprice > 200000",
    "texts": "select * from {orders} where o_orderpriority = '1-URGENT'",
    "customers": "select c_custkey, c_name, c_address, c_acctbal from {customer}",
    "computed": "select l_orderkey, l_extendedprice * (1 - l_discount) as p from {lineitem} where l_orderkey < 600000",
    "grouped": "select l_suppkey, sum(l_quantity) as quantity from {lineitem} group by l_suppkey",
    "joined": "select o_orderkey, o_orderdate, c_name from {orders} join {customer} on o_custkey = c_custkey",
}
TABLES = ("lineitem", "orders", "customer", "frames", "wide")
#: Bits a second of the slowest line through which the largest statements pull everything.
WHOLE_BITS = 500_000_000


def make(folder: Path, scale: float, share: float = 1.0) -> Path:
    """Return the folder with `<table>.parquet` of each, made unless they are there; `share` is for frames and wide."""
    home = folder / f"source-{scale:g}-{share:g}"
    home.mkdir(parents=True, exist_ok=True)
    tool = Path(sys.executable).parent / "tpchgen-cli"
    for table in ("lineitem", "orders", "customer"):
        if not (home / f"{table}.parquet").exists():
            command = [tool, "parquet", "--scale-factor", f"{scale:g}", "--tables", table, "--output-dir", home]
            subprocess.run([*map(str, command), "--num-threads", "1"], check=True)
    for table, rows in (("frames", frames(round(200 * share))), ("wide", wide(round(WIDE_ROWS * share)))):
        if not (home / f"{table}.parquet").exists():
            making = home / f"{table}.making"
            parquet.write_table(rows(), making, compression="zstd", row_group_size=100_000)
            making.rename(home / f"{table}.parquet")
    return home


def frames(sessions: int):
    """Return what makes the frames of so many sessions: 53 columns, mostly numbers that change little by little."""

    def rows() -> pa.Table:
        chance = np.random.default_rng(7)
        count = sessions * FRAMES

        def walk(width: int, rho: float, step: float) -> np.ndarray:
            """Return `width` autoregressive series, each starting anew with a session."""
            noise = chance.normal(0, step, (FRAMES, sessions * width))
            for at in range(1, FRAMES):
                noise[at] += rho * noise[at - 1]
            return noise.reshape(FRAMES, sessions, width).swapaxes(0, 1).reshape(count, width)

        session = np.repeat(np.arange(sessions), FRAMES)
        frame = np.tile(np.arange(FRAMES), sessions)
        columns: dict[str, object] = {
            "session_id": pa.array([f"sess-{s:04}-cam{s % 4}" for s in range(sessions)]).take(pa.array(session)),
            "subject_id": session // 4,
            "frame": frame,
            "ts": pa.array(
                1_700_000_000_000_000 + session * 10**9 + frame * 40_000 + chance.integers(-500, 501, count)
            ).cast(pa.timestamp("us")),
        }
        exponents = np.exp(3 * walk(len(EMOTIONS), 0.97, 0.15))
        shares = exponents / exponents.sum(axis=1, keepdims=True)
        columns |= {f"p_{name}": shares[:, at] for at, name in enumerate(EMOTIONS)}
        affect = np.tanh(walk(2, 0.99, 0.05))
        columns |= {"valence": affect[:, 0], "arousal": affect[:, 1]}
        units = np.round(np.clip(walk(len(ACTION_UNITS), 0.95, 0.4) + 0.3, 0, 5), 2)
        columns |= {f"au{unit:02}": units[:, at] for at, unit in enumerate(ACTION_UNITS)}
        marks = 5 * walk(20, 0.98, 1.0) + 200
        columns |= {f"landmark_{at // 2}_{'xy'[at % 2]}": marks[:, at] for at in range(20)}
        columns["confidence"] = np.round(chance.uniform(0.5, 1, count), 2)
        columns["label"] = pa.array(EMOTIONS).take(pa.array(shares.argmax(axis=1)))
        columns["fold"] = pa.array([f"fold-{s % 5}" for s in range(sessions)]).take(pa.array(session))
        return pa.table(columns)

    return rows


def wide(rows: int):
    """Return what makes a table of 200 columns: whole numbers, amounts, few and many texts."""

    def made() -> pa.Table:
        chance = np.random.default_rng(11)
        columns: dict[str, object] = {"id": np.arange(rows)}
        for at in range(1, WIDE_COLUMNS):
            name = f"c{at:03}"
            if at % 4 == 0:
                columns[name] = chance.integers(0, 10 ** (1 + at % 6), rows)
            elif at % 4 == 1:
                columns[name] = np.round(chance.normal(100, 25, rows), 2)
            elif at % 4 == 2:
                columns[name] = pa.array([f"kind {k}" for k in range(20)]).take(pa.array(chance.integers(0, 20, rows)))
            else:
                columns[name] = pa.array(chance.integers(0, 10**7, rows)).cast(pa.string())
        return pa.table(columns)

    return made


def statements(bits: int | None, scale: float) -> dict[str, str]:
    """Return the statements for a line, bounded so that in the best encoding the largest takes some three seconds.

    At 10 Mbit/s `full` has 120,000 rows of lineitem, at 100 Mbit/s 1,200,000, above it all, where the scale has so
    many. Braces stay around tables.
    """
    share = min(1.0, (bits or WHOLE_BITS) / WHOLE_BITS)
    orders = round(6_000_000 * share)
    few = {
        "few": max(orders, round(6_000_000 * scale)) if share == 1 else orders,
        "frames_few": round(FRAMES * share),
        "wide_few": round(WIDE_ROWS * share),
    }
    tables = {table: "{" + table + "}" for table in TABLES}
    return {name: text.format(**few, **tables) for name, text in STATEMENTS.items()}
