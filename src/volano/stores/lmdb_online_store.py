"""The online store in one LMDB file: memory-mapped, one writer, snapshots consistent across processes.

A cache: it can be rebuilt from the lake, so commits are not synced (they survive a kill of the process, which is
what the applier needs). A loss of power may leave pages of different ages; LMDB would not notice. So the first commit
after a sync leaves a mark with the machine's boot id, and a store that is opened under another boot id with the
mark in place is set aside empty: `needs_rebuild`.

Layout: every key is `\\x01` + key; `\\x00` holds stamp and sequence. LMDB's keys end at 511 bytes: a longer one is cut,
its digest put behind, and the whole key kept in front of the value.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import lmdb

from volano.errors import CorruptionError, NotReadyError, StoreError, StoreFullError, StoreReadOnlyError
from volano.protocols.file_system import Lock
from volano.stores.local_files import LocalFiles
from volano.stores.os_errors import busy, from_os_error
from volano.values.identities import short_hash
from volano.values.instants import BEGINNING, Instant

MAP_BYTES: Final = 1 << 40
"""Address space, not disk: the file grows with its contents."""

_META: Final = b"\x00"
_STATE: Final = struct.Struct(">qQ")
_PREFIX: Final = b"\x01"
_MAX_KEY: Final = 511
_CUT: Final = _MAX_KEY - 16
"""A stored key of exactly 511 bytes is a long one: its first 495 bytes and a 16-byte digest."""

_HARDLY_BYTES: Final = 64 << 20

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """What names this run of the machine; empty where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class LmdbSnapshot:
    """One consistent state (see `OnlineSnapshot`); valid inside its `with` block."""

    __slots__ = ("_environment", "_get", "_state", "_transaction")

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._transaction: Any = None
        self._state: tuple[int, int] | None = None

    def __enter__(self) -> LmdbSnapshot:
        self._transaction = self._environment.begin()
        self._get = self._transaction.get
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transaction.abort()

    @property
    def stamp(self) -> Instant:
        """The newest stamp in this state; BEGINNING for an empty store."""
        return self._read_state()[0]

    @property
    def sequence(self) -> int:
        """The newest apply-log sequence in this state; 0 for an empty store."""
        return self._read_state()[1]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of some keys in the order asked; None where there is none."""
        get = self._get
        return [get(_PREFIX + key) if len(key) < _MAX_KEY - 1 else self._get_long(key) for key in keys]

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) with start <= key < stop, in byte order."""
        cursor = self._transaction.cursor()
        if not cursor.set_range((_PREFIX + start)[:_CUT]):
            return
        # Long keys with one beginning lie in the order of their digests: they wait until the beginning is over.
        waiting: list[tuple[bytes, bytes]] = []
        beginning, last = b"", _PREFIX + stop
        for stored, value in cursor:
            if waiting and stored[:_CUT] != beginning:
                yield from sorted(waiting)
                waiting.clear()
            if stored[:_CUT] > last:
                break
            key, held = _split_long(value) if len(stored) == _MAX_KEY else (stored[1:], value)
            if not start <= key < stop:
                continue
            if len(stored) < _CUT:
                yield key, held
            else:
                beginning = stored[:_CUT]
                waiting.append((key, held))
        yield from sorted(waiting)

    def _get_long(self, key: bytes) -> bytes | None:
        found = self._get(_stored_key(key))
        return None if found is None else _split_long(found)[1]

    def _read_state(self) -> tuple[int, int]:
        state = self._state
        if state is None:
            state = self._state = _state_of(self._transaction)
        return state


