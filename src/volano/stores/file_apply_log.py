"""The apply log in files (`stores.segments`): one frame a batch, its sequence in front, the rest MessagePack."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Final

import msgspec

from volano.errors import CorruptionError, InvariantError, StoreError
from volano.protocols.file_system import FileReader, FileSystem
from volano.protocols.journal import JournalEntry
from volano.records.receipt import ApplyBatch
from volano.stores.local_files import LocalFiles
from volano.stores.os_errors import from_os_error
from volano.stores.segments import SEGMENT_BYTES, SegmentReader, SegmentWriter

_WRITER: Final = "apply"
_EVERY: Final = 64
"""One batch in so many has its place remembered."""
_BLOCK: Final = 1024

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[ApplyBatch]] = msgspec.msgpack.Decoder(ApplyBatch)


class FileApplyLogReader:
    """Reads batches, also while they are written. Remembers a sparse index of places in memory.

    Args:
        folder: where the log lies; a missing folder reads as an empty log.
        files: the disk.
    """

    def __init__(self, folder: Path | str, *, files: FileReader | None = None) -> None:
        self._folder = Path(folder)
        self._segments = SegmentReader(files or LocalFiles(), self._folder)
        # Parallel lists: a sequence, and the place (segment, offset) where its batch starts.
        self._sequences: list[int] = []
        self._places: list[tuple[str, int]] = []
        self._tip: tuple[str, int] = ("", 0)
        self._n_seen = 0
        self._newest: JournalEntry | None = None
        self._synced: tuple[str, int] = ("", 0)

    def last(self) -> ApplyBatch | None:
        """The newest batch, or None; reads only what was appended since the last call."""
        self._catch_up()
        return None if self._newest is None else _decode(self._newest)

    def read(self, after: int, *, limit: int) -> list[ApplyBatch]:
        """At most `limit` batches with a sequence above `after`, in order."""
        self._catch_up()
        if self._newest is None or _sequence(self._newest) <= after or limit <= 0:
            return []
        index = bisect_right(self._sequences, after + 1) - 1
        place = self._places[max(index, 0)]
        batches: list[ApplyBatch] = []
        while len(batches) < limit and (entries := self._entries(place, _EVERY)):
            for entry in entries:
                if _sequence(entry) > after and len(batches) < limit:
                    batches.append(_decode(entry))
            place = (entries[-1].segment, entries[-1].end)
        return batches

    def sync(self) -> None:
        """Make every batch that this reader has shown survive a loss of power, whoever wrote it."""
        tip = self._tip
        if tip == self._synced:
            return
        try:
            for segment in self._segments.segments():
                if self._synced[0] <= segment <= tip[0]:
                    self._segments.sync(segment)
        except OSError as error:
            raise from_os_error(error, self._folder) from error
        self._synced = tip

    def _catch_up(self) -> None:
        """Follow the log to its end."""
        while entries := self._entries(self._tip, _BLOCK):
            for entry in entries:
                if self._n_seen % _EVERY == 0:
                    self._sequences.append(_sequence(entry))
                    self._places.append((entry.segment, entry.start))
                self._n_seen += 1
            self._newest = entries[-1]
            self._tip = (entries[-1].segment, entries[-1].end)

    def _entries(self, place: tuple[str, int], limit: int) -> list[JournalEntry]:
        """The next entries at or after a place, from the first segment that has any."""
        segment, offset = place
        try:
            if segment and (entries := self._segments.read(segment, offset, limit)):
                return entries
            for name in self._segments.segments():
                if name > segment and (entries := self._segments.read(name, 0, limit)):
                    return entries
        except OSError as error:
            raise from_os_error(error, self._folder) from error
        return []


class FileApplyLog(FileApplyLogReader):
    """The applier's side: appends one batch at a time, synced. One owner a folder.

    Args:
        folder: where the log lies; created when missing.
        segment_bytes: when to start the next segment.
        files: the disk.

    Raises:
        StoreBusyError: another applier owns the log.
        StoreReadOnlyError, StoreFullError: the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = FileApplyLog(Path(folder))
    ...     log.append(ApplyBatch(1, (("w0-00000001", 32, 90),), (), 7))
    ...     log.last().last_stamp
    7
    """

    def __init__(
        self, folder: Path | str, *, segment_bytes: int = SEGMENT_BYTES, files: FileSystem | None = None
    ) -> None:
        disk = files or LocalFiles()
        super().__init__(folder, files=disk)
        self._writer = SegmentWriter(disk, self._folder, _WRITER, segment_bytes)
        self._in_doubt = False

    def append(self, batch: ApplyBatch) -> None:
        """Append one batch and sync it, all or nothing.

        Raises:
            InvariantError: its sequence is not one more than the last.
            StoreFullError, StoreReadOnlyError: nothing of it is in the log; the same call may succeed later.
            StoreError: the sync failed, so nobody knows whether the batch is kept. The log refuses further batches
                until it is opened again, which settles it one way or the other.
        """
        if self._in_doubt:
            raise StoreError(
                "An earlier batch could not be synced; whether it is kept is not known.",
                where=str(self._folder),
                mend="close the log and open it again",
            )
        self._catch_up()
        last = 0 if self._newest is None else _sequence(self._newest)
        if batch.sequence != last + 1:
            raise InvariantError(
                f"The apply log is at sequence {last}; it cannot take {batch.sequence} next.",
                where=str(self._folder),
                mend="read `last()` again before numbering the batch",
            )
        self._writer.append([batch.sequence.to_bytes(8, "big") + _ENCODER.encode(batch)], sync=False)
        try:
            self._writer.append([], sync=True)
        except StoreError:
            self._in_doubt = True
            raise

    def close(self) -> None:
        """Sync and release the log and its lock."""
        self._writer.close()


def _sequence(entry: JournalEntry) -> int:
    return int.from_bytes(entry.record[:8], "big")


def _decode(entry: JournalEntry) -> ApplyBatch:
    try:
        return _DECODER.decode(entry.record[8:])
    except msgspec.MsgspecError as error:
        raise CorruptionError(
            f"A batch of the apply log cannot be decoded: {error}.",
            where=f"{entry.segment}:{entry.start}",
            mend="restore this file from a backup or a replica",
        ) from error
