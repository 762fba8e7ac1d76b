"""The cyclic garbage collector in a process that serves: its pauses show in latencies, its walks in throughput."""

from __future__ import annotations

import gc
from typing import Final

_NEW_OBJECTS: Final = 50_000
"""A batch of events makes and drops thousands of tuples, none of them in a cycle."""


def settle() -> None:
    """Keep the collector away from what is loaded, and let it look at new objects less often. After a warm-up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 20)
