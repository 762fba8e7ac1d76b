"""The real disk behind `protocols.file_system`. Maps no errors: that is the adapters' edge."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class LocalLock:
    """A `flock`, held until released or until the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class LocalFile:
    """A file descriptor open for appending."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, data: bytes) -> int:
        os.lseek(self._descriptor, 0, os.SEEK_END)
        return os.write(self._descriptor, data)

    def rewrite(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            n_bytes = os.pwrite(self._descriptor, view, offset)
            view, offset = view[n_bytes:], offset + n_bytes

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        # fdatasync also writes the length, which is all the metadata that a reader needs.
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class LocalFiles:
    """The file system of this machine.

    >>> LocalFiles().list(Path("/no/such/folder"))
    []
    """

    def list(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def size(self, path: Path) -> int:
        return os.stat(path).st_size

    def read(self, path: Path, offset: int, n_bytes: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, n_bytes, offset)
            if len(data) == n_bytes or not data:
                return data
            parts = [data]  # a read may be short before the end (2 GiB a call)
            at, left = offset + len(data), n_bytes - len(data)
            while left and (data := os.pread(descriptor, left, at)):
                parts.append(data)
                at, left = at + len(data), left - len(data)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def sync_file(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Path) -> None:
        missing = []
        here = folder
        while not here.exists():
            missing.append(here)
            here = here.parent
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            self.sync_folder(made.parent)

    def open(self, path: Path, *, create: bool) -> LocalFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        return LocalFile(os.open(path, flags, 0o644))

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> LocalLock:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return LocalLock(descriptor)
