"""Composite keys: codes tell keys apart exactly, however many columns there are and however wide they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from volano.kernels.history import KeyIndex


def _columns(n: int, n_columns: int, seed: int) -> tuple[pa.Array, ...]:
    random = np.random.default_rng(seed)
    columns = []
    for at in range(n_columns):
        numbers = random.integers(-(2**62), 2**62, n)
        numbers[random.random(n) < 0.3] = numbers[0]
        missing = random.random(n) < 0.05
        columns.append(
            pa.array(numbers, mask=missing) if at % 2 else pa.array(numbers.astype(str), mask=missing)
        )
    return tuple(columns)


@pytest.mark.parametrize("n_columns", [1, 2, 3, 4, 6])
def test_codes_are_equal_exactly_where_the_keys_are(n_columns: int) -> None:
    n = 20_000
    columns = _columns(n, n_columns, seed=n_columns)
    index, codes = KeyIndex.build(columns)
    keys = list(zip(*(column.to_pylist() for column in columns), strict=True))
    code_of: dict[tuple[object, ...], int] = {}
    for key, code in zip(keys, codes.tolist(), strict=True):
        if None in key:
            assert code == -1
        else:
            assert 0 <= code < index.n
            assert code_of.setdefault(key, code) == code
    assert len(set(code_of.values())) == len(code_of)
    assert np.array_equal(index.find(columns), codes)


def test_three_wide_integer_columns_do_not_run_out_of_bits() -> None:
    """Sizes whose product lies beyond 2^63: every key still finds its own row, and no other key any."""
    n = 2_200_000
    numbers = np.arange(n, dtype=np.int64)
    columns = (numbers, numbers[::-1].copy(), np.roll(numbers, 7))
    index, codes = KeyIndex.build(columns)
    assert len(np.unique(codes)) == n and codes.min() >= 0
    assert np.array_equal(index.find(columns), codes)
    assert (index.find((numbers, numbers[::-1].copy(), numbers)) == -1).all()
