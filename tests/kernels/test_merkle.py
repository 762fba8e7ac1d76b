"""The content hash depends on content alone, and on all of it."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from volano.kernels.merkle import merkle_root, row_digests


def table(**changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "id": pa.array(["a", "b", "c"]),
        "at": pa.array([1, 2, None], pa.timestamp("us", "UTC")),
        "x": pa.array([0.0, 1.5, None], pa.float64()),
        "n": pa.array([1, None, 3], pa.int64()),
        "ok": pa.array([True, False, None]),
        "few": pa.array([[1.0, None], None, []], pa.list_(pa.float64())),
    }
    return pa.table({**columns, **changes})


def test_layout_does_not_count() -> None:
    whole = table()
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    coded = whole.set_column(0, "id", whole["id"].dictionary_encode())
    sliced = pa.concat_tables([whole, whole]).slice(3)
    assert merkle_root(whole) == merkle_root(chunked) == merkle_root(coded) == merkle_root(sliced)


def test_one_nan_and_one_zero() -> None:
    other_nan = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0001))[0]
    left = table(x=pa.array(np.array([0.0, np.nan, 1.0])))
    right = table(x=pa.array(np.array([-0.0, other_nan, 1.0])))
    assert merkle_root(left) == merkle_root(right)


@pytest.mark.parametrize(
    "changes",
    [
        {"x": pa.array([0.0, 1.5, 0.0])},  # null is not zero
        {"x": pa.array([0.0, 1.5, float("nan")])},  # null is not NaN
        {"x": pa.array([5e-324, 1.5, None])},
        {"id": pa.array(["a", "b", None])},
        {"id": pa.array(["a", "b", ""])},
        {"ok": pa.array([1, 0, None], pa.int64())},  # the type counts
        {"few": pa.array([[1.0], None, []], pa.list_(pa.float64()))},
        {"few": pa.array([[1.0, None], [], None], pa.list_(pa.float64()))},
        {"n": pa.array([1, None, 4], pa.int64())},
    ],
)
def test_every_value_counts(changes: dict[str, Any]) -> None:
    assert merkle_root(table(**changes)) != merkle_root(table())


def test_names_order_and_number_of_rows_count() -> None:
    whole = table()
    roots = {
        merkle_root(whole),
        merkle_root(whole.rename_columns(["id", "at", "y", "n", "ok", "few"])),
        merkle_root(whole.select(["id", "x", "at", "n", "ok", "few"])),
        merkle_root(whole.take([1, 0, 2])),
        merkle_root(whole.slice(0, 2)),
        merkle_root(whole.slice(0, 0)),
    }
    assert len(roots) == 6


def test_a_change_is_traced_to_its_row() -> None:
    before, after = row_digests(table()), row_digests(table(x=pa.array([0.0, 2.5, None])))
    assert (before != after).any(axis=1).tolist() == [False, True, False]


def test_many_rows_use_several_levels() -> None:
    rows = pa.table({"id": pa.array([str(n) for n in range(70_000)])})
    assert merkle_root(rows) == merkle_root(pa.concat_tables([rows.slice(0, 9), rows.slice(9)]))
    assert merkle_root(rows) != merkle_root(rows.take(np.r_[1, 0, 2:70_000]))


def test_a_dictionary_is_a_matter_of_speed_only() -> None:
    mostly_distinct = [f"w{n}" if n % 7 else None for n in range(3_000)]
    few = ["a", None, "é"] * 1_000
    for words in (mostly_distinct, few):
        expected = [bytes(32) if word is None else hashlib.sha256(word.encode()).digest() for word in words]
        column = pa.chunked_array([words[:10], words[10:]])
        leaves = [
            hashlib.sha256(b"\x00" + bytes([word is not None]) + digest).digest()
            for word, digest in zip(words, expected, strict=True)
        ]
        assert row_digests(pa.table({"w": column})).tobytes() == b"".join(leaves)
        assert row_digests(pa.table({"w": column}).slice(5)).tobytes() == b"".join(leaves[5:])


def test_the_root_is_pinned_for_ever() -> None:
    assert merkle_root(table()) == "91f1b2598e659641816351b22993f3861f4402e3ceb40eaa6cdeb05ca232db6f"


def test_a_type_without_canonical_bytes_is_refused() -> None:
    with pytest.raises(TypeError, match="decimal"):
        merkle_root(pa.table({"x": pa.array([1], pa.decimal128(5))}))