class LmdbOnlineStore:
    """An online store in a folder of its own.

    Within one process every store of one path shares one LMDB environment. A store must not be used after a fork:
    open it in the child.

    Args:
        folder: holds the LMDB file, its lock file and the marks; created when missing.
        map_size: most bytes that the store may ever hold; address space only.
        readonly: for readers; many may be open beside the one writer.

    Raises:
        StoreBusyError: another store is open for writing.
        NotReadyError: opened for reading, and only the writer can rebuild it after a loss of power.
        StoreReadOnlyError, StoreFullError: the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = LmdbOnlineStore(Path(folder))
    ...     store.write({b"k": b"v"}, (), stamp=9, sequence=1)
    ...     with store.snapshot() as snapshot:
    ...         snapshot.get_many([b"k", b"none"]), snapshot.stamp
    ...     store.close()
    ([b'v', None], 9)
    """

    def __init__(self, folder: Path | str, *, map_size: int = MAP_BYTES, readonly: bool = False) -> None:
        self._folder = Path(folder)
        self._readonly = readonly
        self._lock: Lock | None = None
        self._unsynced = self._folder / "unsynced"
        self._rebuild = self._folder / "rebuild"
        self._files = LocalFiles()
        self._closed = False
        try:
            self._files.make_folder(self._folder)
        except OSError as error:
            raise from_os_error(error, self._folder) from error
        if not readonly:
            self._take_lock()
        try:
            self._settle_power_loss()
            self._shared = _open_environment(self._folder, map_size)
        except BaseException:  # only frees the lock, then raises it again
            self._release()
            raise
        self._environment = self._shared.environment
        self._is_marked = self._unsynced.exists()

    @property
    def needs_rebuild(self) -> bool:
        """Whether a loss of power took the contents: rebuild them from the lake, then call `rebuilt`."""
        return self._rebuild.exists()

    def rebuilt(self) -> None:
        """Note that the contents are whole again, after syncing them. Survives a loss of power."""
        self.sync()
        self._remove(self._rebuild)

    def snapshot(self) -> LmdbSnapshot:
        """A snapshot that stays as it is until its `with` block ends. Costs under a microsecond."""
        shared = self._shared
        if self._closed or shared.process_id != os.getpid():
            raise self._unusable()
        return LmdbSnapshot(self._environment)

    def write(
        self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes], *, stamp: Instant, sequence: int
    ) -> None:
        """Apply deletes, then puts, and move stamp and sequence, in one atomic step (see `OnlineWriter.write`)."""
        if self._closed or self._shared.process_id != os.getpid():
            raise self._unusable()
        if self._readonly:
            raise StoreReadOnlyError(
                "This online store was opened for reading.",
                where=str(self._folder),
                mend="open it for writing",
            )
        if not self._is_marked:
            self._mark()
        try:
            with self._environment.begin(write=True) as transaction:
                old_stamp, old_sequence = _state_of(transaction)
                if sequence and sequence <= old_sequence:
                    transaction.abort()
                    return
                for key in deletes:
                    transaction.delete(_stored_key(key))
                transaction.cursor().putmulti(
                    [
                        (_PREFIX + key, value)
                        if len(key) < _MAX_KEY - 1
                        else (_stored_key(key), _join_long(key, value))
                        for key, value in puts.items()
                    ]
                )
                state = _STATE.pack(max(stamp, old_stamp), sequence or old_sequence)
                transaction.put(_META, state)
        except lmdb.Error as error:
            raise _from_lmdb(error, self._folder) from error

    def sync(self) -> None:
        """Make everything written so far survive a loss of power."""
        if self._readonly or self._closed:
            return
        try:
            self._environment.sync(True)
        except lmdb.Error as error:
            raise _from_lmdb(error, self._folder) from error
        self._remove(self._unsynced)
        self._is_marked = False

    def check_readers(self) -> int:
        """Free the pages that killed readers still pin; returns how many there were. Call it on a timer."""
        return int(self._environment.reader_check())

    def close(self) -> None:
        """Sync, and release the environment and the lock. Twice is the same as once."""
        if self._closed:
            return
        try:
            if self._shared.process_id == os.getpid():
                self.sync()
        finally:
            self._closed = True
            _close_environment(self._shared)
            self._release()

    def _take_lock(self) -> None:
        path = self._folder / "writer.lock"
        try:
            self._lock = self._files.lock(path)
        except BlockingIOError as error:
            raise busy(path) from error
        except OSError as error:
            raise from_os_error(error, path) from error

    def _settle_power_loss(self) -> None:
        """Throw contents away that a loss of power may have mixed up."""
        try:
            marked = self._unsynced.read_text() if self._unsynced.exists() else None
            lost = marked is not None and (not marked or marked != boot_id())
            if lost and self._readonly:
                raise NotReadyError(
                    "The online store lost unsynced writes with the power and must be rebuilt.",
                    where=str(self._folder),
                    mend="start the applier; it rebuilds the store from the lake",
                )
            if lost:
                self._write_mark(self._rebuild)
                for name in ("data.mdb", "lock.mdb"):
                    (self._folder / name).unlink(missing_ok=True)
                self._remove(self._unsynced)
        except OSError as error:
            raise from_os_error(error, self._folder) from error

    def _mark(self) -> None:
        """Say, durably, that the file holds writes which a loss of power may take."""
        try:
            self._write_mark(self._unsynced)
        except OSError as error:
            raise from_os_error(error, self._unsynced) from error
        self._is_marked = True

    def _write_mark(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, boot_id().encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._files.sync_folder(self._folder)

    def _remove(self, path: Path) -> None:
        try:
            if path.exists():
                path.unlink()
                self._files.sync_folder(self._folder)
        except OSError as error:
            raise from_os_error(error, path) from error

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _unusable(self) -> StoreError:
        return StoreError(
            "The online store is closed, or was opened before a fork.",
            where=str(self._folder),
            mend="open it again in this process",
        )


class _SharedEnvironment:
    """The one environment of a path in this process, with the number of stores that use it."""

    def __init__(self, path: str, environment: Any) -> None:
        self.path = path
        self.environment = environment
        self.process_id = os.getpid()
        self.n_users = 1


_OPEN: dict[str, _SharedEnvironment] = {}
_OPEN_LOCK: Final = threading.Lock()


def _open_environment(folder: Path, map_size: int) -> _SharedEnvironment:
    """LMDB forbids opening a file twice in one process, so stores share; a child after a fork starts anew."""
    path = os.path.realpath(folder)
    with _OPEN_LOCK:
        shared = _OPEN.get(path)
        if shared is not None and shared.process_id == os.getpid():
            shared.n_users += 1
            return shared
        try:
            environment = lmdb.open(
                path,
                map_size=map_size,
                sync=False,
                metasync=False,
                readahead=False,
                max_readers=1024,
                max_spare_txns=8,
            )
            environment.reader_check()
        except lmdb.Error as error:
            raise _from_lmdb(error, folder) from error
        shared = _OPEN[path] = _SharedEnvironment(path, environment)
        return shared


def _close_environment(shared: _SharedEnvironment) -> None:
    with _OPEN_LOCK:
        shared.n_users -= 1
        if shared.n_users == 0 and shared.process_id == os.getpid():
            shared.environment.close()
            if _OPEN.get(shared.path) is shared:
                del _OPEN[shared.path]


def _state_of(transaction: Any) -> tuple[int, int]:
    found = transaction.get(_META)
    if found is None:
        return BEGINNING, 0
    stamp, sequence = _STATE.unpack(found)
    return stamp, sequence


def _stored_key(key: bytes) -> bytes:
    if len(key) < _MAX_KEY - 1:
        return _PREFIX + key
    return (_PREFIX + key)[:_CUT] + short_hash(key)


def _join_long(key: bytes, value: bytes) -> bytes:
    return len(key).to_bytes(4, "big") + key + value


def _split_long(stored: bytes) -> tuple[bytes, bytes]:
    end = 4 + int.from_bytes(stored[:4], "big")
    return stored[4:end], stored[end:]


def _from_lmdb(error: Any, folder: Path) -> StoreError:
    """LMDB's errors as ours."""
    said = str(error)
    if isinstance(error, lmdb.MapFullError):
        return StoreFullError(
            f"The online store is full: {said}.", where=str(folder), mend="open it with a larger map_size"
        )
    # LMDB calls a short write, which is how a disk becomes full, an input/output error.
    is_short = "Input/output error" in said and shutil.disk_usage(folder).free < _HARDLY_BYTES
    if is_short or "No space left" in said or "File too large" in said or "quota" in said:
        return StoreFullError(
            f"No space left for the online store: {said}.",
            where=str(folder),
            mend="free space on the disk and call again; nothing accepted is lost",
        )
    if isinstance(error, lmdb.ReadonlyError) or "Permission denied" in said or "Read-only" in said:
        return StoreReadOnlyError(
            f"The online store cannot be written: {said}.",
            where=str(folder),
            mend="make the data folder writable for this user",
        )
    if isinstance(error, lmdb.CorruptedError | lmdb.InvalidError | lmdb.VersionMismatchError):
        return CorruptionError(
            f"The online store's file is damaged: {said}.",
            where=str(folder),
            mend="remove this folder; the store is rebuilt from the lake",
        )
    return StoreError(
        f"The online store failed: {said}.",
        where=str(folder),
        mend="check the disk and its log, its free space and the limit on file sizes (`ulimit -f`)",
    )
