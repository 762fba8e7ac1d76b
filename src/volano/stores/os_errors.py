"""The operating system's errors as ours, mapped in one place. Holds no file operation."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from volano.errors import StoreBusyError, StoreError, StoreFullError, StoreReadOnlyError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_BUSY: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


def from_os_error(error: OSError, path: Path | str) -> StoreError:
    """The error of ours for an OSError; raise it `from error` so that the cause is kept.

    Args:
        error: what the operating system said.
        path: the file or folder that it concerns.

    >>> type(from_os_error(OSError(errno.ENOSPC, "No space left on device"), "x")).__name__
    'StoreFullError'
    """
    where = str(path)
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreFullError(
            f"No space left for {where}: {said}.",
            where=where,
            mend="free space on the disk (or raise the quota) and call again; nothing accepted is lost",
        )
    if error.errno in _READ_ONLY:
        return StoreReadOnlyError(
            f"{where} cannot be written: {said}.",
            where=where,
            mend="make the data folder writable for this user (mount it read-write, chown or chmod it)",
        )
    if error.errno in _BUSY:
        return busy(path)
    return StoreError(f"The disk refused {where}: {said}.", where=where, mend="check the disk and its log")


def busy(path: Path | str) -> StoreBusyError:
    """The error for a lock that another owner holds."""
    return StoreBusyError(
        f"{path} is in use by another process.",
        where=str(path),
        mend="stop the other process or wait for it to end; `fuser` on this file names it",
    )
