"""The grid of time that chunks lie on: how wide a chunk is, which one holds an instant, and which ones a read needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from volano.kernels.arrays import I64
from volano.kernels.features import WindowFeature
from volano.kernels.history import ArrayLike, instants
from volano.values.instants import DAY_US, HOUR_US

LADDER_US: Final = (
    *(n * HOUR_US for n in (1, 2, 4, 8)),
    *(n * DAY_US for n in (1, 2, 7, 14, 28, 91, 182, 364)),
)
LIFETIME_US: Final = 36_400 * DAY_US
"""Chunk width of a lifetime window: a century, so that one or two chunks hold a key's whole past."""
MAX_CHUNKS: Final = 4
"""How many chunks of one key a read may need. A get costs more than the rows outside the windows that wider chunks
bring; writes rewrite whole chunks, so no wider than that."""
_EARLIEST: Final = -62_135_596_800_000_000
"""The year 1: a lifetime window begins here."""


def chunk_span_us(reach: int | None) -> int:
    """The narrowest chunk of the ladder with which a read of that reach needs at most MAX_CHUNKS keys.

    Args:
        reach: how far before q a read looks, µs (`reach_us`); None for the whole past.

    >>> chunk_span_us(12 * HOUR_US) == 4 * HOUR_US, chunk_span_us(365 * DAY_US) == 182 * DAY_US
    (True, True)
    """
    if reach is None:
        return LIFETIME_US
    fits = (span for span in LADDER_US if -(-reach // span) + 1 <= MAX_CHUNKS)
    return next(fits, LIFETIME_US)


def reach_us(features: Sequence[WindowFeature]) -> int | None:
    """How far before q the features look; None when one looks at the whole past."""
    reach = 0
    for f in features:
        if f.window_us is None:
            return None
        reach = max(reach, f.window_us + f.offset_us + (f.every_us or 0) + f.publish_delay_us)
    return reach


def chunk_number(event_time: ArrayLike, span_us: int) -> I64:
    """The chunk of each instant."""
    number: I64 = instants(event_time) // span_us
    return number


def chunk_numbers(features: Sequence[WindowFeature], span_us: int, q: int) -> range:
    """The chunks that a read at q needs, oldest first."""
    begin, end = q, q - (1 << 62)
    for f in features:
        at = q if f.every_us is None else (q - f.publish_delay_us) // f.every_us * f.every_us
        begin = min(begin, _EARLIEST if f.window_us is None else at - f.offset_us - f.window_us)
        end = max(end, at - f.offset_us)
    return range(begin // span_us, (end - 1) // span_us + 1)
