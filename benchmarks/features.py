"""The feature engine against DuckDB, LMDB and its own budgets, on this machine.

    python benchmarks/features.py --json FILE [--only CASE ...] [--scale 0.1]

Both sides take Arrow tables in memory and give Arrow tables, use 2 threads, and are compared in the same run. Times
are medians of three runs after one that warms up, ours and theirs in turn. `ours_peak_mb` is the peak of the whole
process before the baseline runs, inputs included.

Biased towards us: events are numbers of one table, keys are integers, and compilation, paid once per machine, is not
counted. Biased towards DuckDB: `windows-late` lets it ignore when rows became known, which its window functions cannot
express. The cases `windows-disk`, `publish` and `apply-stream` are described where they are: disk.py and apply.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

THREADS = 2
HOUR = 3_600_000_000
DAY = 24 * HOUR
SPAN = 30 * DAY
WINDOWS = {"1h": HOUR, "6h": 6 * HOUR, "1d": DAY, "7d": 7 * DAY}
ORIGIN = 1_700_000_000_000_000


def timed(work: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Median seconds and the last result."""
    result = work()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), result


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def duck() -> Any:
    import duckdb

    con = duckdb.connect(config={"threads": THREADS})
    con.execute("SET preserve_insertion_order = false")
    return con


# --- point-in-time join ---------------------------------------------------------------------------------------


def as_of(rows: int) -> dict[str, Any]:
    """2 views × 15 float features, the newest value before each query, against ASOF JOIN."""
    from volano.kernels.features import WindowFeature
    from volano.kernels.windows import compute_tables

    rng = np.random.default_rng(1)
    keys = rows // 100
    views = [
        pa.table(
            {
                "k": rng.integers(0, keys, rows),
                "t": ORIGIN + rng.integers(0, SPAN, rows),
                **{f"v{n}_{c}": rng.normal(size=rows) for c in range(15)},
            }
        )
        for n in range(2)
    ]
    spine = pa.table(
        {"k": rng.integers(0, keys, rows), "q": ORIGIN + rng.integers(0, SPAN, rows), "row": np.arange(rows)}
    )

    def ours() -> pa.Table:
        out = spine
        for n, view in enumerate(views):
            features = [WindowFeature(f"v{n}_{c}", "last", f"v{n}_{c}") for c in range(15)]
            out = compute_tables(features, view, out, key="k", event_time="t", threads=THREADS)
        return out

    con = duck()
    con.register("spine", spine)
    for n, view in enumerate(views):
        con.register(f"view{n}", view)
    columns = ", ".join(f"view{n}.v{n}_{c}" for n in range(2) for c in range(15))
    sql = f"""SELECT spine.k, spine.q, spine.row, {columns} FROM spine
        ASOF LEFT JOIN view0 ON spine.k = view0.k AND spine.q > view0.t
        ASOF LEFT JOIN view1 ON spine.k = view1.k AND spine.q > view1.t"""
    ours_s, mine = timed(ours)
    peak = peak_mb()
    baseline_s, theirs = timed(lambda: con.sql(sql).to_arrow_table())
    theirs = theirs.sort_by("row")
    # Random instants of 30 days tie within a key once in some runs; a tie is any row's, so they are left out.
    untied = _untied(views, spine)
    for n in range(2):
        for c in range(15):
            a = mine[f"v{n}_{c}"].to_numpy()[untied]
            b = theirs[f"v{n}_{c}"].to_numpy()[untied]
            assert np.array_equal(a, b, equal_nan=True), (n, c)
    del theirs
    return {
        "rows": rows,
        "ours_s": ours_s,
        "baseline": "DuckDB ASOF JOIN",
        "baseline_s": baseline_s,
        "ours_peak_mb": peak,
        **_against_feast(views, spine, mine, untied, ours_s),
    }


def _against_feast(
    views: list[pa.Table], spine: pa.Table, mine: pa.Table, untied: np.ndarray, ours_s: float
) -> dict[str, Any]:
    """Feast's seconds for the same join, compared, or that it is not installed."""
    from feast_join import feast_join

    found = feast_join(views, spine)
    if found is None:
        return {"feast": "not installed"}
    feast_s, theirs = found
    for name in mine.column_names[3:]:
        a, b = mine[name].to_numpy()[untied], theirs[name].to_numpy()[untied]
        assert np.array_equal(a, b, equal_nan=True), name
    return {"feast_s": feast_s, "feast_ratio": ours_s / feast_s}


