"""Random small histories that press on every rule: ties, late, corrected, retracted, nulls, NaN, infinities, hot keys, far times."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from volano.kernels.arrays import NEVER
from volano.kernels.features import WindowFeature
from volano.kernels.history import History
from volano.kernels.oracle import Query, Row, Value
from volano.kernels.windows import Queries

TYPES = {"x": "float64", "y": "float64", "i": "int64", "flag": "bool", "s": "string", "at": "timestamp"}
ARROW = {
    "x": pa.float64(),
    "y": pa.float64(),
    "i": pa.int64(),
    "flag": pa.bool_(),
    "s": pa.string(),
    "at": pa.timestamp("us", tz="UTC"),
}

_floats = st.one_of(
    st.none(),
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, -0.0, 1.0, 1e9, 1e9 + 1, 1e-9, 1e15, -1e15]),
    st.integers(-5, 5).map(float),
)
_wild = st.one_of(_floats, st.sampled_from([math.nan, math.inf, -math.inf]))


def times(origin: int) -> st.SearchStrategy[int]:
    """Instants near `origin`, at several scales, ties likely."""
    return st.one_of(
        st.integers(-10, 10),
        st.integers(-100, 100).map(lambda n: n * 1_000_000),
        st.integers(-(2**22), 2**22),
        st.integers(-50, 50).map(lambda n: n * 3_600_000_000),
    ).map(lambda d: origin + d)


def values(floats: st.SearchStrategy[float | None]) -> st.SearchStrategy[dict[str, Value]]:
    return st.fixed_dictionaries(
        {
            "x": floats,
            "y": floats,
            "i": st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([2**62, -(2**62)])),
            "flag": st.sampled_from([True, True, False, None]),
            "s": st.one_of(st.none(), st.sampled_from(["", "a", "b", "ü–long enough to cross a word"])),
            "at": st.one_of(st.none(), st.integers(-5, 5)),
        }
    )


@st.composite
def worlds(draw: st.DrawFn, *, corrections: bool = True, wild: bool = True) -> tuple[list[Row], list[Query]]:
    """Rows and queries."""
    origin = draw(st.sampled_from([0, 1_700_000_000_000_000, -(2**52), 2**56 - 3]))
    keys = draw(st.sampled_from([["a"], ["a", "b"], ["a", "b", "c", "d", "e"]]))
    vals = values(_wild if wild else _floats)
    rows: list[Row] = []
    for n in range(draw(st.integers(0, 40))):
        t = draw(times(origin))
        seen = t + draw(st.sampled_from([0, 5, 300_000_000, 7_200_000_000]))
        row = Row(
            draw(st.sampled_from(keys)),
            t,
            draw(vals),
            (draw(st.integers(0, 1)),),
            (n * 0x9E3779B97F4A7C15F39CC0605CEDC834) % 2**128,
            seen,
        )
        fate = draw(st.integers(0, 9)) if corrections else 9
        if fate <= 1:
            until = seen + draw(st.sampled_from([1, 60_000_000, 3_600_000_000]))
            rows.append(replace(row, visible_until=until))
            if fate == 0:
                rows.append(
                    replace(
                        row,
                        event_time=t + draw(st.sampled_from([0, 0, 3])),
                        values=draw(vals),
                        visible_from=until,
                    )
                )
        else:
            rows.append(row)
    queries = []
    for _ in range(draw(st.integers(1, 12))):
        near = [r.event_time for r in rows]
        q = draw(st.one_of(times(origin), st.sampled_from(near) if near else times(origin))) + draw(
            st.sampled_from([0, 1, 10_000_000])
        )
        as_of = draw(st.sampled_from([q, q + 3_600_000_000, NEVER - 1]))
        exclude = draw(st.one_of(st.none(), st.sampled_from([r.row_id for r in rows]) if rows else st.none()))
        queries.append(Query(draw(st.sampled_from([*keys, "unknown", None])), q, as_of, exclude, draw(vals)))
    return rows, draw(st.permutations(queries)) if len(queries) < 6 else queries


def every_feature() -> list[WindowFeature]:
    """Each aggregate over each kind of window."""
    found: list[WindowFeature] = []
    windows: list[dict[str, Any]] = [
        {"window_us": 7},
        {"window_us": 10_000_000},
        {"window_us": 3_600_000_000},
        {"window_us": 86_400_000_000, "offset_us": 3_600_000_000},
        {"window_us": None},
        {"window_us": 7_200_000_000, "every_us": 3_600_000_000},
        {"window_us": None, "every_us": 1_000_000},
        {"window_us": 100_000_000, "every_us": 60_000_000, "publish_delay_us": 5_000_000},
        {"window_us": 10_000_000, "where": "flag"},
        {"window_us": 60_000_000, "include_request": True},
        {"window_us": None, "include_request": True, "where": "flag"},
    ]
    what: list[tuple[str, str | None, dict[str, Any]]] = [
        ("count", None, {}),
        ("count", "x", {}),
        ("sum", "x", {}),
        ("sum", "i", {}),
        ("sum", "flag", {}),
        ("mean", "x", {}),
        ("mean", "i", {}),
        ("min", "x", {}),
        ("max", "x", {}),
        ("min", "i", {}),
        ("max", "at", {}),
        ("max", "flag", {}),
        ("var", "x", {}),
        ("std", "x", {}),
        ("var_pop", "x", {}),
        ("std_pop", "x", {}),
        ("first", "x", {}),
        ("last", "x", {}),
        ("last", "s", {}),
        ("last", "at", {}),
        ("last", "flag", {}),
        ("last_non_null", "s", {}),
        ("last_non_null", "i", {}),
        ("rate", "flag", {"params": (0.25, 4.0)}),
        ("rate", "flag", {}),
        ("ratio", "x", {"over": "y"}),
        ("time_since_last", None, {}),
        ("time_since_last", "x", {}),
        ("count_distinct", "s", {}),
        ("last_n", "x", {"n": 3}),
        ("last_n", "s", {"n": 2}),
        ("first_n", "i", {"n": 2}),
        ("first_n", "x", {"n": 100}),
        ("last_n", "i", {"n": 1}),
        ("count_distinct", "x", {}),
        ("count_distinct", "i", {}),
    ]
    for n, window in enumerate(windows):
        for aggregate, column, more in what:
            found.append(
                WindowFeature(f"{aggregate}_{column}_{len(more)}_{n}", aggregate, column, **window, **more)
            )
    return found


def ids_of(rows: list[int]) -> np.ndarray:
    return np.array([[i >> 64, i & (2**64 - 1)] for i in rows], np.uint64).reshape(len(rows), 2)


def history_of(rows: list[Row]) -> History:
    """The same rows as kernels take them."""
    return History.build(
        pa.array([r.key for r in rows], pa.string()),
        np.array([r.event_time for r in rows], np.int64),
        columns={c: pa.array([r.values[c] for r in rows], ARROW[c]) for c in TYPES},
        order=[np.array([r.order[0] for r in rows], np.int64)],
        row_id=ids_of([r.row_id for r in rows]),
        visible_from=np.array([r.visible_from for r in rows], np.int64),
        visible_until=np.array([r.visible_until for r in rows], np.int64),
    )


def queries_of(queries: list[Query]) -> Queries:
    return Queries(
        pa.array([q.key for q in queries], pa.string()),
        np.array([q.q for q in queries], np.int64),
        as_of=np.array([q.as_of for q in queries], np.int64),
        exclude_id=pa.array(
            [None if q.exclude_id is None else q.exclude_id.to_bytes(16, "big") for q in queries],
            pa.binary(16),
        ),
        request={c: pa.array([q.request[c] for q in queries], ARROW[c]) for c in TYPES},
    )


def plain(array: pa.Array) -> list[Value]:
    """Python values; timestamps as µs."""
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    if pa.types.is_list(array.type) and pa.types.is_timestamp(array.type.value_type):
        array = array.cast(pa.list_(pa.int64()))
    return array.to_pylist()


def same(feature: WindowFeature, ours: Value, wanted: Value, tolerance: float) -> bool:
    """Whether a kernel's value is the oracle's."""
    if isinstance(wanted, list):
        same_each = (
            [repr(a) == repr(b) or a == b for a, b in zip(ours, wanted, strict=False)]
            if isinstance(ours, list)
            else []
        )
        return isinstance(ours, list) and len(ours) == len(wanted) and all(same_each)
    if ours is None or wanted is None or isinstance(wanted, (str, bool)) or not isinstance(ours, float):
        return ours == wanted
    assert isinstance(wanted, (int, float))
    if math.isnan(wanted) or math.isinf(wanted):
        return (math.isnan(ours) and math.isnan(wanted)) or ours == wanted
    if feature.aggregate in ("min", "max", "first", "last", "last_non_null", "time_since_last", "ratio"):
        return ours == wanted
    return abs(ours - wanted) <= tolerance + 1e-300
