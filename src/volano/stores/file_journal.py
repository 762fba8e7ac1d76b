"""The journal in files (`stores.segments`). A record is bytes here; what it means is the stages' affair."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from volano.errors import CorruptionError
from volano.protocols.file_system import FileReader, FileSystem
from volano.protocols.journal import Cursor, JournalEntry
from volano.stores.local_files import LocalFiles
from volano.stores.os_errors import from_os_error
from volano.stores.segments import HEADER_BYTES, SEGMENT_BYTES, SegmentReader, SegmentWriter

_WRITER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")


class FileJournalWriter:
    """Appends to segments of its own in a folder. One owner a writer name; threads may share it.

    Args:
        folder: where the segments lie; created when missing. Other writers may share it.
        writer: letters, digits and underscores.
        segment_bytes: when to start the next segment.
        files: the disk; a simulated one in tests.

    Raises:
        StoreBusyError: another owner holds this writer's lock.
        StoreReadOnlyError, StoreFullError: the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     journal = FileJournalWriter(Path(folder))
    ...     journal.append([b"one", b"two"], sync=True)
    ...     journal.close()
    ...     [entry.record for entry in FileJournalReader(Path(folder)).read({}, limit=10)]
    [b'one', b'two']
    """

    def __init__(
        self,
        folder: Path | str,
        writer: str = "w0",
        *,
        segment_bytes: int = SEGMENT_BYTES,
        files: FileSystem | None = None,
    ) -> None:
        if not _WRITER.fullmatch(writer):
            raise ValueError(f"a writer's name is letters, digits and underscores, not {writer!r}")
        self._mutex = threading.Lock()
        self._segments = SegmentWriter(files or LocalFiles(), Path(folder), writer, segment_bytes)

    def append(self, records: Sequence[bytes], *, sync: bool) -> None:
        """Append records in order, all or none of them, in one write (see `JournalWriter.append`).

        Raises:
            StoreFullError, StoreReadOnlyError: nothing of this call is in the journal.
            StoreError: the sync failed. The records may or may not be kept, and those written without `sync`
                since the last one may be lost with the power; the next call writes to a new segment.
        """
        with self._mutex:
            self._segments.append(records, sync=sync)

    def forget(self, until: Cursor) -> list[str]:
        """Delete segments that hold no record behind a cursor (see `JournalWriter.forget`)."""
        with self._mutex:
            return self._segments.forget(until)

    def close(self) -> None:
        """Sync and release the segment and the lock."""
        with self._mutex:
            self._segments.close()


class FileJournalReader:
    """Reads every writer's segments in a folder, also while they grow. Holds no file open and takes no lock.

    Args:
        folder: where the segments lie; a missing folder reads as an empty journal.
        files: the disk.
    """

    def __init__(self, folder: Path | str, *, files: FileReader | None = None) -> None:
        self._folder = Path(folder)
        self._segments = SegmentReader(files or LocalFiles(), self._folder)

    def read(self, after: Cursor, *, limit: int, until: Cursor | None = None) -> list[JournalEntry]:
        """The next records after a cursor (see `JournalReader.read`)."""
        entries: list[JournalEntry] = []
        try:
            for segment in self._segments.segments() if until is None else sorted(until):
                if len(entries) >= limit:
                    break
                start, stop = after.get(segment, 0), None if until is None else until[segment]
                if stop is not None and start >= stop:
                    continue
                found = self._segments.read(segment, start, limit - len(entries), stop=stop)
                entries = entries + found if entries else found
        except OSError as error:
            raise from_os_error(error, self._folder) from error
        return entries

    def ends(self) -> Cursor:
        """Where every segment ends now (see `JournalReader.ends`)."""
        try:
            ends = {}
            for segment in self._segments.segments():
                with suppress(FileNotFoundError):  # its writer has forgotten it since
                    ends[segment] = self._segments.size(segment)
        except OSError as error:
            raise from_os_error(error, self._folder) from error
        return ends

    def behind(self, after: Cursor) -> int:
        """How many bytes the journal holds after a cursor (see `JournalReader.behind`)."""
        return sum(max(size - max(after.get(name, 0), HEADER_BYTES), 0) for name, size in self.ends().items())

    def read_range(self, segment: str, start: int, end: int) -> list[JournalEntry]:
        """The records that fill `[start, end)` of a segment exactly.

        Raises:
            CorruptionError: the segment is gone, or the range does not hold whole records.
        """
        try:
            entries = self._segments.read(segment, start, end - start, stop=end)
        except FileNotFoundError as error:
            raise self._missing(segment, start, end) from error
        except OSError as error:
            raise from_os_error(error, self._folder) from error
        if start < end and (not entries or entries[-1].end != end):
            raise self._missing(segment, start, end)
        return entries

    def sync(self, segments: Collection[str]) -> None:
        """Make what some segments hold now survive a loss of power (see `JournalReader.sync`)."""
        try:
            for segment in segments:
                self._segments.sync(segment)
        except OSError as error:
            raise from_os_error(error, self._folder) from error

    def _missing(self, segment: str, start: int, end: int) -> CorruptionError:
        return CorruptionError(
            f"The journal does not hold the records {start} to {end} of segment {segment}.",
            where=str(self._folder),
            mend="restore the segment from a backup or a replica",
        )