def _untied(views: list[pa.Table], spine: pa.Table) -> np.ndarray:
    bad = set()
    for view in views:
        pairs = np.stack([view["k"].to_numpy(), view["t"].to_numpy()])
        _, counts = (
            np.unique(pairs, axis=1, return_counts=True) if len(view) <= 200_000 else (None, np.array([1]))
        )
        if counts.max() > 1:
            found, n = np.unique(pairs, axis=1, return_counts=True)
            bad |= set(found[0, n > 1].tolist())
    keys = spine["k"].to_numpy()
    return ~np.isin(keys, list(bad)) if bad else np.ones(len(keys), bool)


# --- windows --------------------------------------------------------------------------------------------------


def window_data(rows: int, keys: int, late: float, seed: int = 2) -> tuple[pa.Table, pa.Table]:
    rng = np.random.default_rng(seed)
    t = ORIGIN + rng.integers(0, SPAN, rows)
    seen = t + np.where(rng.random(rows) < late, rng.exponential(2 * HOUR, rows).astype(np.int64), 0)
    events = pa.table(
        {"k": rng.integers(0, keys, rows), "t": t, "x": rng.normal(100, 30, rows), "seen": seen}
    )
    spine = pa.table(
        {"k": rng.integers(0, keys, rows), "q": ORIGIN + rng.integers(0, SPAN, rows), "row": np.arange(rows)}
    )
    return events, spine


def windows(rows: int, keys: int, late: float = 0.0) -> dict[str, Any]:
    """4 windows × (sum, count, mean, max) against DuckDB's window functions."""
    from volano.kernels.features import WindowFeature
    from volano.kernels.windows import compute_tables

    events, spine = window_data(rows, keys, late)
    features = [
        WindowFeature(f"{a}_{name}", a, "x", window_us=w)
        for name, w in WINDOWS.items()
        for a in ("sum", "count", "mean", "max")
    ]
    visibility: dict[str, Any] = {"visible_from": "seen", "as_of": "q"} if late else {}

    def ours() -> pa.Table:
        return compute_tables(
            features, events, spine, key="k", event_time="t", at="q", threads=THREADS, **visibility
        )

    con = duck()
    con.register("events", events)
    con.register("spine", spine)
    frames = ", ".join(
        f"w{n} AS (PARTITION BY k ORDER BY t RANGE BETWEEN {w} PRECEDING AND 1 PRECEDING)"
        for n, w in WINDOWS.items()
    )
    columns = ", ".join(
        f"sum(x) OVER w{n} sum_{n}, count(x) OVER w{n} count_{n}, avg(x) OVER w{n} mean_{n}, max(x) OVER w{n} max_{n}"
        for n in WINDOWS
    )
    sql = f"""SELECT * FROM (
        SELECT row, {columns}
        FROM (SELECT k, t, x, NULL::BIGINT AS row FROM events UNION ALL SELECT k, q, NULL, row FROM spine)
        WINDOW {frames}
    ) WHERE row IS NOT NULL"""
    ours_s, mine = timed(ours)
    peak = peak_mb()
    baseline_s, theirs = timed(lambda: con.sql(sql).to_arrow_table(), repeats=1)
    if late:
        _compare_late(mine, events, spine)
    else:
        _compare(mine, theirs.sort_by("row"))
    return {
        "rows": rows,
        "keys": keys,
        "ours_s": ours_s,
        "baseline": "DuckDB window functions",
        "baseline_s": baseline_s,
        "ours_peak_mb": peak,
    }


