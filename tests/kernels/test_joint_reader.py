"""A joint reader gives the same bits as a chunk reader for each key."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from volano.errors import StateMismatchError
from volano.kernels.chunks import ChunkLayout, ChunkReader
from volano.kernels.features import WindowFeature
from volano.kernels.joint_reader import JointReader

AT = pa.timestamp("us", tz="UTC")
PLANES = ChunkLayout(
    b"planes__",
    (("delay", "float64"), ("carrier", "string"), ("late", "bool"), ("seen", "timestamp"), ("legs", "int64")),
)
AIRPORTS = ChunkLayout(b"airports", (("delay", "float64"),), order=1)
PLANE_FEATURES = [
    WindowFeature("mean", "mean", "delay", window_us=300),
    WindowFeature("carrier", "last", "carrier", window_us=200),
    WindowFeature("late", "last", "late", window_us=200),
    WindowFeature("seen", "max", "seen", window_us=500),
    WindowFeature("legs", "sum", "legs", window_us=500, offset_us=50),
    WindowFeature("n", "count", where="late", window_us=1_000),
    WindowFeature("carriers", "count_distinct", "carrier", window_us=1_000),
    WindowFeature("daily", "std", "delay", window_us=400, every_us=100),
]
AIRPORT_FEATURES = [WindowFeature("all", "mean", "delay"), WindowFeature("n", "count", window_us=10)]


def maybe(random: np.random.Generator, values: list[Any]) -> list[Any]:
    return [None if random.random() < 0.2 else value for value in values]


def chunks(random: np.random.Generator, layout: ChunkLayout, n: int) -> list[bytes]:
    """The rows of one key in two chunks."""
    at = random.integers(0, 1_000, n)
    columns = {
        "delay": pa.array(maybe(random, random.normal(0, 1e6, n).tolist()), pa.float64()),
        "carrier": pa.array(maybe(random, [("AA", "Ünited", "")[i] for i in random.integers(3, size=n)])),
        "late": pa.array(maybe(random, (random.random(n) > 0.5).tolist()), pa.bool_()),
        "seen": pa.array(maybe(random, random.integers(0, 9**15, n).tolist()), AT),
        "legs": pa.array(maybe(random, random.integers(-(2**62), 2**50, n).tolist()), pa.int64()),
    }
    rows = layout.encode(
        at,
        [bytes(15) + bytes([i]) for i in range(n)],
        at,
        {name: columns[name] for name in layout.types},
        order=[[0] * n] * layout.order,
    )
    return [chunk for chunk in layout.merge([b"", b""], rows, (at >= 500).astype(int)) if chunk]


def bits(values: Any) -> list[Any]:
    return [struct.pack("<d", value) if isinstance(value, float) else value for value in values]


@pytest.mark.parametrize("seed", range(20))
def test_one_call_gives_the_bits_of_many(seed: int) -> None:
    random = np.random.default_rng(seed)
    readers = [
        ChunkReader(PLANE_FEATURES, PLANES),
        ChunkReader(AIRPORT_FEATURES, AIRPORTS),
        ChunkReader(PLANE_FEATURES, PLANES),
    ]
    found = [chunks(random, reader.layout, int(random.integers(0, 60))) for reader in readers]
    q = int(random.integers(0, 1_500))
    apart = [value for reader, own in zip(readers, found, strict=True) for value in reader.read(own, q)]
    together = JointReader(readers).read(found, q)
    assert bits(together) == bits(apart)
    assert [type(value) for value in together] == [type(value) for value in apart]


def test_a_chunk_of_another_layout_is_refused() -> None:
    random = np.random.default_rng(0)
    joint = JointReader([ChunkReader(AIRPORT_FEATURES, AIRPORTS), ChunkReader(PLANE_FEATURES, PLANES)])
    with pytest.raises(StateMismatchError, match="another definition"):
        joint.read([[], chunks(random, AIRPORTS, 5)], 100)


def test_no_reader_reads_nothing() -> None:
    assert JointReader([]).read([], 0) == ()
