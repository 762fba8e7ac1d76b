"""Locks of the data folder: a file that one process holds until it lets go or ends, however it ends.

Nothing is written into them, so what a killed process leaves behind says nothing wrong.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from volano.errors import StoreBusyError, StoreReadOnlyError

_LOOK_EVERY_S: Final = 0.05
_PROBED_S: Final = 0.5
"""Whoever asks whether a lock is held holds it for a moment; so long a taker tries again."""


class FolderLock:
    """One lock. Use it as a context manager, or release it.

    Args:
        path: the file; it and its folder are made when missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock = FolderLock(Path(folder) / "work.lock")
    ...     with lock.take("is at work"):
    ...         lock.is_held()
    ...     lock.is_held()
    True
    False
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: IO[bytes] | None = None

    def take(
        self, what: str, *, patience_s: float = _PROBED_S, waits: Callable[[], None] = lambda: None
    ) -> FolderLock:
        """Take it.

        Args:
            what: completes "Another process ..." in the error.
            patience_s: how long to wait for whoever holds it.
            waits: called once, when it has to wait longer than a probe takes.

        Raises:
            StoreBusyError: it was held all the time.
            StoreReadOnlyError: the file cannot be made.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self._path, "ab")  # noqa: SIM115 - held until it is released
        except OSError as error:
            raise StoreReadOnlyError(
                f"{self._path} cannot be written: {error.strerror}.",
                where=str(self._path),
                mend="make the data folder writable for this user",
            ) from error
        began, told = time.monotonic(), False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = time.monotonic() - began
                if waited >= patience_s:
                    file.close()
                    raise StoreBusyError(
                        f"Another process {what}.",
                        where=str(self._path),
                        mend="wait for it to end, or stop it; `fuser` on this file names it",
                    ) from None
                if waited >= _PROBED_S and not told:
                    waits()
                    told = True
                time.sleep(_LOOK_EVERY_S)
            else:
                self._held = file
                return self

    def is_held(self) -> bool:
        """Whether any process holds it now."""
        try:
            with open(self._path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # it was never made, or cannot be read
            return False
        return False

    def release(self) -> None:
        """Let go. Twice is the same as once."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def serving_lock(data: Path) -> FolderLock:
    """Held by `volano serve` as long as it runs: it applies and commits, others wait for it."""
    return FolderLock(data / "run" / "serve.lock")


def work_lock(data: Path) -> FolderLock:
    """Held by whoever changes more than the journal: applies, labels, trains, releases. One after the other."""
    return FolderLock(data / "run" / "work.lock")
