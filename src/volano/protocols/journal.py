"""The journal: everything accepted, as bytes, in segments that only grow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

Cursor: TypeAlias = Mapping[str, int]
"""How far a reader has come: segment name -> byte offset after the last record read. Empty is the beginning."""


class JournalEntry(NamedTuple):
    """One record and the bytes of the journal that it fills: `[start, end)` of `segment`."""

    segment: str
    start: int
    end: int
    record: bytes


class JournalWriter(Protocol):
    """Appends to segments of its own; several writers never share one."""

    def append(self, records: Sequence[bytes], *, sync: bool) -> None:
        """Append records, in order, all of them or none: no reader sees a part of a call, nor does a crash leave one.

        After it returns they survive a kill of the process; with `sync` also a loss of power. A torn tail is cut off
        at the next open. An empty sequence does nothing; with `sync` it syncs what was written before.

        Raises:
            StoreFullError: no space; nothing of this call is in the journal.
            StoreReadOnlyError: the folder cannot be written.
            StoreError: the sync failed. The records may or may not be kept (a retry may repeat them), and those
                written without `sync` since the last one may be lost with the power.
        """
        ...

    def forget(self, until: Cursor) -> list[str]:
        """Delete segments of this writer that hold no record behind a cursor; returns their names.

        Never the one that is written to. Only for a journal with one reader, which will not ask for what it has passed:
        a spool, never a project's journal. A segment that a crash leaves is deleted by the next call.
        """
        ...

    def close(self) -> None:
        """Sync and release the segment."""
        ...


class JournalReader(Protocol):
    """Reads any segment, also while it grows."""

    def read(self, after: Cursor, *, limit: int, until: Cursor | None = None) -> list[JournalEntry]:
        """The next records after a cursor: segments in name order, records in offset order, at most `limit`.

        With `until` (as `ends` gave it) only those that begin before it, so that a reader comes to an end beside
        writers. Returns an empty list at the end. A torn tail is not returned. Raises CorruptionError when a record
        that is followed by whole ones fails its checksum.
        """
        ...

    def ends(self) -> Cursor:
        """Where every segment ends now, as `until` of a read: everything accepted before the call lies before it."""
        ...

    def behind(self, after: Cursor) -> int:
        """How many bytes the journal holds after a cursor; costs no read of them."""
        ...

    def read_range(self, segment: str, start: int, end: int) -> list[JournalEntry]:
        """The records of one range that an apply-log entry names. Raises CorruptionError when they are not there."""
        ...

    def sync(self, segments: Collection[str]) -> None:
        """Make what some segments hold now survive a loss of power.

        The applier calls it before it logs ranges of records that their writer did not sync: an apply log that names
        bytes which a loss of power takes away could not be followed.
        """
        ...
