"""What nobody needs any more: data files of no version that counts, half-written ones, old log entries.

A version counts when it is the newest, when it was the newest within the retention, or when it is pinned. The log of
a pinned version is kept from the checkpoint below it; the log of all other old versions goes. Entries go oldest first:
a writer that slept through it finds the entry before its own gone, and reads the log anew (`delta_log.commit`).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

import msgspec

from volano.stores.delta_log import log_folder

_ENTRY: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint(?:\.\d{10}\.\d{10})?\.parquet")
_DRAFT: Final = re.compile(r"\.\d{20}\.[0-9a-f]{16}\.tmp")
_UNDER_WAY_S: Final = 86_400.0


class _Remove(msgspec.Struct):
    path: str


class _Action(msgspec.Struct):
    remove: _Remove | None = None


class Log(NamedTuple):
    """The log of a table as files.

    Args:
        entries: version -> when it was written, in seconds.
        checkpoints: version -> its files.
        drafts: entries that were never put in place.
    """

    entries: dict[int, float]
    checkpoints: dict[int, list[Path]]
    drafts: list[Path]


def read_log(table: Path) -> Log:
    """What lies in a table's log."""
    log = Log({}, {}, [])
    folder = log_folder(table)
    for name in sorted(os.listdir(folder)):
        if found := _ENTRY.fullmatch(name):
            log.entries[int(found[1])] = (folder / name).stat().st_mtime
        elif found := _CHECKPOINT.fullmatch(name):
            log.checkpoints.setdefault(int(found[1]), []).append(folder / name)
        elif _DRAFT.fullmatch(name):
            log.drafts.append(folder / name)
    return log


class Removed(NamedTuple):
    """Paths that entries of the log took out of the table, as far back as it goes; and those since an instant.

    Readers of the versions before may be at the latter.
    """

    ever: set[str]
    lately: set[str]


def removed_files(table: Path, log: Log, cutoff: float) -> Removed:
    """What the log says was taken out."""
    decoder = msgspec.json.Decoder(_Action)
    removed = Removed(set(), set())
    for version, written in log.entries.items():
        entry = log_folder(table) / f"{version:020d}.json"
        with contextlib.suppress(
            FileNotFoundError
        ):  # somebody else vacuums too: it is older than all that counts
            for line in entry.read_bytes().splitlines():
                action = decoder.decode(line)
                if action.remove is not None:
                    path = unquote(action.remove.path)
                    removed.ever.add(path)
                    if written >= cutoff:
                        removed.lately.add(path)
    return removed


def unneeded_files(
    table: Path, needed: Collection[str], removed: Removed, cutoff: float
) -> list[tuple[Path, int]]:
    """Data files, with their bytes, that no version that counts names.

    One that the log does not speak of may belong to a commit that is under way, which may write for long: it goes only
    when it is a day old.
    """
    found = []
    for path in _data_files(table):
        name = str(path.relative_to(table))
        if name in needed or name in removed.lately:
            continue
        state = path.stat()
        if state.st_mtime < (cutoff if name in removed.ever else min(cutoff, time.time() - _UNDER_WAY_S)):
            found.append((path, state.st_size))
    return found


def unneeded_log(table: Path, log: Log, pinned: Collection[int], cutoff: float) -> list[Path]:
    """Log files, oldest first, without which every version that counts can still be read."""
    fresh = [version for version, written in log.entries.items() if written >= cutoff]
    first = min(fresh, default=max(log.entries, default=0))
    base = _base(log, first)
    if base is None:
        return [path for path in log.drafts if path.stat().st_mtime < cutoff]
    needed: set[int] = set()
    needed_checkpoints = {base}
    for version in pinned:
        if version < base:
            below = _base(log, version)
            needed.update(range(0 if below is None else below, version + 1))
            if below is not None:
                needed_checkpoints.add(below)
    folder = log_folder(table)
    gone = [
        folder / f"{each:020d}.json" for each in sorted(log.entries) if each < base and each not in needed
    ]
    for version, paths in log.checkpoints.items():
        if version < base and version not in needed_checkpoints:
            gone += paths
    return [*gone, *(path for path in log.drafts if path.stat().st_mtime < cutoff)]


def cutoff_of(retain_us: int) -> float:
    """The instant, in seconds, before which nothing has to be kept for those who may be at work."""
    return time.time() - retain_us / 1_000_000


def _base(log: Log, version: int) -> int | None:
    """The newest checkpoint at or below a version."""
    return max((each for each in log.checkpoints if each <= version), default=None)


def _data_files(table: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(table):
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        for name in names:
            if name.endswith(".parquet"):
                yield Path(folder) / name
