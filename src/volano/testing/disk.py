"""A simulated disk that forgets what was not synced. Deterministic: chance comes from the caller's generator.

A kill of a process loses nothing that `write` returned for, so it cannot show a missing sync; this disk can. It keeps
two states of every file and folder: what a process sees, and what is surely on the platter. `power_loss` gives the
disk that is found after the lights went out: of what was not synced, sectors survive or not, each by itself, lengths
grow without their contents, and names appear in the order of their making up to some point. Stricter than most file
systems: syncing a file does not sync its name.

    disk = SimulatedDisk(crash_at=17)            # the 17th effect is the last one
    try:
        workload(disk)
    except PowerLoss:
        found = disk.power_loss(random.Random(1))
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import ClassVar, Final, TypeAlias

from volano.errors import VolanoError

SECTOR_BYTES: Final = 512

_Change: TypeAlias = tuple[int, bytes | None]
"""Bytes written at an offset; None: the file was cut there."""


class PowerLoss(VolanoError):
    """The simulated power is gone: no call reaches this disk any more."""

    code: ClassVar[str] = "power_loss"


class _Node:
    """A file: what is seen, what is on the platter, and the changes between them."""

    def __init__(self, durable: bytes = b"") -> None:
        self.seen = bytearray(durable)
        self.durable = bytes(durable)
        self.changes: list[_Change] = []

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.seen, offset, data)
        self.changes.append((offset, data))

    def sync(self) -> None:
        content = bytearray(self.durable)
        for offset, data in self.changes:
            _apply(content, offset, data)
        self.durable = bytes(content)
        self.changes.clear()

    def after_power_loss(self, chance: Random) -> bytes:
        """One of the states that the platter may be in."""
        content = bytearray(self.durable)
        kept = chance.choice((0.0, 0.5, 0.9, 1.0))
        for offset, data in self.changes:
            if data is None:
                if chance.random() < kept:
                    _apply(content, offset, None)
                continue
            for start, sector in _sectors(offset, data):
                if chance.random() < kept:
                    _apply(content, start, sector)
        if kept < 1.0 and chance.random() < 0.3:  # the length is metadata and may arrive before the contents
            content.extend(bytes(max(0, len(self.seen) - len(content))))
        return bytes(content)


class SimulatedFile:
    """An open file of a `SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, node: _Node) -> None:
        self._disk = disk
        self._node = node

    def append(self, data: bytes) -> int:
        with_room = self._disk._take(len(data))
        self._disk._effect(lambda: self._node.change(len(self._node.seen), data[:with_room]))
        return with_room

    def rewrite(self, offset: int, data: bytes) -> None:
        self._disk._effect(lambda: self._node.change(offset, data))

    def truncate(self, size: int) -> None:
        freed = len(self._node.seen) - size
        self._disk._effect(lambda: self._node.change(size, None))
        self._disk._take(-freed)

    def sync(self) -> None:
        self._disk._sync(self._node)

    def close(self) -> None:
        """Nothing: closing syncs nothing and cannot fail here."""


class SimulatedLock:
    """A lock of a `SimulatedDisk`."""

    def __init__(self, held: set[Path], path: Path) -> None:
        self._held = held
        self._path = path

    def release(self) -> None:
        self._held.discard(self._path)


class SimulatedDisk:
    """A file system in memory (`protocols.file_system.FileSystem`).

    Args:
        capacity: bytes that fit; writing more is short, then fails with ENOSPC. None: no limit.
        crash_at: number of the effect (write, cut, sync, name) at which the power goes, counted from 1; None: never.
        read_only: every effect fails with EROFS.

    Attributes:
        n_effects: effects so far.
        capacity: may be changed at any time.
        failures: effect number -> errno that it fails with. A sync that fails also forgets, for good, which bytes
            were still to be written, as Linux does: only writing them again brings them to the platter.
        watch: called after every effect, to look at the disk as another process would.
    """

    def __init__(
        self, *, capacity: int | None = None, crash_at: int | None = None, read_only: bool = False
    ) -> None:
        self.capacity = capacity
        self.crash_at = crash_at
        self.read_only = read_only
        self.n_effects = 0
        self.failures: dict[int, int] = {}
        self.watch: Callable[[], None] | None = None
        self._is_dead = False
        self._names: dict[Path, _Node] = {}
        self._durable_names: dict[Path, _Node] = {}
        self._name_changes: list[dict[Path, _Node | None]] = []
        self._folders: set[Path] = set()
        self._held: set[Path] = set()

    # --- what becomes of it -----------------------------------------------------------------------

    def kill(self) -> SimulatedDisk:
        """The disk after a kill -9 of whoever used it: nothing written is lost, and no lock is held."""
        disk = SimulatedDisk(capacity=self.capacity)
        disk._folders = set(self._folders)
        disk._names, disk._durable_names = dict(self._names), dict(self._durable_names)
        disk._name_changes = list(self._name_changes)
        return disk

    def power_loss(self, chance: Random) -> SimulatedDisk:
        """One of the disks that may be found after a loss of power at this instant."""
        names = dict(self._durable_names)
        for change in self._name_changes[: chance.randint(0, len(self._name_changes))]:
            _rename(names, change)
        disk = SimulatedDisk(capacity=self.capacity)
        disk._folders = set(self._folders)
        survivors = {id(node): _Node(node.after_power_loss(chance)) for node in names.values()}
        disk._names = {path: survivors[id(node)] for path, node in names.items()}
        disk._durable_names = dict(disk._names)
        return disk

    # --- the protocol -----------------------------------------------------------------------------

    def list(self, folder: Path) -> list[str]:
        return sorted(path.name for path in self._names if path.parent == folder)

    def size(self, path: Path) -> int:
        return len(self._node(path).seen)

    def read(self, path: Path, offset: int, n_bytes: int) -> bytes:
        return bytes(self._node(path).seen[offset : offset + n_bytes])

    def sync_file(self, path: Path) -> None:
        self._sync(self._node(path))

    def make_folder(self, folder: Path) -> None:
        """Folders are durable at once here: the tests are about files."""
        if folder not in self._folders:
            self._effect(lambda: self._folders.update([folder, *folder.parents]))

    def open(self, path: Path, *, create: bool) -> SimulatedFile:
        if not create:
            return SimulatedFile(self, self._node(path))
        if path in self._names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        node = _Node()
        self._effect(lambda: self._change_names({path: node}))
        return SimulatedFile(self, node)

    def rename(self, old: Path, new: Path) -> None:
        node = self._node(old)
        # One change: a power loss finds neither both names nor none.
        self._effect(lambda: self._change_names({old: None, new: node}))

    def remove(self, path: Path) -> None:
        self._node(path)
        self._effect(lambda: self._change_names({path: None}))

    def sync_folder(self, folder: Path) -> None:
        def sync() -> None:
            rest = []
            for change in self._name_changes:
                if any(path.parent == folder for path in change):
                    _rename(self._durable_names, change)
                else:
                    rest.append(change)
            self._name_changes = rest

        self._effect(sync, may_be_lost=False)

    def lock(self, path: Path) -> SimulatedLock:
        if self._is_dead:
            raise PowerLoss("The simulated power is gone.")
        if self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        if path in self._held:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        self._held.add(path)
        return SimulatedLock(self._held, path)

    # --- effects ----------------------------------------------------------------------------------

    def _effect(self, change: Callable[[], None], *, may_be_lost: bool = True) -> None:
        """Do one thing, unless this is where the plan says that it fails.

        What is not durable before a sync is done before the crash: whether it survives is `power_loss`'s choice.
        """
        self._count()
        if self.n_effects == self.crash_at:
            if may_be_lost:
                change()
            self._is_dead = True
            raise PowerLoss("The simulated power is gone.")
        change()
        if self.watch is not None:
            self.watch()

    def _count(self) -> None:
        if self._is_dead:
            raise PowerLoss("The simulated power is gone.")
        if self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self.n_effects += 1
        code = self.failures.get(self.n_effects)
        if code is not None:
            raise OSError(code, os.strerror(code))

    def _sync(self, node: _Node) -> None:
        try:
            self._effect(node.sync, may_be_lost=False)
        except OSError:
            node.changes.clear()
            raise

    def _take(self, n_bytes: int) -> int:
        """How many of so many bytes fit; they are taken."""
        if self.capacity is None or self._is_dead:
            return n_bytes
        taken = min(n_bytes, self.capacity)
        if n_bytes > 0 and taken == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.capacity -= taken
        return taken

    def _node(self, path: Path) -> _Node:
        if self._is_dead:
            raise PowerLoss("The simulated power is gone.")
        try:
            return self._names[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None

    def _change_names(self, change: dict[Path, _Node | None]) -> None:
        _rename(self._names, change)
        self._name_changes.append(change)


def _rename(names: dict[Path, _Node], change: dict[Path, _Node | None]) -> None:
    for path, node in change.items():
        if node is None:
            names.pop(path, None)
        else:
            names[path] = node


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _sectors(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """The data in pieces that end at multiples of the sector."""
    pieces = []
    at = 0
    while at < len(data):
        end = min(len(data), at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES)
        pieces.append((offset + at, data[at:end]))
        at = end
    return pieces
