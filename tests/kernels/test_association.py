"""The association is canonical: bits follow from the visible rows alone."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.worlds import every_feature, history_of, plain, queries_of, worlds
from volano.kernels import oracle
from volano.kernels.aggregates import moments, total
from volano.kernels.features import WindowFeature
from volano.kernels.history import History
from volano.kernels.oracle import Query, Row
from volano.kernels.windows import Queries, compute

FEATURES = every_feature()
relaxed = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
HOUR = 3_600_000_000


def bits(x: object) -> object:
    if isinstance(x, list):
        return [bits(each) for each in x]
    return struct.pack("d", x) if isinstance(x, float) else x


def answers(
    features: list[WindowFeature], rows: list[Row], queries: list[Query], *, threads: int = 2
) -> dict[str, list[object]]:
    found = compute(features, history_of(rows), queries_of(queries), threads=threads)
    return {name: [bits(x) for x in plain(array)] for name, array in found.items()}


@relaxed
@given(worlds(), st.integers(0, 10))
def test_sums_and_variances_associate_along_the_trie(world: tuple[list[Row], list[Query]], part: int) -> None:
    rows, queries = world
    features = [f for f in FEATURES[part::11] if f.aggregate in ("sum", "var_pop") and f.column == "x"]
    found = compute(features, history_of(rows), queries_of(queries))
    for f in features:
        for query, ours in zip(queries, plain(found[f.name]), strict=True):
            taken = [r for r in oracle.rows_of(f, rows, query) if r.values["x"] is not None]
            if not taken:
                continue
            grid, shift = f.grid_us, (f.grid_us - 1).bit_length()
            times = [((r.event_time // grid) << shift) + r.event_time % grid for r in taken]
            xs = [float(r.values["x"]) + 0.0 for r in taken]  # type: ignore[arg-type]
            if f.aggregate == "sum":
                wanted = oracle.associate(times, [total.init(x, 0.0) for x in xs], total.merge)[0]
            else:
                state = oracle.associate(times, [moments.init(x, 0.0) for x in xs], moments.merge)
                wanted = state[2] / len(xs)
            assert bits(ours) == bits(math.nan if math.isnan(wanted) else wanted)


def test_a_ratio_is_null_exactly_when_its_canonical_denominator_is_zero() -> None:
    """The sums associate along the trie of event times, whatever a more exact sum would be."""
    null = dict.fromkeys(("i", "flag", "s", "at"))
    below = {0: 1e17, 1: 1.0, 2: -1e17}
    found = {}
    for name, times in {
        "1e17 and 1 meet first": (0, 1, 2),  # (1e17 + 1) - 1e17 is 0
        "1 and -1e17 meet first": (1, 2, 3),  # 1e17 + (1 - 1e17) is 0 as well
        "1e17 and -1e17 meet first": (0, 4, 2),  # (1e17 - 1e17) + 1 is 1
    }.items():
        rows = [
            Row("a", t, {"x": 1.0, "y": below[n], **null}, (0,), n, t) for n, t in enumerate(times)
        ]  # fmt: skip
        query = Query("a", 9, request=dict.fromkeys(("x", "y", *null)))
        feature = WindowFeature("share", "ratio", "x", over="y", window_us=100)
        (ours,) = plain(compute([feature], history_of(rows), queries_of([query]))["share"])
        assert ours == oracle.compute(feature, rows, query)
        found[name] = ours
    assert list(found.values()) == [None, None, 3.0]


@relaxed
@given(worlds(), st.integers(0, 10), st.data())
def test_thinning_the_queries_changes_no_bit(
    world: tuple[list[Row], list[Query]], part: int, data: st.DataObject
) -> None:
    rows, queries = world
    features = FEATURES[part::11]
    whole = answers(features, rows, queries)
    kept = sorted(data.draw(st.sets(st.integers(0, len(queries) - 1), min_size=1)))
    thinned = answers(features, rows, [queries[n] for n in kept])
    assert thinned == {name: [values[n] for n in kept] for name, values in whole.items()}


@relaxed
@given(worlds(), st.integers(0, 10), st.randoms(use_true_random=False))
def test_neither_the_order_of_arrival_nor_rows_never_visible_change_a_bit(
    world: tuple[list[Row], list[Query]], part: int, random: object
) -> None:
    rows, queries = world
    features = FEATURES[part::11]
    more = [replace(r, row_id=r.row_id ^ 1, visible_from=2**62, visible_until=2**62 + 1) for r in rows]
    more += [replace(r, key="another", row_id=r.row_id ^ 2) for r in rows]
    shuffled = rows + more
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    asked = [replace(q, as_of=min(q.as_of, 2**61)) for q in queries]
    assert answers(features, shuffled, asked) == answers(features, rows, asked)


@relaxed
@given(worlds(), st.integers(0, 10), st.sampled_from([1, -1, 3]))
def test_shifting_all_times_by_whole_blocks_changes_no_bit(
    world: tuple[list[Row], list[Query]], part: int, blocks: int
) -> None:
    rows, queries = world
    features = [f for f in FEATURES[part::11] if f.every_us is None and f.column != "at"]
    if any(r.event_time >= 2**55 for r in rows):
        return
    by = blocks * 2**57

    def late(t: int) -> int:
        return t + by if -(2**61) < t < 2**61 else t

    moved = [
        replace(
            r,
            event_time=r.event_time + by,
            visible_from=late(r.visible_from),
            visible_until=late(r.visible_until),
        )
        for r in rows
    ]
    # A block as large as the sign's jump would change which half is first: times stay on one side of zero.
    if (
        any((r.event_time < 0) != (s.event_time < 0) for r, s in zip(rows, moved, strict=True))
        or len({r.event_time < 0 for r in rows}) > 1
    ):
        return
    asked = [replace(q, q=q.q + by, as_of=late(q.as_of)) for q in queries]
    assert answers(features, moved, asked) == answers(features, rows, queries)


def test_no_bit_depends_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(5)
    n = 20_000
    history = History.build(
        rng.integers(0, 7, n),
        rng.integers(0, 30 * 24 * HOUR, n),
        columns={"x": pa.array(rng.normal(size=n) * 10.0 ** rng.integers(-8, 8, n))},
    )
    features = [
        WindowFeature(f"{a}_{w}", a, "x", window_us=w)
        for a in ("sum", "std", "max", "last", "count_distinct")
        for w in (HOUR, 200 * HOUR, None)
    ]
    asked = Queries(rng.integers(0, 8, n), rng.integers(0, 30 * 24 * HOUR, n))
    one, two, five = (compute(features, history, asked, threads=threads) for threads in (1, 2, 5))
    assert all(one[f.name].equals(two[f.name]) and one[f.name].equals(five[f.name]) for f in features)


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_a_hot_key_equals_the_oracle(late: float) -> None:
    rng = np.random.default_rng(6)
    n = 3_000
    t = np.sort(rng.integers(0, 40 * HOUR, n)) // 1_000_000 * 1_000_000
    seen = t + np.where(rng.random(n) < late, rng.integers(0, 20 * HOUR, n), 0)
    x = rng.normal(100, 30, n)
    rows = [
        Row("hot", int(a), {"x": float(b)}, (), i, int(c))
        for i, (a, b, c) in enumerate(zip(t, x, seen, strict=True))
    ]
    queries = [Query("hot", int(q), int(q)) for q in rng.integers(0, 42 * HOUR, 40)]
    ids = np.stack([np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64)], axis=1)
    history = History.build(["hot"] * n, t, columns={"x": pa.array(x)}, row_id=ids, visible_from=seen)
    at = [q.q for q in queries]
    features = [
        WindowFeature(f"{a}_{w}", a, "x", window_us=w)
        for a in ("sum", "mean", "max", "std", "count", "first", "last")
        for w in (HOUR, 7 * HOUR + 1, 33 * HOUR, None)
    ]
    found = compute(features, history, Queries(["hot"] * len(at), at, as_of=at))
    for f in features:
        for query, ours in zip(queries, found[f.name].to_pylist(), strict=True):
            wanted = oracle.compute(f, rows, query)
            assert ours == pytest.approx(wanted, rel=1e-12, abs=1e-9), (f, query)