def windows_hot(rows: int) -> dict[str, Any]:
    """10 keys against 10,000: a key with many rows must cost no more. Compared with DuckDB's range join by a sample.

    DuckDB's window functions over so few partitions take minutes; they are the baseline of the balanced cases.
    """
    from volano.kernels.features import WindowFeature
    from volano.kernels.windows import compute_tables

    features = [
        WindowFeature(f"{a}_{name}", a, "x", window_us=w)
        for name, w in WINDOWS.items()
        for a in ("sum", "count", "mean", "max")
    ]
    seconds = []
    for keys in (10, 10_000):
        events, spine = window_data(rows, keys, 0.0)
        ours = partial(
            compute_tables, features, events, spine, key="k", event_time="t", at="q", threads=THREADS
        )
        took, mine = timed(ours)
        seconds.append(took)
        if keys == 10:
            peak = peak_mb()
        _compare_late(mine, events, spine)
    return {
        "rows": rows,
        "keys": 10,
        "ours_s": seconds[0],
        "baseline": "the same with 10,000 keys",
        "baseline_s": seconds[1],
        "ours_peak_mb": peak,
    }


def _compare(mine: pa.Table, theirs: pa.Table) -> None:
    for n in WINDOWS:
        for a in ("count", "max", "sum", "mean"):
            x = mine[f"{a}_{n}"].to_numpy()
            y = theirs[f"{a}_{n}"].to_numpy()
            if a in ("count", "max"):
                assert np.array_equal(x, y, equal_nan=True), (a, n)
            else:
                assert np.allclose(x, y, rtol=1e-9, atol=1e-6, equal_nan=True), (a, n)


def _compare_late(mine: pa.Table, events: pa.Table, spine: pa.Table) -> None:
    """A sample against DuckDB's bitemporal range join."""
    sample = spine.slice(0, 500 if len(events) <= 10**6 else 100)
    con = duck()
    con.register("events", events)
    con.register("sample", sample)
    for n, w in WINDOWS.items():
        theirs = con.sql(f"""SELECT s.row, sum(x) sum_{n}, count(x) count_{n}, avg(x) mean_{n}, max(x) max_{n}
            FROM sample s LEFT JOIN events e ON e.k = s.k AND e.t >= s.q - {w} AND e.t < s.q AND e.seen <= s.q
            GROUP BY s.row ORDER BY s.row""").to_arrow_table()
        for a in ("count", "max", "sum", "mean"):
            x, y = mine[f"{a}_{n}"].slice(0, len(sample)).to_numpy(), theirs[f"{a}_{n}"].to_numpy()
            assert np.allclose(x, y, rtol=1e-9, atol=1e-6, equal_nan=True), (a, n)


# --- online ---------------------------------------------------------------------------------------------------


def online(n_keys: int) -> dict[str, Any]:
    """16 windowed features of 1 or 100 keys from packed chunks, against a raw LMDB get of the same bytes.

    One key gives Python values, 100 keys give columns, not yet Arrow. Bias: this is the kernel's part over raw gets in
    one transaction. A decision's own way (keys, snapshot, on-demand) is in `decide.py`, for one request; nothing that
    serves reads 100 keys in one call yet.
    """
    import tempfile

    import lmdb

    from volano.kernels.batch_reader import BatchReader
    from volano.kernels.chunk_grid import chunk_number, chunk_numbers, chunk_span_us, reach_us
    from volano.kernels.chunks import ChunkLayout, ChunkReader
    from volano.kernels.features import WindowFeature
    from volano.kernels.history import History
    from volano.kernels.windows import Queries, compute

    keys, per_key = 1000, 100
    rng = np.random.default_rng(3)
    features = [
        WindowFeature(f"{a}_{name}", a, "x", window_us=w)
        for name, w in WINDOWS.items()
        for a in ("sum", "count", "mean", "max")
    ]
    layout = ChunkLayout(b"benchmrk", (("x", "float64"),))
    span = chunk_span_us(reach_us(features))
    q = ORIGIN + SPAN
    k = np.repeat(np.arange(keys), per_key)
    t = q - rng.integers(1, SPAN, keys * per_key)
    ids = np.stack([np.zeros(len(t), np.uint64), np.arange(len(t), dtype=np.uint64)], axis=1)
    x = pa.array(rng.normal(100, 30, len(t)))
    packed = layout.encode(t, ids, t, {"x": x})
    names = list(zip(k.tolist(), chunk_number(t, span).tolist(), strict=True))
    place = {name: n for n, name in enumerate(dict.fromkeys(names))}
    merged = layout.merge([b""] * len(place), packed, [place[name] for name in names])
    with tempfile.TemporaryDirectory() as folder:
        env = lmdb.open(folder, map_size=1 << 30, subdir=True)
        with env.begin(write=True) as txn:
            for (key, number), chunk in zip(place, merged, strict=True):
                txn.put(key.to_bytes(8, "big") + number.to_bytes(8, "big"), chunk)
        reader = ChunkReader(features, layout)
        numbers = [n.to_bytes(8, "big") for n in chunk_numbers(features, span, q)]
        prefixes = [key.to_bytes(8, "big") for key in range(keys)]
        batch = BatchReader(reader)
        # Chunks are joined before they are read: a copy of each is as good as a view of the page, and made faster.
        txn = env.begin()
        get = txn.get

        def raw(first: int) -> list[bytes | None]:
            return [get(prefix + n) for prefix in prefixes[first : first + n_keys] for n in numbers]

        def ours(first: int) -> Any:
            found = raw(first)
            if n_keys == 1:
                return reader.read([chunk for chunk in found if chunk is not None], q)
            return batch.read(found, len(numbers), q)

        ours_s, baseline_s = (_each(work, keys - n_keys + 1) for work in (ours, raw))
        peak = peak_mb()
        wanted = compute(
            features,
            History.build(k, t, columns={"x": x}, row_id=ids),
            Queries(np.arange(n_keys), np.full(n_keys, q)),
        )
        columns = [f.name for f in features]
        found = [dict(zip(columns, ours(0), strict=True))] if n_keys == 1 else ours(0).to_arrow().to_pylist()
        assert pa.table({name: wanted[name] for name in columns}).to_pylist() == found
    return {
        "rows": n_keys,
        "rows_per_key": per_key,
        "ours_s": ours_s,
        "baseline": "raw LMDB get",
        "baseline_s": baseline_s,
        "rows_s": n_keys / ours_s,
        "ours_peak_mb": peak,
    }


