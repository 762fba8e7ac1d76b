"""Hot chunks: tiles and blocks answer with the bits of plain chunks, and a read does not touch every row."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.worlds import ARROW, TYPES, every_feature, history_of, ids_of, plain, queries_of, worlds
from volano.kernels.chunks import ChunkLayout, PackedRows
from volano.kernels.oracle import Query, Row
from volano.kernels.tiles import TiledReader, Tiles, is_head
from volano.kernels.windows import compute

FEATURES = every_feature()
LAYOUT = ChunkLayout(b"12345678", tuple(TYPES.items()), order=1)
HOUR = 3_600_000_000
DAY = 24 * HOUR
relaxed = settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Store:
    """Chunks, heads and blocks of many keys in a dictionary; every chunk of more than `hot` rows is tiled."""

    def __init__(self, tiles: Tiles, hot: int) -> None:
        self.tiles = tiles
        self.hot = hot
        self.kept: dict[tuple[object, int, bytes], bytes] = {}
        self.n_fetched = 0

    def apply(self, key: object, number: int, rows: PackedRows, gone: Sequence[tuple[int, int]] = ()) -> None:
        """Put rows in, or take rows (event_time, id) out."""
        value = self.kept.get((key, number, b""), b"")
        if is_head(value):
            times = [*rows.words[:, 0].tolist(), *(t for t, _ in gone)]
            blocks = {
                suffix: self.kept[key, number, suffix] for suffix in self.tiles.touched(value, number, times)
            }
            done = self.tiles.rewrite(value, number, blocks, rows, gone)
        else:
            left = [(0, row_id) for _, row_id in gone]
            chunk = self.tiles.layout.merge([value], rows, np.zeros(len(rows), np.int64), gone=left)[0]
            if not chunk or struct.unpack_from("<I", chunk, 16)[0] <= self.hot:
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
        plan = reader.plan([value for _, value in values], q, **more)  # type: ignore[arg-type]
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
)
def test_tiled_chunks_answer_with_the_offline_bits(
    world: tuple[list[Row], list[Query]], part: int, random: object, span: int, block_rows: int
) -> None:
    rows, queries = world
    features = FEATURES[part::11]
    store = Store(Tiles(features, LAYOUT, span, block_rows=block_rows), hot=block_rows)
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
