"""Case `windows-disk` of features.py: windows over more events than fit memory, through the engine that training uses.

50 million events of 500,000 keys lie in one Parquet file, ordered by time; 1 million questions are asked in memory:
4 windows × (sum, count, mean, max). Ours is `PointInTime.features`: facts are read by ranges of time, put aside on disk
by parts of their keys, and each part is computed by the one kernel. `ours_s` covers all of it, from the file to Arrow.

The baseline is DuckDB's window functions over the same file, with the same limit of memory and two threads, free to use
the disk. A sample of answers is compared with DuckDB's range join.

Bias: the file is in the page cache and ordered by time, as event tables mostly are; in another order every range reads
all of it. Nothing is late.
"""

from __future__ import annotations

import resource
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LIMIT_MB = 4096
PATIENCE_S = 300
SLICE = 1_000_000
AGGREGATES = ("sum", "count", "mean", "max")
HOUR = 3_600_000_000
WINDOWS = {"1h": HOUR, "6h": 6 * HOUR, "1d": 24 * HOUR, "7d": 7 * 24 * HOUR}
SPAN = 30 * 24 * HOUR
ORIGIN = 1_700_000_000_000_000

PROJECT = """
from typing import Annotated
import volano as vo

owner = vo.Owner("bench", contact="bench@example.org")
thing = vo.Entity("thing", key=int, owner=owner)

class Reading(vo.Event, id="reading_id"):
    reading_id: int
    thing_id: Annotated[int, thing]
    x: float
    read_at: vo.EventTime

readings = vo.Source("readings", Reading, table="readings.parquet", available_after="0s", accept_late="1d", owner=owner)

class Windows(vo.FeatureView, entity=thing, source=readings):
"""


def windows_disk(rows: int) -> dict[str, Any]:
    """Write the events, compute, compare; the limit of memory holds for the whole process until then."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spine = write(folder, rows)
        began = time.perf_counter()
        mine = compute(folder, spine)
        ours_s = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if rows >= 10 * SLICE:
            assert peak <= LIMIT_MB, f"{peak:.0f} MB"
        compare(folder, spine, mine)
        baseline_s, failure = baseline(folder, spine)
    return {
        "rows": rows,
        "questions": spine.num_rows,
        "ours_s": ours_s,
        "baseline": f"DuckDB window functions, {LIMIT_MB} MB" + (f": {failure}" if failure else ""),
        "baseline_s": baseline_s,
        "ratio": None if baseline_s is None else ours_s / baseline_s,
        "ours_peak_mb": peak,
        "events_s": rows / ours_s,
    }


def write(folder: Path, rows: int) -> pa.Table:
    """The events as a file, slice by slice of time; the questions in memory."""
    random = np.random.default_rng(5)
    n_keys = max(rows // 100, 10)
    n_slices = -(-rows // SLICE)
    writer = None
    for n in range(n_slices):
        size = min(SLICE, rows - n * SLICE)
        low, high = SPAN * n // n_slices, SPAN * (n + 1) // n_slices
        part = pa.table(
            {
                "reading_id": np.arange(n * SLICE, n * SLICE + size),
                "thing_id": random.integers(0, n_keys, size),
                "x": random.normal(100, 30, size),
                "read_at": pa.array(
                    np.sort(ORIGIN + random.integers(low, high, size)), pa.timestamp("us", "UTC")
                ),
            }
        )
        writer = writer or pq.ParquetWriter(folder / "readings.parquet", part.schema)
        writer.write_table(part, row_group_size=SLICE // 4)
    assert writer is not None
    writer.close()
    n_questions = min(rows, 1_000_000)
    return pa.table(
        {
            "thing": random.integers(0, n_keys, n_questions),
            "decided_at": pa.array(ORIGIN + random.integers(0, SPAN, n_questions), pa.timestamp("us", "UTC")),
        }
    )


def compute(folder: Path, spine: pa.Table) -> pa.Table:
    """Every feature of the view for every question, as a training set asks for them."""
    from volano.compile.project import compile_project
    from volano.compile.state import state_groups
    from volano.engines.duckdb_engine import DuckDbEngine
    from volano.organize.facts import Facts
    from volano.organize.features import Mode, PointInTime
    from volano.plan.definitions import CodeRef, FeatureInput
    from volano.records.handover import HandOver
    from volano.runtime.loader import load_project
    from volano.runtime.scratch import FileScratch
    from volano.stores.delta_lake import DeltaLake

    class NoFunctions:
        def get(self, code: CodeRef) -> Callable[..., Any]:
            raise LookupError(code.qualname)

    features = "".join(
        f'    {a}_{n} = vo.{a}({"" if a == "count" else repr("x") + ", "}within="{n}")\n'
        for n in WINDOWS
        for a in AGGREGATES
    )
    (folder / "project.py").write_text(PROJECT + features)
    project = compile_project(load_project(folder / "project.py"), namespace="bench").project
    view = project.views["Windows"]
    inputs = [
        FeatureInput(each.name, each.dtype, view=view.name, feature=each.name, keys=("thing",))
        for each in view.features
    ]
    sql = DuckDbEngine(folder)
    address = "readings.parquet"
    pinned = HandOver("readings", ORIGIN + SPAN, sql.snapshot(address), ORIGIN + SPAN, address)
    facts = Facts(project, DeltaLake(folder / "lake"), sql, {"readings": pinned})
    with FileScratch(folder / "scratch") as scratch:
        work = PointInTime(project, state_groups(project), facts, sql, NoFunctions(), scratch=scratch)
        return work.features(inputs, spine, mode=Mode.HISTORY)


def compare(folder: Path, spine: pa.Table, mine: pa.Table) -> None:
    """A sample against DuckDB's range join."""
    import duckdb

    con = duckdb.connect(config={"threads": 2, "memory_limit": f"{LIMIT_MB}MB"})
    con.execute("SET TimeZone = 'UTC'")
    sample = spine.slice(0, 200).append_column("row", pa.array(np.arange(200)))
    con.register("sample", sample)
    con.execute(
        f"""CREATE TEMP TABLE near AS SELECT s.row, s.decided_at, e.x, e.read_at FROM sample s
        JOIN '{folder / "readings.parquet"}' e ON e.thing_id = s.thing AND e.read_at < s.decided_at"""
    )
    for n, width in WINDOWS.items():
        theirs = con.sql(
            f"""SELECT sum(x) AS sum, count(x) AS count, avg(x) AS mean, max(x) AS max FROM sample s LEFT JOIN near e
            ON e.row = s.row AND e.read_at >= s.decided_at - to_microseconds({width}) GROUP BY s.row ORDER BY s.row"""
        ).to_arrow_table()
        for a in AGGREGATES:
            x, y = mine[f"{a}_{n}"].slice(0, 200).to_numpy(), theirs[a].to_numpy()
            assert np.allclose(x, y, rtol=1e-9, atol=1e-6, equal_nan=True), (a, n)


