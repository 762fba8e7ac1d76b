"""The online state answers with the offline kernel's bits."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.worlds import ARROW, TYPES, every_feature, history_of, ids_of, plain, queries_of, worlds
from volano.errors import StateMismatchError
from volano.kernels.arrays import NEVER
from volano.kernels.batch_reader import BatchReader
from volano.kernels.chunk_grid import chunk_number, chunk_numbers, chunk_span_us, reach_us
from volano.kernels.chunks import (
    ChunkLayout,
    ChunkReader,
    PackedRows,
)
from volano.kernels.features import WindowFeature
from volano.kernels.oracle import Query, Row
from volano.kernels.windows import compute

FEATURES = every_feature()
LAYOUT = ChunkLayout(b"12345678", tuple(TYPES.items()), order=1)
relaxed = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


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
@given(worlds(corrections=False), st.integers(0, 10), st.randoms(use_true_random=False), st.booleans())
def test_chunks_filled_in_any_order_answer_with_the_offline_bits(
    world: tuple[list[Row], list[Query]], part: int, random: object, finite: bool
) -> None:
    rows, queries = world
    features = [f for f in FEATURES[part::11] if not finite or f.window_us is not None]
    span = chunk_span_us(reach_us(features))
    state: dict[tuple[object, int], bytes] = {}
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    while shuffled:
        size = random.randint(1, len(shuffled))  # type: ignore[attr-defined]
        batch, shuffled = shuffled[:size], shuffled[size:]
        numbers = chunk_number([r.event_time for r in batch], span).tolist()
        names = [(r.key, number) for r, number in zip(batch, numbers, strict=True)]
        touched = list(dict.fromkeys(names))
        merged = LAYOUT.merge(
            [state.get(c, b"") for c in touched], packed(batch), [touched.index(c) for c in names]
        )
        state.update(zip(touched, merged, strict=True))
    results = compute(features, history_of(rows), queries_of(queries))
    reader = ChunkReader(features, LAYOUT)
    for n, query in enumerate(queries):
        if query.key is None:
            continue
        chunks = [
            state[query.key, c] for c in chunk_numbers(features, span, query.q) if (query.key, c) in state
        ]
        own = packed([Row(query.key, query.q, query.request, (0,), 0, 0)])
        ours = reader.read(chunks, query.q, as_of=query.as_of, exclude_id=query.exclude_id, request=own)
        for f, x in zip(features, ours, strict=True):
            wanted = plain(results[f.name].slice(n, 1))[0]
            assert bits(x) == bits(wanted), (f, query, x, wanted)


def test_state_of_another_definition_is_an_error() -> None:
    chunk = LAYOUT.merge([b""], packed([Row("a", 5, dict.fromkeys(TYPES), (0,), 1, 5)]), [0])[0]
    other = ChunkLayout(b"87654321", LAYOUT.columns, order=1)
    with pytest.raises(StateMismatchError):
        ChunkReader([WindowFeature("n", "count", window_us=10)], other).read([chunk], 9)
    with pytest.raises(StateMismatchError):
        other.merge([chunk], packed([]), [])
    with pytest.raises(StateMismatchError):
        other.decode(chunk[:20])


def test_a_removed_row_is_gone_and_an_empty_chunk_is_no_bytes() -> None:
    rows = [Row("a", t, dict.fromkeys(TYPES), (0,), t + 1, t) for t in range(3)]
    chunk = LAYOUT.merge([b""], packed(rows), [0, 0, 0])[0]
    assert LAYOUT.decode(LAYOUT.merge([chunk], gone=[(0, 2)])[0])["event_time"].cast(
        pa.int64()
    ).to_pylist() == [0, 2]
    assert LAYOUT.merge([chunk], prune_before=2) != [chunk]
    assert LAYOUT.merge([chunk], prune_before=3) == [b""]
    assert np.array_equal(LAYOUT.packed(chunk).words, packed(rows).words)


@relaxed
@given(worlds(), st.integers(0, 10), st.randoms(use_true_random=False))
def test_corrected_retracted_and_repeated_rows_leave_the_offline_bits(
    world: tuple[list[Row], list[Query]], part: int, random: object
) -> None:
    rows, queries = world
    features = FEATURES[part::11]
    span = chunk_span_us(reach_us(features))
    state: dict[tuple[object, int], bytes] = {}

    def deliver(batch: list[Row], gone: list[Row]) -> None:
        names = list(dict.fromkeys((r.key, int(chunk_number([r.event_time], span)[0])) for r in batch + gone))
        place = {name: n for n, name in enumerate(names)}

        def owner(r: Row) -> int:
            return place[r.key, int(chunk_number([r.event_time], span)[0])]

        merged = LAYOUT.merge(
            [state.get(name, b"") for name in names],
            packed(batch),
            [owner(r) for r in batch],
            gone=[(owner(r), r.row_id) for r in gone],
        )
        state.update(zip(names, merged, strict=True))

    standing = [r for r in rows if r.visible_until == NEVER]
    superseded = [r for r in rows if r.visible_until != NEVER]
    first = superseded + random.sample(standing, len(standing) // 2)  # type: ignore[attr-defined]
    random.shuffle(first)  # type: ignore[attr-defined]
    # A row that takes the place of another of its id comes after that is gone; all others come in any order, twice.
    deliver([r for r in first if r in superseded or r.row_id not in {s.row_id for s in superseded}], [])
    deliver([], superseded)
    for _ in range(2):
        random.shuffle(standing)  # type: ignore[attr-defined]
        for n in range(0, len(standing), 3):
            deliver(standing[n : n + 3], [])
    asked = [replace(query, as_of=NEVER - 1) for query in queries]
    results = compute(features, history_of(rows), queries_of(asked))
    reader = ChunkReader(features, LAYOUT)
    for n, query in enumerate(asked):
        if query.key is None:
            continue
        chunks = [
            state[query.key, c] for c in chunk_numbers(features, span, query.q) if (query.key, c) in state
        ]
        own = packed([Row(query.key, query.q, query.request, (0,), 0, 0)])
        ours = reader.read(chunks, query.q, exclude_id=query.exclude_id, request=own)
        for f, x in zip(features, ours, strict=True):
            assert bits(x) == bits(plain(results[f.name].slice(n, 1))[0]), (f, query)
        many = reader.read_many([chunks], [query.q], exclude_ids=[query.exclude_id], requests=own)
        assert [bits(x) for x in many[0]] == [bits(x) for x in ours]


@relaxed
@given(worlds(corrections=False), st.integers(0, 10))
def test_columns_of_many_keys_hold_the_bits_of_each(world: tuple[list[Row], list[Query]], part: int) -> None:
    rows, queries = world
    features = [f for f in FEATURES[part::11] if not f.include_request]
    span = chunk_span_us(reach_us(features))
    numbers = chunk_number([r.event_time for r in rows], span).tolist()
    names = [(r.key, number) for r, number in zip(rows, numbers, strict=True)]
    touched = list(dict.fromkeys(names))
    merged = LAYOUT.merge([b""] * len(touched), packed(rows), [touched.index(name) for name in names])
    state = dict(zip(touched, merged, strict=True))
    reader, keys = ChunkReader(features, LAYOUT), [*dict.fromkeys(r.key for r in rows), "nobody"]
    for q in {query.q for query in queries}:
        asked = chunk_numbers(features, span, q)
        found = [state.get((key, number)) for key in keys for number in asked]
        columns = BatchReader(reader).read(found, len(asked), q).to_arrow()
        for n, key in enumerate(keys):
            ours = reader.read([state[key, c] for c in asked if (key, c) in state], q)
            assert [bits(plain(column.slice(n, 1))[0]) for column in columns.columns] == list(map(bits, ours))
