"""Hot chunks: tiles and blocks answer with the bits of plain chunks, and a read does not touch every row."""

from __future__ import annotations

import statistics
import struct
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.worlds import ARROW, TYPES, every_feature, history_of, ids_of, plain, queries_of, worlds
from volano.errors import StateMismatchError
from volano.kernels.chunks import ChunkLayout, PackedRows
from volano.kernels.features import WindowFeature
from volano.kernels.oracle import Query, Row
from volano.kernels.tiled_reader import TiledReader
from volano.kernels.tiles import Tiles, is_head
from volano.kernels.windows import compute

FEATURES = every_feature()
# A distinct count opens every tile of its window, and a pick the last ones: each kind is read without the others too.
KINDS = {
    "folds": [f for f in FEATURES if f.spec.kind in ("fold", "count", "since")],
    "picks": [f for f in FEATURES if f.spec.kind.startswith(("first", "last"))],
    "all": FEATURES,
}
LAYOUT = ChunkLayout(b"12345678", tuple(TYPES.items()), order=1)
HOUR = 3_600_000_000
DAY = 24 * HOUR
relaxed = settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Store:
    """Chunks, heads and blocks of many keys in a dictionary; a hot one is split."""

    def __init__(self, tiles: Tiles) -> None:
        self.tiles = tiles
        self.kept: dict[tuple[object, int, bytes], bytes] = {}
        self.n_fetched = 0

    def apply(self, key: object, number: int, rows: PackedRows, gone: Sequence[tuple[int, int]] = ()) -> None:
        """Put rows in, or take rows (event_time, id) out."""
        value = self.kept.get((key, number, b""), b"")
        if is_head(value):
            coming, going = rows.words[:, 0].tolist(), [t for t, _ in gone]
            touched = self.tiles.touched(value, number, coming, going)
            blocks = {suffix: self.kept[key, number, suffix] for suffix in touched}
            done = self.tiles.rewrite(value, number, blocks, rows, gone)
            done = self.tiles.with_pages(
                done, lambda suffixes: [self.kept[key, number, suffix] for suffix in suffixes]
            )
        else:
            left = [(0, row_id) for _, row_id in gone]
            chunk = self.tiles.layout.merge([value], rows, np.zeros(len(rows), np.int64), gone=left)[0]
            if not self.tiles.is_hot(chunk):
                self._put((key, number, b""), chunk)
                return
            done = self.tiles.split(chunk, number)
        self._put((key, number, b""), done.head)
        for suffix, block in done.blocks.items():
            self._put((key, number, suffix), block)

    def _put(self, name: tuple[object, int, bytes], value: bytes) -> None:
        if value:
            self.kept[name] = value
        else:
            self.kept.pop(name, None)

    def values(self, key: object) -> list[tuple[int, bytes]]:
        found = [
            (number, value) for (own, number, suffix), value in self.kept.items() if own == key and not suffix
        ]
        return sorted(found)

    def read(self, reader: TiledReader, key: object, q: int, **more: object) -> tuple[object, ...]:
        values = self.values(key)
        request = more.pop("request", None)
        exclude_at = more.pop("exclude_at", None)
        plan = reader.plan([value for _, value in values], q, exclude_at=exclude_at, **more)  # type: ignore[arg-type]
        self.n_fetched = len(plan.blocks)
        blocks = [self.kept[key, values[place][0], suffix] for place, suffix in plan.blocks]
        return reader.read(plan, blocks, q, request=request, **more)  # type: ignore[arg-type]


def packed(rows: list[Row]) -> PackedRows:
    return LAYOUT.encode(
        [r.event_time for r in rows],
        ids_of([r.row_id for r in rows]),
        [r.visible_from for r in rows],
        {c: pa.array([r.values[c] for r in rows], ARROW[c]) for c in TYPES},
        order=[[r.order[0] for r in rows]],
    )


def bits(x: object) -> object:
    if isinstance(x, list):
        return [bits(each) for each in x]
    return struct.pack("d", x) if isinstance(x, float) else x