def baseline(folder: Path, spine: pa.Table) -> tuple[float | None, str]:
    """Seconds of DuckDB's window functions over the same file, or why there are none."""
    import duckdb

    con = duckdb.connect(
        config={"threads": 2, "memory_limit": f"{LIMIT_MB}MB", "temp_directory": str(folder / "duck")}
    )
    con.execute("SET preserve_insertion_order = false")
    con.register("spine", spine.append_column("row", pa.array(np.arange(spine.num_rows))))
    frames = ", ".join(
        f"w{n} AS (PARTITION BY k ORDER BY t RANGE BETWEEN {w} PRECEDING AND 1 PRECEDING)"
        for n, w in WINDOWS.items()
    )
    columns = ", ".join(
        f"sum(x) OVER w{n} sum_{n}, count(x) OVER w{n} count_{n}, avg(x) OVER w{n} mean_{n}, max(x) OVER w{n} max_{n}"
        for n in WINDOWS
    )
    sql = f"""SELECT * FROM (
        SELECT row, {columns} FROM (
            SELECT thing_id AS k, epoch_us(read_at) AS t, x, NULL::BIGINT AS row FROM '{folder / "readings.parquet"}'
            UNION ALL SELECT thing, epoch_us(decided_at), NULL, row FROM spine)
        WINDOW {frames}
    ) WHERE row IS NOT NULL"""
    began = time.perf_counter()
    alarm = threading.Timer(PATIENCE_S, con.interrupt)
    alarm.start()
    try:
        con.sql(sql).to_arrow_table()
    except duckdb.OutOfMemoryException:
        return None, "out of memory"
    except duckdb.InterruptException:
        return None, f"not done after {PATIENCE_S} s"
    finally:
        alarm.cancel()
    return time.perf_counter() - began, ""
