"""Sealed rows change no bit: tails answer as the rows did, whatever was sealed when."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.test_tiles import DAY, FEATURES, HOUR, LAYOUT, bits, packed, relaxed
from tests.kernels.worlds import history_of, plain, queries_of, worlds
from volano.errors import SealedStateError, StateMismatchError
from volano.kernels.arrays import NEVER
from volano.kernels.chunks import ChunkLayout
from volano.kernels.features import WindowFeature
from volano.kernels.oracle import Query, Row
from volano.kernels.sealed import Horizon, Sealer, closed, horizon, is_sealable, is_sealed, opened, parted
from volano.kernels.tiled_reader import TiledReader
from volano.kernels.tiles import Tiles
from volano.kernels.windows import compute

LIFETIME_OF_REQUEST = [f for f in FEATURES if f.window_us is None and f.include_request]
SEALED = [f for f in FEATURES if is_sealable(f) and not f.include_request]
PLAIN = [f for f in FEATURES if not is_sealable(f)]


def close_horizon(features: list[WindowFeature]) -> Horizon:
    """The horizon without the margins that only save work."""
    found = horizon(features, 0)
    assert found is not None
    return Horizon(found.raw_us, math.lcm(*(f.grid_us for f in features if is_sealable(f))))


class Chunks:
    """The values of one key by chunk number, rows going in and being sealed."""

    def __init__(self, features: list[WindowFeature], span: int) -> None:
        self.tiles = Tiles(features, LAYOUT, span)
        self.sealer = Sealer(self.tiles, close_horizon(features))
        self.values: dict[int, bytes] = {}

    def deliver(self, rows: list[Row]) -> None:
        for row in rows:
            number = row.event_time // self.tiles.span_us
            tail, inner = opened(self.values.get(number, b""), self.tiles)
            assert tail is None or row.event_time >= tail.seal
            (inner,) = LAYOUT.merge([inner], packed([row]), [0])
            self.values[number] = closed(tail, inner, LAYOUT)

    def seal(self, until: int) -> None:
        for number, value in self.values.items():
            tail, inner = opened(value, self.tiles)
            seal = min(until, (number + 1) * self.tiles.span_us)
            if seal <= number * self.tiles.span_us or (tail is not None and seal <= tail.seal):
                continue
            before, after = parted(LAYOUT, inner, seal)
            self.values[number] = closed(self.sealer.seal(tail, before, seal, number), after, LAYOUT)

    def read(self, reader: TiledReader, q: int, **more: object) -> tuple[object, ...]:
        values = [value for _, value in sorted(self.values.items())]
        plan = reader.plan(values, q)
        assert not plan.blocks
        found = reader.read(plan, [], q, **more)  # type: ignore[arg-type]
        at_once = reader.read_sealed(values, q, **more)  # type: ignore[arg-type]
        assert bits(list(at_once or ())) == bits(list(found))
        return found


@relaxed
@given(
    worlds(corrections=False),
    st.integers(0, 6),
    st.randoms(use_true_random=False),
    st.sampled_from([7_654_321_987, DAY, 28 * DAY, 36_400 * DAY]),
    st.booleans(),
)
def test_sealed_rows_answer_with_the_offline_bits(
    world: tuple[list[Row], list[Query]], part: int, random: object, span: int, mixed: bool
) -> None:
    rows, queries = world
    rows = sorted((replace(r, key="a") for r in rows), key=lambda r: r.event_time)
    features = SEALED[part::7] + (PLAIN[part::13] if mixed else [])
    chunks = Chunks(features, span)
    align = chunks.sealer.horizon.align_us
    sealed = -(2**60)
    at = 0
    while at < len(rows):
        size = random.randint(1, len(rows))  # type: ignore[attr-defined]
        batch = rows[at : at + size]
        at += size
        random.shuffle(batch)  # type: ignore[attr-defined]
        chunks.deliver(batch)
        # What comes later happened later: a seal never stands before a row that is still to come.
        latest = rows[at].event_time if at < len(rows) else rows[-1].event_time + DAY
        if random.random() < 0.7:  # type: ignore[attr-defined]
            sealed = latest // align * align
            chunks.seal(sealed)
    first = sealed + chunks.sealer.horizon.raw_us
    asked = [
        replace(each, key="a", q=q, as_of=NEVER - 1, exclude_id=None)
        for each in queries
        for q in (max(first, each.q), first + abs(each.q) % 10)
    ]
    results = compute(features, history_of(rows), queries_of(asked))
    reader = TiledReader(features, chunks.tiles)
    for n, query in enumerate(asked):
        own = packed([Row("a", query.q, query.request, (0,), 0, 0)])
        for f, x in zip(features, chunks.read(reader, query.q, request=own), strict=True):
            wanted = plain(results[f.name].slice(n, 1))[0]
            assert bits(x) == bits(wanted), (f, query.q, x, wanted)


@pytest.mark.parametrize("seed", range(4))
def test_cells_merge_and_go_as_windows_leave_them(seed: int) -> None:
    """Years of rows under windows of days: what is kept does not grow, and what is read are the bits of all rows."""
    rng = np.random.default_rng(seed)
    windows = (
        {"window_us": 10 * DAY, "every_us": DAY},
        {"window_us": None, "every_us": DAY},
        {"window_us": None},
    )
    picked = windows[:1] if seed == 3 else windows
    what = (
        ("sum", "x", {}),
        ("std", "x", {}),
        ("count_distinct", "s", {}),
        ("last_n", "i", {"n": 2}),
        ("ratio", "x", {"over": "y"}),
    )
    features = [
        WindowFeature(f"{a}_{n}", a, c, **more, **window)
        for n, window in enumerate(picked)
        for a, c, more in what
    ]  # fmt: skip
    chunks = Chunks(features, 36_400 * DAY)
    reader = TiledReader(features, chunks.tiles)
    rows: list[Row] = []
    sizes = []
    for day in range(0, 700, 7):
        batch = [
            Row(
                "a",
                int(t),
                {
                    "x": float(rng.normal()) * 10.0 ** int(rng.integers(-9, 9)),
                    "y": float(rng.normal()),
                    "i": int(rng.integers(5)),
                    "flag": True,
                    "s": (None, "a", "bb")[rng.integers(3)],
                    "at": 0,
                },
                (0,),
                len(rows) + n + 1,
                0,
            )
            for n, t in enumerate(np.sort(rng.integers(day * DAY, (day + 7) * DAY, 12)).tolist())
        ]
        rows += batch
        chunks.deliver(batch)
        chunks.seal((day + 7) * DAY)
        sizes.append(len(chunks.values[0]))
    q = 700 * DAY + chunks.sealer.horizon.raw_us + 5
    results = compute(features, history_of(rows), queries_of([Query("a", q, request=rows[0].values)]))
    found = chunks.read(reader, q)
    assert [bits(x) for x in found] == [bits(plain(results[f.name])[0]) for f in features]
    assert max(sizes[-20:]) < 1.5 * max(sizes[5:25]), "of 1,200 rows"


def test_what_may_not_be_sealed_says_so() -> None:
    lifetime = WindowFeature("n", "count")
    daily = WindowFeature("m", "sum", "x", window_us=30 * DAY, every_us=DAY)
    week = WindowFeature("w", "sum", "x", window_us=7 * DAY, offset_us=DAY)
    assert horizon([week], HOUR) is None, "nothing is gained"
    assert horizon([lifetime, week], None) is None, "rows of any age may come"
    assert horizon([week, LIFETIME_OF_REQUEST[0]], HOUR) is None, "the request's own row may be an old one"
    assert horizon([lifetime, week], HOUR) == Horizon(8 * DAY + HOUR, DAY)
    assert horizon([daily], HOUR) == Horizon(HOUR, DAY)
    odd = WindowFeature("o", "count", window_us=7 * DAY + HOUR, every_us=7 * DAY + HOUR)
    assert horizon([odd, daily], HOUR) == Horizon(HOUR, 169 * DAY)


def test_a_read_before_the_seal_and_another_definition_are_errors() -> None:
    features = [WindowFeature("n", "count"), WindowFeature("m", "sum", "x", window_us=HOUR)]
    chunks = Chunks(features, 36_400 * DAY)
    values = dict.fromkeys(("x", "y", "i", "flag", "s", "at"))
    chunks.deliver([Row("a", t * HOUR, values, (0,), t, 0) for t in range(1, 60)])
    chunks.seal(2 * DAY)
    assert is_sealed(chunks.values[0])
    reader = TiledReader(features, chunks.tiles)
    assert chunks.read(reader, 60 * HOUR) == (59, None)
    with pytest.raises(SealedStateError, match="sealed"):
        chunks.read(reader, 2 * DAY + HOUR - 1)
    other = Tiles(features, ChunkLayout(b"another!", LAYOUT.columns, order=1), 36_400 * DAY)
    with pytest.raises(StateMismatchError):
        opened(chunks.values[0], other)
