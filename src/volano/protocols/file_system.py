"""The few file operations that durable logs and artifacts need, so that a simulated disk can stand in for a real one.

Every method raises OSError as the operating system would; adapters map it once. Bytes are durable only after `sync`
of the file *and* `sync_folder` of the folder that names it. Never reads the clock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Lock(Protocol):
    """A lock that is held; the operating system frees it when the process ends, however it ends."""

    def release(self) -> None:
        """Give the lock up. Twice is the same as once."""
        ...


class OpenFile(Protocol):
    """A file open for writing by its one owner."""

    def append(self, data: bytes) -> int:
        """Write at the end. Returns how many bytes were taken, which may be fewer than given."""
        ...

    def rewrite(self, offset: int, data: bytes) -> None:
        """Write over bytes that are there already, so that the next `sync` writes them once more."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...

    def sync(self) -> None:
        """Make the contents and the length survive a loss of power. After an error nothing is known about them."""
        ...

    def close(self) -> None:
        """Release the descriptor; syncs nothing."""
        ...


class FileReader(Protocol):
    """Reads files, also while they grow."""

    def list(self, folder: Path) -> list[str]:
        """The names in a folder, sorted; empty when there is no such folder."""
        ...

    def size(self, path: Path) -> int:
        """The length of a file in bytes. Raises FileNotFoundError."""
        ...

    def read(self, path: Path, offset: int, n_bytes: int) -> bytes:
        """Bytes from an offset; fewer at the end of the file."""
        ...

    def sync_file(self, path: Path) -> None:
        """Make the present contents of a file survive a loss of power, whoever wrote them."""
        ...


class FileSystem(FileReader, Protocol):
    """Writes files and folders."""

    def make_folder(self, folder: Path) -> None:
        """Create a folder and its parents, durably; an existing one is left as it is."""
        ...

    def open(self, path: Path, *, create: bool) -> OpenFile:
        """Open a file for writing. With `create` it must not exist yet, otherwise it must."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Move a file in one atomic step, over an older one if there is one."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Make names created, moved and removed in a folder survive a loss of power."""
        ...

    def lock(self, path: Path) -> Lock:
        """Take the exclusive lock of a path at once, creating the file. Raises BlockingIOError when it is held."""
        ...
