"""The rows of packed chunks: what a lane sees of them."""

from __future__ import annotations

from volano.kernels.arrays import I64r

ENTRY = ()


def present(words: I64r, row: int, first_mask: int, column: int) -> bool:
    """Whether a value of the row at word `row` is not null."""
    return bool((words[row + first_mask + (column >> 6)] >> (column & 63)) & 1 == 0)


def takes_part(words: I64r, row: int, first_mask: int, first_value: int, where: int, x: int, y: int) -> bool:
    """Whether a lane sees the row: its filter is true and its columns are not null."""
    if x >= 0 and not present(words, row, first_mask, x):
        return False
    if y >= 0 and not present(words, row, first_mask, y):
        return False
    return bool(
        where < 0 or (present(words, row, first_mask, where) and words[row + first_value + where] != 0)
    )
