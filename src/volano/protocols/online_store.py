"""The online store: keys and bytes, one writer, readers with consistent snapshots. Knows nothing of features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from volano.values.instants import Instant


class OnlineSnapshot(Protocol):
    """One consistent state: every read sees exactly the writes up to `stamp`."""

    @property
    def stamp(self) -> Instant:
        """The newest stamp applied to this state; BEGINNING for an empty store."""
        ...

    @property
    def sequence(self) -> int:
        """The newest apply-log sequence in this state; 0 for an empty store."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of some keys in the order asked; None where there is none."""
        ...

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) with start <= key < stop, in byte order."""
        ...


class OnlineReader(Protocol):
    """Opens snapshots. Cheap enough for one a request."""

    def snapshot(self) -> AbstractContextManager[OnlineSnapshot]:
        """A snapshot that stays as it is until the context ends."""
        ...


class OnlineWriter(OnlineReader, Protocol):
    """The applier's side; one process at a time.

    Opening a second writer raises StoreBusyError.
    """

    def write(
        self,
        puts: Mapping[bytes, bytes],
        deletes: Iterable[bytes],
        *,
        stamp: Instant,
        sequence: int,
    ) -> None:
        """Apply puts and deletes, and move stamp and sequence, in one atomic step. Survives a kill of the process.

        A sequence that is not above the present one is a repetition and is skipped whole (exactly-once). Sequence 0
        writes outside the apply log (a backfill) and leaves the stored sequence as it is. Raises StoreFullError.
        """
        ...

    def sync(self) -> None:
        """Make everything written so far survive a loss of power."""
        ...

    def check_readers(self) -> int:
        """Free what readers that were killed still hold; returns how many there were. Call it on a timer."""
        ...

    def close(self) -> None:
        """Sync, and release everything. Twice is the same as once."""
        ...
