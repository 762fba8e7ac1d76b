"""Artifacts as files named by their digest: `ab/cdef...`. Verified on every read; never changed, never removed here."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from volano.errors import CorruptionError, UnknownNameError
from volano.protocols.file_system import FileSystem
from volano.stores.local_files import LocalFiles
from volano.stores.os_errors import from_os_error
from volano.values.identities import digest as digest_of

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class FileArtifacts:
    """Content-addressed bytes in a folder. Threads and processes may share it.

    Args:
        folder: where they lie; created by the first `put`.
        files: the disk; a simulated one in tests.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     artifacts = FileArtifacts(Path(folder))
    ...     artifacts.get(artifacts.put(b"model"))
    b'model'
    """

    def __init__(self, folder: Path | str, *, files: FileSystem | None = None) -> None:
        self._folder = Path(folder)
        self._files = files or LocalFiles()
        self._verified: set[str] = set()

    def put(self, data: bytes) -> str:
        """Store bytes, synced, and return their digest; storing twice is the same as once.

        Raises:
            StoreFullError, StoreReadOnlyError: nothing was stored.
        """
        digest = digest_of(data)
        path = self._path(digest)
        try:
            self._files.make_folder(path.parent)
            if not self._holds(path, data):
                self._write(path, data)
            # Also when it was there: whoever wrote it may not have come as far as this.
            self._files.sync_folder(path.parent)
        except OSError as error:
            raise from_os_error(error, path) from error
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes of a digest.

        Raises:
            UnknownNameError: there is no such artifact.
            CorruptionError: the file holds other bytes.
        """
        path = self._path(digest)
        try:
            data = self._files.read(path, 0, self._files.size(path))
        except FileNotFoundError as error:
            raise self._unknown(digest) from error
        except OSError as error:
            raise from_os_error(error, path) from error
        if digest_of(data) != digest:
            raise CorruptionError(
                f"The artifact {digest[:12]} does not hold the bytes of its digest.",
                where=str(path),
                mend="restore the file from a backup, or remove it and store the artifact again",
            )
        return data

    def path(self, digest: str) -> str:
        """A local path of the bytes, verified the first time a process asks."""
        if digest not in self._verified:
            self.get(digest)
            self._verified.add(digest)
        return str(self._path(digest))

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise self._unknown(digest)
        return self._folder / digest[:2] / digest[2:]

    def _holds(self, path: Path, data: bytes) -> bool:
        """Whether the file is there with these bytes; a damaged one is written anew."""
        try:
            return self._files.size(path) == len(data) and self._files.read(path, 0, len(data)) == data
        except FileNotFoundError:
            return False

    def _write(self, path: Path, data: bytes) -> None:
        """Write beside, sync, and move into place: a name never stands for half the bytes."""
        draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
        file = self._files.open(draft, create=True)
        try:
            try:
                done = 0
                while done < len(data):
                    done += file.append(data[done:] if done else data)
                file.sync()
            finally:
                file.close()
            self._files.rename(draft, path)
        except OSError:
            self._files.remove(draft)
            raise

    def _unknown(self, digest: str) -> UnknownNameError:
        return UnknownNameError(
            f"There is no artifact {digest[:64]!r}.",
            where=str(self._folder),
            mend="restore the artifacts folder, or build the artifact again",
        )
