"""The rows of some keys as the lake holds them: what the applier asks for when a row changes that it has sealed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from volano.plan.state import StateGroup
from volano.values.instants import Instant


class KeyHistory(Protocol):
    """Reads the standing rows of keys. Slow: it is asked when a fact older than every window is corrected."""

    def rows(
        self,
        group: StateGroup,
        wanted: Mapping[bytes, tuple[Instant, Instant]],
        *,
        stamp: Instant,
        sequence: int,
    ) -> Mapping[bytes, bytes]:
        """Rows as the group stores them.

        Args:
            group: of online state.
            wanted: by the head of the online key (`plan.state.key_head`), from when until when rows happened.
            stamp: only what was applied by then, and stood then.
            sequence: of the newest batch that was applied by then; it may not be in the lake yet.

        Returns:
            A packed chunk for each head; b"" where no row stands. As of the stamp, so asking again gives the same.
        """
        ...
