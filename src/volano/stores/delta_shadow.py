"""Where delta-rs writes to a log: in a shadow of it, from which whole and synced files are put in place.

delta-rs gives a file its name before its bytes are on the platter, and syncs neither. A loss of power then leaves a
checkpoint, or an entry, that has a name and no contents, and nobody can open the table. The shadow is a folder beside
the table, with hard links to the log from its newest checkpoint on; data files are not needed to write logs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from volano.stores.delta_log import log_folder, sync

_PREFIX: Final = ".log-"
_LISTED: Final = re.compile(r"(\d{20})\.(json|checkpoint.*\.parquet)")


class Shadow:
    """The shadow of one table's log.

    Attributes:
        folder: a table for delta-rs, without data files.
    """

    def __init__(self, table: Path, folder: Path) -> None:
        self._table = table
        self.folder = folder

    def publish_entry(self, version: int) -> None:
        """Put a new entry in place, durably.

        Raises:
            FileExistsError: somebody else has committed this version; nothing was done.
        """
        name = f"{version:020d}.json"
        self._put(name)
        sync(log_folder(self._table))
        sync(self._table)
        sync(self._table.parent)

    def publish_checkpoint(self, version: int) -> None:
        """Put a checkpoint in place, durably, and name it as the newest; nothing where there was one before."""
        newest = log_folder(self.folder) / "_last_checkpoint"
        if not newest.exists():
            return
        with contextlib.suppress(FileExistsError):  # the same version has the same checkpoint
            self._put(f"{version:020d}.checkpoint.parquet")
        sync(log_folder(self._table))  # before it is named
        sync(newest)
        os.replace(newest, log_folder(self._table) / "_last_checkpoint")
        sync(log_folder(self._table))

    def _put(self, name: str) -> None:
        made = log_folder(self.folder) / name
        sync(made)
        log = log_folder(self._table)
        log.mkdir(parents=True, exist_ok=True)
        os.link(made, log / name)


@contextmanager
def shadow_of(table: Path) -> Iterator[Shadow]:
    """A shadow of a table's log as it is now, also of a table that does not exist yet; gone afterwards.

    Raises:
        FileNotFoundError: the log was vacuumed meanwhile; another one may be made.
    """
    folder = table.parent / f"{_PREFIX}{table.name}-{os.urandom(8).hex()}"
    log = log_folder(folder)
    log.mkdir(parents=True)
    try:
        for name in _needed(log_folder(table)):
            os.link(log_folder(table) / name, log / name)
        yield Shadow(table, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale(lake: Path, cutoff: float) -> None:
    """Remove shadows that a killed process left before an instant, in seconds."""
    for path in lake.glob(f"{_PREFIX}*"):
        if path.stat().st_mtime < cutoff:
            shutil.rmtree(path, ignore_errors=True)


def _needed(log: Path) -> list[str]:
    """The newest checkpoint and the entries from it on."""
    if not log.exists():
        return []
    found = [
        (int(match[1]), match[2], name) for name in os.listdir(log) if (match := _LISTED.fullmatch(name))
    ]
    base = max((version for version, kind, _ in found if kind != "json"), default=-1)
    return [
        name
        for version, kind, name in found
        if (version >= base if kind == "json" else version == base) and (log / name).stat().st_size
    ]
