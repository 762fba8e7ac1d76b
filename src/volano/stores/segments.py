"""Segment files: checksummed frames in files that only grow. What the journal and the apply log are made of.

A segment is `<writer>-<8 digit number>.journal`: a header, then frames. One call of `append` is one group of frames.

    header  magic (8) | version (4) | salt (4) | crc of these (4) | zeros to 32 bytes
    frame   marker (4) | length (4) | group end (4) | durable (4) | crc (4) | payload

All integers are little endian and unsigned. Three fields do work that a length and a checksum alone cannot:

- `group end`: the offset at which the frame's group ends. A reader shows nothing of a group before the file is
  that long, so a write that failed half-way (and is cut off again) is never seen, and a crash leaves all of a call
  or nothing.
- `durable`: how much of the segment was known to be synced when the frame was written. A damaged frame below the
  `durable` of a later whole one was on the disk once: corruption. Otherwise the bytes were never promised to
  survive a loss of power, and the owner cuts them off.
- `crc`: over the frame's head and payload, started from the segment's salt and the frame's offset, so that blocks
  of an older file, moved blocks and frames inside a payload do not pass for frames.

A full segment ends with a seal (a frame without payload), so damage to its last records shows as well. The marker
begins with 0xC1, which occurs in neither MessagePack nor UTF-8; it makes looking for the next frame cheap.
Why, and what was refused: docs/decisions/0011-durable-segments.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from volano.errors import CorruptionError, StateMismatchError, StoreError
from volano.protocols.file_system import FileReader, FileSystem, OpenFile
from volano.protocols.journal import JournalEntry
from volano.stores.os_errors import busy, from_os_error

SUFFIX: Final = ".journal"
HEADER_BYTES: Final = 32
VERSION: Final = 1
SEGMENT_BYTES: Final = 64 << 20

_MAGIC: Final = b"VOLANOSG"
_HEADER: Final = struct.Struct("<8sII")
_CRC: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<4sIII")
_FRAME: Final = struct.Struct("<4sIIII")
_RECORD: Final = b"\xc1vj\x01"
_SEAL: Final = b"\xc1vj\x02"
_MARKER: Final = b"\xc1vj"
_BLOCK_BYTES: Final = 1 << 20
_LARGEST: Final = (1 << 32) - 1


class Recovered(NamedTuple):
    """What an owner found in a segment: where whole groups end, what was surely synced, whether it is sealed."""

    end: int
    durable: int
    sealed: bool
    damaged: bool


class SegmentReader:
    """Reads frames of the segments in one folder. Holds no file open; safe beside a writer."""

    def __init__(self, files: FileReader, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._salts: dict[str, int] = {}
        self._torn: dict[str, tuple[int, int]] = {}

    def segments(self) -> list[str]:
        """The names of all segments, without suffix, in name order."""
        return [name[: -len(SUFFIX)] for name in self._files.list(self._folder) if name.endswith(SUFFIX)]

    def size(self, segment: str) -> int:
        """The length of a segment in bytes."""
        return self._files.size(self._folder / (segment + SUFFIX))

    def read(self, segment: str, after: int, limit: int, *, stop: int | None = None) -> list[JournalEntry]:
        """The next records of one segment.

        Args:
            after: offset at which a frame starts; 0 is the beginning.
            limit: how many at most.
            stop: offset at which to end; the end of the file when None.

        Returns:
            Whole records of whole groups; empty at the end or at a torn tail.

        Raises:
            CorruptionError: bytes that had been synced do not pass their checksum.
        """
        path = self._folder / (segment + SUFFIX)
        size = self._files.size(path)
        at = max(after, HEADER_BYTES)
        entries: list[JournalEntry] = []
        if at >= size:
            if after > size:
                raise CorruptionError(
                    f"{path.name} is {size} bytes long, yet records up to byte {after} were read from it.",
                    where=str(path),
                    mend="restore this file from a backup or a replica",
                )
            return entries
        salt = self._salt(segment, path)
        until = size if stop is None else min(stop, size)
        n_bytes = _BLOCK_BYTES
        unpack, frame_bytes, record = _FRAME.unpack_from, _FRAME.size, _RECORD
        new, append = tuple.__new__, entries.append
        while at < until and len(entries) < limit:
            n_bytes = min(n_bytes, size - at)
            block = self._files.read(path, at, n_bytes)
            base, here, n_block = at, 0, len(block)
            if n_block < n_bytes:  # the owner has cut a failed write off since
                size = base + n_block
                until = min(until, size)
            n_bytes = _BLOCK_BYTES
            while True:
                body = here + frame_bytes
                if body > n_block:
                    if base + body > size:
                        self._torn_or_damaged(segment, path, at, size, salt)
                        return entries
                    break
                marker, length, group_end, _, crc = unpack(block, here)
                end = body + length
                if marker != record or group_end > size or base + end > group_end:
                    if self._is_seal(block, here, at, salt):
                        return entries
                    self._torn_or_damaged(segment, path, at, size, salt)
                    return entries
                if end > n_block:
                    n_bytes = max(_BLOCK_BYTES, frame_bytes + length)
                    break
                payload = block[body:end]
                if crc32(payload, crc32(block[here : body - 4], salt ^ at)) != crc:
                    self._torn_or_damaged(segment, path, at, size, salt)
                    return entries
                append(new(JournalEntry, (segment, at, base + end, payload)))
                here, at = end, base + end
                if at >= until or len(entries) >= limit:
                    return entries
        return entries

    def sync(self, segment: str) -> None:
        """Make the present contents of a segment survive a loss of power, whoever wrote them."""
        self._files.sync_file(self._folder / (segment + SUFFIX))

    def recover(self, segment: str) -> Recovered:
        """Look through a whole segment, as its owner must before writing to it again."""
        path = self._folder / (segment + SUFFIX)
        size = self._files.size(path)
        if size < HEADER_BYTES:
            return Recovered(0, 0, False, False)
        data = self._files.read(path, 0, size)
        try:
            salt = _read_salt(data[:HEADER_BYTES], path)
        except CorruptionError:
            # A header alone that never reached the disk is a segment that was about to begin.
            return (
                Recovered(size, size, False, True) if size > HEADER_BYTES else Recovered(0, 0, False, False)
            )
        at = group_start = HEADER_BYTES
        durable = 0  # not even the header, until a frame says so
        while at < size:
            frame = _frame_at(data, at, 0, salt)
            if frame is None or frame.group_end > size:
                return Recovered(
                    group_start, min(durable, group_start), False, _is_damaged(data, 0, at, salt)
                )
            durable = frame.durable
            if frame.seal:
                return Recovered(at, at, True, False)
            at = frame.end
            if at == frame.group_end:
                group_start = at
        return Recovered(at, durable, False, False)

    def is_sealed(self, segment: str) -> bool:
        """Whether the segment ends with a seal; looks at its last bytes only."""
        path = self._folder / (segment + SUFFIX)
        size = self._files.size(path)
        at = size - _FRAME.size
        if at < HEADER_BYTES:
            return False
        try:
            salt = self._salt(segment, path)
        except CorruptionError:
            return False
        return self._is_seal(self._files.read(path, at, _FRAME.size), 0, at, salt)

    def _salt(self, segment: str, path: Path) -> int:
        salt = self._salts.get(segment)
        if salt is None:
            salt = self._salts[segment] = _read_salt(self._files.read(path, 0, HEADER_BYTES), path)
        return salt

    def _is_seal(self, block: bytes, here: int, at: int, salt: int) -> bool:
        frame = _frame_at(block, here, at - here, salt)
        return frame is not None and frame.seal

    def _torn_or_damaged(self, segment: str, path: Path, at: int, size: int, salt: int) -> None:
        """Return for a torn tail, raise for damage. Remembers what it looked at: a reader polls."""
        if self._torn.get(segment) == (at, size):
            return
        data = self._files.read(path, at, size - at)
        frame = _frame_at(data, 0, at, salt)
        if frame is not None and frame.group_end <= at + len(data):
            return  # the owner cut a failed write off and wrote anew while this was being read
        if _is_damaged(data, at, at, salt):
            raise CorruptionError(
                f"A record in the middle of {path.name} is damaged, at byte {at}.",
                where=f"{path}:{at}",
                mend="restore this file from a backup or a replica; the records before this byte are intact",
            )
        self._torn[segment] = (at, size)


class SegmentWriter:
    """The one owner of a writer's segments. Not for use after a fork; not for several threads at once.

    Args:
        files: the disk.
        folder: where the segments lie; created when missing.
        writer: the name that they begin with.
        segment_bytes: a segment is sealed and the next one started when a group would make it longer than this.

    Raises:
        StoreBusyError: another owner has this writer's lock.
        StoreReadOnlyError, StoreFullError: the folder cannot be written.
    """

    def __init__(self, files: FileSystem, folder: Path, writer: str, segment_bytes: int) -> None:
        if not HEADER_BYTES < segment_bytes <= _LARGEST:
            raise ValueError(
                f"segment_bytes is between {HEADER_BYTES + 1} and {_LARGEST}, not {segment_bytes}"
            )
        self._files = files
        self._folder = folder
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._file: OpenFile | None = None
        self._segment = ""
        self._number = 0
        self._salt = 0
        self._end = 0
        self._durable = 0
        self._closed = False
        self._lock_path = folder / f"{writer}.lock"
        try:
            files.make_folder(folder)
            self._lock = files.lock(self._lock_path)
        except BlockingIOError as error:
            raise busy(self._lock_path) from error
        except OSError as error:
            raise from_os_error(error, folder) from error
        try:
            self._open()
        except OSError as error:
            self._lock.release()
            raise from_os_error(error, folder) from error
        except BaseException:  # only frees the lock, then raises it again
            self._lock.release()
            raise

    @property
    def segment(self) -> str:
        """The name of the segment that the last record went to; empty before the first."""
        return self._segment

    def append(self, records: Sequence[bytes], *, sync: bool) -> int:
        """Append a group of records, all or nothing; returns the offset of the first.

        A failed or short write is cut off again. After a failed sync the segment is left for good (what the kernel
        still holds of it cannot be trusted to reach the disk) and the next call starts another one.
        """
        if self._closed:
            raise StoreError(f"The writer {self._writer!r} is closed.", where=str(self._folder))
        if records:
            n_bytes = sum(map(len, records)) + _FRAME.size * len(records)
            if HEADER_BYTES + n_bytes > _LARGEST:
                raise StoreError(
                    f"{n_bytes} bytes do not fit one segment.",
                    where=str(self._folder),
                    mend="append fewer records at once",
                )
            if self._file is None or (self._end + n_bytes > self._segment_bytes and self._end > HEADER_BYTES):
                self._start_next()
            self._write(self._frames(records, self._end + n_bytes))
        start = self._end - n_bytes if records else self._end
        if sync:
            self._sync()
        return start

    def forget(self, until: Mapping[str, int]) -> list[str]:
        """Delete own segments, but for the newest, that hold no record at or behind the offset that `until` names."""
        reader = SegmentReader(self._files, self._folder)
        try:
            gone = [
                segment
                for segment in self._mine(reader)
                if segment != self._segment
                and segment in until
                and not reader.read(segment, until[segment], 1)
            ]
            for segment in gone:
                self._files.remove(self._folder / (segment + SUFFIX))
            if gone:
                self._files.sync_folder(self._folder)
        except OSError as error:
            raise from_os_error(error, self._folder) from error
        return gone

    def close(self) -> None:
        """Sync, and give the segment and the lock up. Twice is the same as once."""
        if self._closed:
            return
        try:
            self._sync()
        finally:
            self._closed = True
            self._abandon()
            self._lock.release()

    def _frames(self, records: Sequence[bytes], group_end: int) -> bytes:
        parts: list[bytes] = []
        at, salt, durable = self._end, self._salt, self._durable
        for record in records:
            head = _HEAD.pack(_RECORD, len(record), group_end, durable)
            parts.append(head)
            parts.append(_CRC.pack(crc32(record, crc32(head, salt ^ at))))
            parts.append(record)
            at += _FRAME.size + len(record)
        return b"".join(parts)

    def _write(self, data: bytes) -> None:
        """Write at the end, whole or not at all."""
        file = self._file
        assert file is not None
        done = 0
        try:
            while done < len(data):  # a short write is followed by the error that says why
                done += file.append(data[done:] if done else data)
        except OSError as error:
            try:
                file.truncate(self._end)
            except OSError:
                self._abandon()  # readers never show the half group: the file is shorter than its group end
            raise from_os_error(error, self._path()) from error
        self._end += len(data)

    def _sync(self) -> None:
        if self._file is None or self._durable == self._end:
            return
        try:
            self._file.sync()
        except OSError as error:
            path = self._path()
            self._abandon()
            raise from_os_error(error, path) from error
        self._durable = self._end

    def _abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _path(self) -> Path:
        return self._folder / (self._segment + SUFFIX)

    def _start_next(self) -> None:
        """Seal the present segment, if it is sound, and create the next one."""
        if self._file is not None:
            self._sync()
            self._seal()
            self._abandon()
        segment = f"{self._writer}-{self._number + 1:08d}"
        path = self._folder / (segment + SUFFIX)
        try:
            file = self._files.open(path, create=True)
        except OSError as error:
            raise from_os_error(error, path) from error
        self._number += 1
        self._file, self._segment = file, segment
        self._begin(path)

    def _begin(self, path: Path) -> None:
        """Write the header of an empty segment and make its name durable."""
        self._end = 0
        self._salt = int.from_bytes(os.urandom(4), "little")
        head = _HEADER.pack(_MAGIC, VERSION, self._salt)
        try:
            self._write((head + _CRC.pack(crc32(head))).ljust(HEADER_BYTES, b"\0"))
            assert self._file is not None
            self._file.sync()
            self._files.sync_folder(self._folder)
        except OSError as error:
            self._abandon()
            raise from_os_error(error, path) from error
        except StoreError:
            self._abandon()
            raise
        self._durable = self._end

    def _seal(self) -> None:
        """The last frame of a full segment. Called after a sync."""
        head = _HEAD.pack(_SEAL, 0, self._end + _FRAME.size, self._end)
        self._write(head + _CRC.pack(crc32(b"", crc32(head, self._salt ^ self._end))))
        self._sync()

    def _open(self) -> None:
        """Recover every segment that is not sealed, and go on with the last one."""
        reader = SegmentReader(self._files, self._folder)
        mine = self._mine(reader)
        for segment in mine:
            self._number = int(segment.rpartition("-")[2])
            self._segment = segment
            last = segment == mine[-1]
            if not reader.is_sealed(segment):
                self._recover(reader, segment, last)

    def _mine(self, reader: SegmentReader) -> list[str]:
        """The segments of this writer, the oldest first."""
        prefix = self._writer + "-"
        return [
            name
            for name in reader.segments()
            if name.startswith(prefix) and name[len(prefix) :].isdigit() and len(name) == len(prefix) + 8
        ]

    def _recover(self, reader: SegmentReader, segment: str, last: bool) -> None:
        """Cut off the torn tail of a segment and make what remains durable.

        A process that was killed, or whose sync failed, leaves whole records that may exist in memory only, and the
        kernel may think them written. Writing them over themselves is the one way to be sure of the next sync.
        """
        path = self._path()
        found = reader.recover(segment)
        if found.damaged:
            return  # left as it is for whoever repairs it: readers report it, new records go to the next segment
        file = self._file = self._files.open(path, create=False)
        if found.end < HEADER_BYTES:
            file.truncate(0)
            self._begin(path)
        else:
            self._salt = _read_salt(self._files.read(path, 0, HEADER_BYTES), path)
            if self._files.size(path) > found.end:
                file.truncate(found.end)
            if found.durable < found.end:
                file.rewrite(found.durable, self._files.read(path, found.durable, found.end - found.durable))
            file.sync()
            # The name may be newer than the last sync of the folder.
            self._files.sync_folder(self._folder)
            self._end = self._durable = found.end
        if not last:
            self._seal()
            self._abandon()


class _Frame(NamedTuple):
    end: int
    group_end: int
    durable: int
    seal: bool


def _frame_at(data: bytes, here: int, base: int, salt: int) -> _Frame | None:
    """The whole frame at an index of `data`, whose first byte lies at offset `base`; None when there is none."""
    body = here + _FRAME.size
    if body > len(data):
        return None
    marker, length, group_end, durable, crc = _FRAME.unpack_from(data, here)
    end = body + length
    if marker not in (_RECORD, _SEAL) or end > len(data):
        return None
    if crc32(data[body:end], crc32(data[here : body - 4], salt ^ (base + here))) != crc:
        return None
    return _Frame(base + end, group_end, durable, marker == _SEAL)


def _is_damaged(data: bytes, base: int, at: int, salt: int) -> bool:
    """Whether a whole frame after offset `at` says that `at` had been synced."""
    here = data.find(_MARKER, at - base + 1)
    while here >= 0:
        frame = _frame_at(data, here, base, salt)
        if frame is not None and frame.durable > at:
            return True
        here = data.find(_MARKER, here + 1 if frame is None else frame.end - base)
    return False


def _read_salt(header: bytes, path: Path) -> int:
    """The salt of a segment's header."""
    if len(header) >= HEADER_BYTES:
        magic, version, salt = _HEADER.unpack_from(header)
        (crc,) = _CRC.unpack_from(header, _HEADER.size)
        if magic == _MAGIC and crc == crc32(header[: _HEADER.size]):
            if version > VERSION:
                raise StateMismatchError(
                    f"{path.name} was written by a newer version of Volano (format {version}).",
                    where=str(path),
                    mend="upgrade Volano",
                )
            return int(salt)
    raise CorruptionError(
        f"{path.name} does not begin with a segment header.",
        where=str(path),
        mend="restore this file from a backup or a replica",
    )
