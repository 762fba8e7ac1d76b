"""Many datetimes as instants at once. msgspec writes a column of them as MessagePack, NumPy reads what it wrote.

Subtracting aware datetimes one by one costs as much as decoding the event that holds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np

from volano.values.instants import Instant

_ENCODER: Final = msgspec.msgpack.Encoder()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# A timestamp of MessagePack between 1970 and 2514: whole seconds fill 6 bytes, the last 4 of them a number; others 10,
# the last 8 of them the nanoseconds above the 34 bits of the seconds.
_WHOLE: Final = (6, 0xD6, ">u4")
_PARTED: Final = (10, 0xD7, ">u8")


def instant_of(moment: datetime) -> Instant:
    """An aware datetime as an instant."""
    return (moment - _EPOCH) // _MICROSECOND


def instants_of(moments: Sequence[Any]) -> list[Instant | None]:
    """A column of aware datetimes, or None, as instants.

    >>> instants_of([datetime(2026, 1, 1, 12, tzinfo=UTC), None])
    [1767268800000000, None]
    """
    found: list[Any] | None = _alike(moments)
    return _mixed(moments) if found is None else found


def _mixed(moments: Sequence[Any]) -> list[Instant | None]:
    """By two columns: those with whole seconds, and the others."""
    is_whole = [moment is not None and moment.microsecond == 0 for moment in moments]
    whole = _alike([moment for moment, chosen in zip(moments, is_whole, strict=True) if chosen])
    parted = _alike([moment for moment, chosen in zip(moments, is_whole, strict=True) if not chosen])
    if whole is None or parted is None:
        return [None if moment is None else instant_of(moment) for moment in moments]
    wholes, others = iter(whole), iter(parted)
    return [next(wholes if chosen else others) for chosen in is_whole]


def _alike(moments: Sequence[Any]) -> list[Instant] | None:
    """The instants of datetimes that all take the same number of bytes; None where they do not."""
    n = len(moments)
    try:
        data = np.frombuffer(_ENCODER.encode(moments), np.uint8)
    except OverflowError:  # in UTC it is not one of the years 1 to 9999
        return None
    head = 1 if n < 1 << 4 else 3 if n < 1 << 16 else 5  # of the array: its length
    for n_bytes, mark, kind in (_PARTED, _WHOLE):
        # Each begins where the one before it ends: the marks in their places prove all lengths.
        if len(data) == head + n_bytes * n and (data[head::n_bytes] == mark).all():
            words = np.ascontiguousarray(data[head:].reshape(n, n_bytes)[:, 2:]).view(kind).ravel()
            numbers = words.astype(np.uint64)
            if n_bytes == _PARTED[0]:
                numbers = (numbers & ((1 << 34) - 1)) * 1_000_000 + (numbers >> 34) // 1_000
            else:
                numbers = numbers * 1_000_000
            instants: list[Instant] = numbers.tolist()
            return instants
    return None