@relaxed
@given(
    worlds(corrections=False),
    st.integers(0, 10),
    st.randoms(use_true_random=False),
    st.sampled_from([HOUR, 7_654_321_987, DAY, 36_400 * DAY]),
    st.sampled_from([1, 2, 5]),
    st.sampled_from(["folds", "folds", "picks", "all"]),
)
def test_tiled_chunks_answer_with_the_offline_bits(
    world: tuple[list[Row], list[Query]], part: int, random: object, span: int, block_rows: int, kind: str
) -> None:
    rows, queries = world
    features = [f for f in FEATURES[part::11] if f in KINDS[kind]]
    dirty = random.randint(1, 6)  # type: ignore[attr-defined]
    tiles = Tiles(features, LAYOUT, span, hot_rows=block_rows, block_rows=block_rows, dirty_blocks=dirty)
    store = Store(tiles)
    # Rows that come and go again leave no trace.
    passing = [Row(r.key, r.event_time, r.values, r.order, r.row_id ^ 7, r.visible_from) for r in rows[::3]]
    todo = [("in", r) for r in rows + passing]
    random.shuffle(todo)  # type: ignore[attr-defined]
    todo += [("out", r) for r in passing]
    while todo:
        size = random.randint(1, len(todo))  # type: ignore[attr-defined]
        batch, todo = todo[:size], todo[size:]
        for name in {(r.key, r.event_time // span) for _, r in batch}:
            own = [(way, r) for way, r in batch if (r.key, r.event_time // span) == name]
            if {way for way, _ in own} == {"in", "out"}:
                store.apply(*name, packed([r for way, r in own if way == "in"]))
                own = [each for each in own if each[0] == "out"]
            coming = [r for way, r in own if way == "in"]
            gone = [(r.event_time, r.row_id) for way, r in own if way == "out"]
            store.apply(*name, packed(coming), gone)
    results = compute(features, history_of(rows), queries_of(queries))
    reader = TiledReader(features, store.tiles)
    for n, query in enumerate(queries):
        if query.key is None:
            continue
        own_row = packed([Row(query.key, query.q, query.request, (0,), 0, 0)])
        for as_of in (query.as_of, None) if query.as_of >= 2**62 else (query.as_of,):
            ours = store.read(
                reader, query.key, query.q, as_of=as_of, exclude_id=query.exclude_id, request=own_row
            )
            for f, x in zip(features, ours, strict=True):
                wanted = plain(results[f.name].slice(n, 1))[0]
                assert bits(x) == bits(wanted), (f, query, x, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_windows_that_cut_through_blocks_answer_with_the_offline_bits(seed: int, kind: str) -> None:
    features = KINDS[kind]
    rng = np.random.default_rng(seed)
    spread = (40_000_000, 3 * HOUR, 60 * HOUR)[seed % 3]
    span = (DAY, 5_000_000_007, 36_400 * DAY)[seed % 3]
    block_rows = (3, 7, 20, 60)[seed % 4]
    origin = (0, 1_700_000_000_000_000)[seed % 2]
    rows = [
        Row(
            "a",
            t,
            {
                "x": None if rng.random() < 0.1 else float(rng.normal(0, 1) * 10.0 ** rng.integers(-6, 7)),
                "y": float(rng.normal(2, 1)),
                "i": int(rng.integers(-9, 9)),
                "flag": (True, False, None)[rng.integers(3)],
                "s": (None, "a", "longer than a word")[rng.integers(3)],
                "at": int(rng.integers(0, 5)),
            },
            (int(rng.integers(2)),),
            n + 1,
            t + int(rng.choice([0, HOUR])),
        )
        for n, t in enumerate((origin + rng.integers(-spread, spread, 500) // 1000 * 1000).tolist())
    ]
    store = Store(Tiles(features, LAYOUT, span, hot_rows=block_rows, block_rows=block_rows))
    for at in range(0, 500, 70):
        batch = rows[at : at + 70]
        for number in {r.event_time // span for r in batch}:
            store.apply("a", number, packed([r for r in batch if r.event_time // span == number]))
    queries = [
        Query("a", q, (2**62, q)[n % 2], int(rng.integers(1, 500)) if n % 5 == 0 else None, rows[n].values)
        for n, q in enumerate((origin + rng.integers(-spread, 2 * spread, 40)).tolist())
    ]
    results = compute(features, history_of(rows), queries_of(queries))
    reader = TiledReader(features, store.tiles)
    for n, query in enumerate(queries):
        own_row = packed([Row("a", query.q, query.request, (0,), 0, 0)])
        ours = store.read(
            reader, "a", query.q, as_of=query.as_of, exclude_id=query.exclude_id, request=own_row
        )
        for f, x in zip(features, ours, strict=True):
            wanted = plain(results[f.name].slice(n, 1))[0]
            assert bits(x) == bits(wanted), (f, query, x, wanted)


def filled(n: int, features: list[WindowFeature], q: int) -> tuple[Store, ChunkLayout]:
    """One key with n rows in the thirty days before q."""
    layout = ChunkLayout(b"hotbench", (("x", "float64"),))
    store = Store(Tiles(features, layout, 7 * DAY))
    rng = np.random.default_rng(n)
    t = np.sort(q - rng.integers(1, 30 * DAY, n))
    ids = np.stack([np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64)], axis=1)
    rows = layout.encode(t, ids, t, {"x": pa.array(rng.normal(100, 30, n))})
    for number in np.unique(t // (7 * DAY)).tolist():
        store.apply("k", number, rows.take(np.flatnonzero(t // (7 * DAY) == number)))
    return store, layout


HOT = [
    WindowFeature(f"{a}_{w}", a, "x", window_us=w)
    for w in (HOUR, 6 * HOUR, DAY, 30 * DAY)
    for a in ("sum", "count", "mean", "max", "last")
]


def test_a_million_rows_in_a_window_are_read_in_bounded_time() -> None:
    q = 1_700_000_000_000_000
    reads = {}
    for n in (1_000, 1_000_000):
        store, _ = filled(n, HOT, q)
        reader = TiledReader(HOT, store.tiles)
        values = [value for _, value in store.values("k")]
        numbers = [number for number, _ in store.values("k")]
        seconds = []
        for _ in range(60):
            begin = time.perf_counter()
            plan = reader.plan(values, q)
            blocks = [store.kept["k", numbers[place], suffix] for place, suffix in plan.blocks]
            found = reader.read(plan, blocks, q)
            seconds.append(time.perf_counter() - begin)
        assert found[HOT.index(next(f for f in HOT if f.name == f"count_{30 * DAY}"))] == n
        reads[n] = statistics.median(seconds)
        # What must be fetched: the heads, and the rows at the ends of windows.
        n_bytes = sum(map(len, values)) + sum(map(len, blocks))
        assert n_bytes < 1_000_000, "the rows alone are 56 MB"
    assert reads[1_000_000] < 30 * reads[1_000], reads


def test_a_write_to_a_hot_chunk_touches_few_blocks() -> None:
    q = 1_700_000_000_000_000
    store, layout = filled(200_000, HOT, q)
    number = q // (7 * DAY)
    head = store.kept["k", number, b""]
    assert is_head(head)
    assert len(store.tiles.touched(head, number, [q - 5])) == 1
    before = dict(store.kept)
    store.apply("k", number, layout.encode([q - 5], [b"n" * 16], [q], {"x": pa.array([7.0])}))
    changed = {name for name in before.keys() | store.kept.keys() if before.get(name) != store.kept.get(name)}
    assert len(changed) <= 3, "the head, and one block, or two where it was cut"


def test_a_head_of_another_definition_is_an_error() -> None:
    tiles = Tiles(HOT, ChunkLayout(b"hotbench", (("x", "float64"),)), 7 * DAY, hot_rows=2, block_rows=2)
    rows = tiles.layout.encode(
        [1, 2, 3], [bytes([n]) * 16 for n in range(3)], [1, 2, 3], {"x": pa.array([1.0] * 3)}
    )
    head = tiles.split(tiles.layout.merge([b""], rows, [0, 0, 0])[0], 0).head
    other = Tiles(HOT, ChunkLayout(b"another!", (("x", "float64"),)), 7 * DAY)
    with pytest.raises(StateMismatchError):
        TiledReader(HOT, other).plan([head], 9)
    with pytest.raises(StateMismatchError):
        other.touched(head, 0, [1])


def test_a_missing_block_is_an_error_and_no_row_is_dropped_in_silence() -> None:
    store, layout = filled(40_000, HOT, 1_700_000_000_000_000)
    values = [value for _, value in store.values("k")]
    reader = TiledReader(HOT, store.tiles)
    plan = reader.plan(values, 1_699_999_999_000_000)
    assert plan.blocks
    with pytest.raises(StateMismatchError):
        reader.read(plan, [b""] * len(plan.blocks), 1_699_999_999_000_000)
    number = 1_699_999_999_000_000 // (7 * DAY)
    row = layout.encode([1_699_999_999_000_000], [b"n" * 16], [0], {"x": pa.array([7.0])})
    head = store.kept["k", number, b""]
    touched = store.tiles.touched(head, number, row.words[:, 0].tolist())
    with pytest.raises(StateMismatchError):
        store.tiles.rewrite(head, number, dict.fromkeys(touched, b""), row)