def online_hot(rows: int) -> dict[str, Any]:
    """20 windowed features of a key with a million rows in its widest window, against a key with a thousand."""
    import tempfile

    import lmdb

    from volano.kernels.chunks import ChunkLayout
    from volano.kernels.features import WindowFeature
    from volano.kernels.history import History
    from volano.kernels.tiled_reader import TiledReader
    from volano.kernels.tiles import Tiles
    from volano.kernels.windows import Queries, compute

    features = [
        WindowFeature(f"{a}_{name}", a, "x", window_us=w)
        for name, w in {**WINDOWS, "30d": SPAN}.items()
        for a in ("sum", "count", "mean", "max")
    ]
    layout = ChunkLayout(b"benchmrk", (("x", "float64"),))
    span, q = 7 * DAY, ORIGIN + SPAN
    tiles = Tiles(features, layout, span)
    reader = TiledReader(features, tiles)
    seconds = []
    for n in (rows, 1_000):
        rng = np.random.default_rng(5)
        t = q - rng.integers(1, SPAN, n)
        ids = np.stack([np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64)], axis=1)
        x = pa.array(rng.normal(100, 30, n))
        packed = layout.encode(t, ids, t, {"x": x})
        numbers, owners = np.unique(t // span, return_inverse=True)
        merged = layout.merge([b""] * len(numbers), packed, owners)
        with tempfile.TemporaryDirectory() as folder:
            env = lmdb.open(folder, map_size=1 << 30, subdir=True)
            keys = [number.to_bytes(8, "big") for number in numbers.tolist()]
            with env.begin(write=True) as txn:
                for key, number, chunk in zip(keys, numbers.tolist(), merged, strict=True):
                    txn.put(key, chunk)
                    if tiles.is_hot(chunk):
                        hot = tiles.split(chunk, number)
                        txn.put(key, hot.head)
                        for suffix, block in hot.blocks.items():
                            txn.put(key + suffix, block)

            def read(_: int, env: Any = env, keys: list[bytes] = keys) -> Any:
                with env.begin() as txn:
                    values = [txn.get(key) for key in keys]
                    plan = reader.plan(values, q)
                    blocks = [txn.get(keys[place] + suffix) for place, suffix in plan.blocks]
                    return reader.read(plan, blocks, q)

            seconds.append(_each(read, 1))
            wanted = compute(
                features,
                History.build(np.zeros(n, np.int64), t, columns={"x": x}, row_id=ids),
                Queries([0], [q]),
            )
            assert list(read(0)) == [wanted[f.name].to_pylist()[0] for f in features]
        if n == rows:
            peak = peak_mb()
    return {
        "rows": rows,
        "ours_s": seconds[0],
        "baseline": "the same read of a key with 1,000 rows",
        "baseline_s": seconds[1],
        "ours_peak_mb": peak,
    }


def _each(work: Callable[[int], Any], n: int) -> float:
    """Median seconds of one call, over different keys."""
    rng = np.random.default_rng(4)
    firsts = rng.integers(0, n, 3000 if n > 950 else 500).tolist()
    for first in firsts[:200]:
        work(first)
    seconds = []
    for first in firsts:
        begin = time.perf_counter()
        work(first)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def windows_disk(rows: int) -> dict[str, Any]:
    """See disk.py."""
    import disk

    return disk.windows_disk(rows)


def publish(rows: int) -> dict[str, Any]:
    """See apply.py; `ratio` is ours / raw in rate."""
    import apply

    return apply.measure(rows, 0)[0]


def apply_stream(events: int, rows: int) -> dict[str, Any]:
    """See apply.py; the state is filled with `rows` before."""
    import apply

    return apply.measure(rows, events)[1]


Case = Callable[[float], dict[str, Any]]
"""A case at a scale of its rows; 1 is what the budgets are for."""

CASES: dict[str, Case] = {
    "asof-100k": lambda scale: as_of(int(100_000 * scale)),
    "asof-1m": lambda scale: as_of(int(1_000_000 * scale)),
    "windows-1m": lambda scale: windows(int(1_000_000 * scale), int(10_000 * scale)),
    "windows-late": lambda scale: windows(int(1_000_000 * scale), int(10_000 * scale), late=0.05),
    "windows-hot": lambda scale: windows_hot(int(1_000_000 * scale)),
    "windows-disk": lambda scale: windows_disk(int(50_000_000 * scale)),
    "online-1": lambda scale: online(1),
    "online-100": lambda scale: online(100),
    "online-hot": lambda scale: online_hot(int(1_000_000 * scale)),
    "publish": lambda scale: publish(int(1_000_000 * scale)),
    "apply-stream": lambda scale: apply_stream(int(200_000 * scale), int(1_000_000 * scale)),
}


def measure(name: str, scale: float, queue: Any) -> None:
    """Run one case in this process."""
    from volano.kernels.compiled import warm

    warm()
    result = CASES[name](scale)
    if "ratio" not in result:
        result["ratio"] = result["ours_s"] / result["baseline_s"]
    queue.put({"case": name, **result})


def main() -> int:
    """Run the cases one after another, each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the list of results")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--scale", type=float, default=1.0, help="of the rows: 0.1 for a quick run")
    asked = parser.parse_args()
    import duckdb
    import numba

    print(
        f"{platform.machine()}, {multiprocessing.cpu_count()} cores, Python {platform.python_version()}, "
        f"numpy {np.__version__}, numba {numba.__version__}, pyarrow {pa.__version__}, duckdb {duckdb.__version__}"
    )
    context = multiprocessing.get_context("spawn")
    results = []
    failed = False
    for name in asked.only:
        queue = context.Queue()
        process = context.Process(target=measure, args=(name, asked.scale, queue))
        process.start()
        process.join()
        if process.exitcode != 0:
            print(f"{name}: failed")
            failed = True
            continue
        results.append(queue.get())
        print(line(results[-1]), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    return 1 if failed else 0


def line(result: dict[str, Any]) -> str:
    """A result for people."""
    baseline_s, ratio = result["baseline_s"], result["ratio"]
    rates = [
        f"{result[name]:,.0f} {name.removesuffix('_s')}/s"
        for name in ("rows_s", "events_s")
        if name in result
    ]
    theirs = "" if baseline_s is None else f" {baseline_s:.6f} s   ratio {ratio:.3f}"
    return "   ".join(
        [
            f"{result['case']:14} ours {result['ours_s']:.6f} s",
            f"{result['baseline']}{theirs}",
            f"peak {result['ours_peak_mb']:.0f} MB",
            *([f"Feast {result['feast_s']:.1f} s"] if "feast_s" in result else []),
            *([f"Feast {result['feast']}"] if "feast" in result else []),
            *rates,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
