"""Counts of different values, and a request's own row, on hot keys: exact, and what a read touches does not grow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.kernels.test_tiles import DAY, HOUR, Store
from volano.kernels.chunks import ChunkLayout, PackedRows
from volano.kernels.features import WindowFeature
from volano.kernels.tiled_reader import TiledReader
from volano.kernels.tiles import Tiles

LAYOUT = ChunkLayout(b"distinct", (("x", "float64"), ("s", "string"), ("flag", "bool"), ("i", "int64")))
WINDOWS = ({"window_us": 50_000}, {"window_us": 900_000}, {"window_us": 600_000, "offset_us": 150_000}, {})
FEATURES = [
    WindowFeature(f"{column}_{where}_{n}", "count_distinct", column, where=where, **window)
    for n, window in enumerate((*WINDOWS, {"window_us": 300_000, "every_us": 100_000}))
    for column, where in (("s", None), ("x", "flag"), ("i", None), ("s", "flag"))
]


def rows_of(rng: np.random.Generator, n: int, times: np.ndarray, n_values: int) -> PackedRows:
    words = rng.integers(0, n_values, (4, n))
    ids = np.stack([np.zeros(n, np.uint64), rng.integers(1, 2**60, n).astype(np.uint64)], axis=1)
    columns = {
        "x": pa.array(words[0] * 0.5, mask=rng.random(n) < 0.2),
        "s": pa.array([f"value {w}" if w else None for w in words[1].tolist()]),
        # True in one stretch of time only: elsewhere nodes have no value at all.
        "flag": pa.array((times // 200_000 % 3 == 1) & (words[2] % 2 == 1)),
        "i": pa.array(words[3]),
    }
    return LAYOUT.encode(times, ids, times, columns)


def id_of(words: np.ndarray) -> int:
    return (int(words[1]) + 2**63) << 64 | int(words[2]) + 2**63


def expected(alive: dict[int, tuple[int, tuple[object, ...]]], feature: WindowFeature, q: int) -> int:
    at = q if feature.every_us is None else q // feature.every_us * feature.every_us
    end = at - feature.offset_us
    begin = -(2**60) if feature.window_us is None else end - feature.window_us
    column = {"x": 0, "s": 1, "i": 3}[str(feature.column)]
    return len(
        {
            values[column]
            for t, values in alive.values()
            if begin <= t < end and values[column] is not None and (feature.where is None or values[2])
        }
    )


@pytest.mark.parametrize("seed", range(6))
def test_pages_of_witnesses_change_no_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tiles = Tiles(FEATURES, LAYOUT, 10**15, hot_rows=8, block_rows=4, dirty_blocks=(1, 2, 5, 9, 3, 17)[seed])
    store, reader = Store(tiles), TiledReader(FEATURES, tiles)
    alive: dict[int, tuple[int, tuple[object, ...]]] = {}
    pages_read = 0
    for step in range(40):
        n = int(rng.integers(1, 40))
        late = rng.random() < 0.4
        times = rng.integers(0 if late else 20_000 * step, 20_000 * (step + 1), n) // 10 * 10
        rows = rows_of(rng, n, np.sort(times), (3, 12, 60)[seed % 3])
        going = [row_id for row_id in alive if rng.random() < 0.03]
        store.apply("k", 0, rows, [(alive.pop(row_id)[0], row_id) for row_id in going])
        table = LAYOUT.decode(LAYOUT.merge([b""], rows, np.zeros(n, np.int64))[0])
        order = np.lexsort((rows.words[:, 2], rows.words[:, 1], rows.words[:, 0]))
        cells = zip(*(table[name].to_pylist() for name in ("x", "s", "flag", "i")), strict=True)
        for words, values in zip(rows.words[order], cells, strict=True):
            alive[id_of(words)] = (int(words[0]), values)
        q = 20_000 * (step + 1) - int(rng.integers(0, 30_000))
        hidden = rng.choice(list(alive)) if step % 2 else None
        hidden = None if hidden is None else int(hidden)
        at = None if hidden is None or step % 4 == 1 else alive[hidden][0]
        found = store.read(reader, "k", q, exclude_id=hidden, exclude_at=at)
        seen = {row_id: row for row_id, row in alive.items() if row_id != hidden}
        assert list(found) == [expected(seen, f, q) for f in FEATURES], step
        plan = reader.plan([value for _, value in store.values("k")], q)
        pages_read += sum(len(suffix) > 8 for _, suffix in plan.blocks)
    assert pages_read > 20, "pages are what this test is about"
    # What goes leaves nothing behind.
    store.apply(
        "k",
        0,
        PackedRows(np.empty((0, LAYOUT.width), np.int64), np.empty(0, np.int64)),
        [(t, row_id) for row_id, (t, _) in alive.items()],
    )
    assert not store.kept


HOT = [
    *(
        WindowFeature(f"{column}_{w}", "count_distinct", column, window_us=w)
        for column in ("s", "i")
        for w in (HOUR, DAY, 30 * DAY)
    ),
    WindowFeature("rare", "count_distinct", "s", window_us=30 * DAY, where="flag"),
    WindowFeature("spent", "sum", "x", window_us=30 * DAY, include_request=True),
    WindowFeature("seen", "count_distinct", "s", window_us=30 * DAY, include_request=True),
]


def touched(n: int) -> tuple[int, int]:
    """How many rows a read of one key with so many rows in its windows decodes, and the bytes of its blocks."""
    q = 1_700_000_000_000_000
    tiles = Tiles(HOT, LAYOUT, 7 * DAY)
    store, reader = Store(tiles), TiledReader(HOT, tiles)
    rng = np.random.default_rng(n)
    times = np.sort(q - rng.integers(1, 30 * DAY, n))
    rows = rows_of(rng, n, times, 100)
    for number in np.unique(times // (7 * DAY)).tolist():
        store.apply("k", number, rows.take(np.flatnonzero(times // (7 * DAY) == number)))
    numbers = [number for number, _ in store.values("k")]
    own = rows.take([n // 2])
    plan = reader.plan(
        [value for _, value in store.values("k")],
        q,
        exclude_id=id_of(rows.words[n // 2]),
        exclude_at=int(times[n // 2]),
    )
    blocks = [store.kept["k", numbers[place], suffix] for place, suffix in plan.blocks]
    values = reader.read(plan, blocks, q, exclude_id=id_of(rows.words[n // 2]), request=own)
    assert values[2] == 99
    assert values[5] == 100
    return sum(int.from_bytes(block[16:20], "little") for block in blocks), sum(map(len, blocks))


def test_what_a_read_of_a_hot_key_touches_does_not_grow_with_its_rows() -> None:
    few, many = touched(20_000), touched(200_000)
    # A few more nodes make up a window, each with at most a hundred values; blocks at its ends are more or less full.
    assert many[0] < 1.6 * few[0], (few, many)
    assert many[1] < 1.6 * few[1], (few, many)
    assert many[0] < 10_000, "of 200,000"


@pytest.mark.slow
def test_nor_with_a_million() -> None:
    few, many = touched(100_000), touched(1_000_000)
    assert many[0] < 1.6 * few[0], (few, many)
    assert many[0] < 10_000, "of a million"
