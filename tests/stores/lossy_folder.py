"""A real folder whose power may go: counts what reaches the disk, and gives the folder that is found afterwards.

For code that writes through other libraries, which no simulated file system reaches. A file's bytes are on the platter
once it was synced, its name once its folder was; of the rest each survives or not, by the caller's generator.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from volano.stores import delta_log
from volano.testing.disk import PowerLoss


class LossyFolder:
    """Watches a folder from `at_work` on; everything in it before is on the platter.

    Args:
        crash_at: the effect (sync, link, removal, data file) with which the power goes, counted from 1.
    """

    def __init__(self, folder: Path, crash_at: int, chance: Random) -> None:
        self.folder = folder
        self.crash_at = crash_at
        self.chance = chance
        self.n_effects = 0
        self.found: dict[Path, bytes] | None = None
        self._bytes: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        for path in [folder, *folder.rglob("*")]:
            self._sync(path)

    @contextmanager
    def at_work(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Every effect inside is counted, and does not come back when it is the last one."""
        fsync, link, unlink, replace = os.fsync, os.link, os.unlink, os.replace
        write_table = delta_log.pq.write_table

        def sync(descriptor: int) -> None:
            fsync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            self._effect(lambda: self._sync(path), is_done_before=False)

        def watched(do: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *values, **named: self._effect(lambda: do(*values, **named), is_done_before=True)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", sync)
            patch.setattr(os, "link", watched(link))
            patch.setattr(os, "replace", watched(replace))
            patch.setattr(os, "unlink", watched(unlink))
            patch.setattr(delta_log.pq, "write_table", watched(write_table))
            yield

    def restore(self, target: Path) -> Path:
        """Write the folder that is found after the power went; a copy of it as it is when it did not."""
        if self.found is None:
            shutil.copytree(self.folder, target)
            return target
        target.mkdir(parents=True)
        for path, content in self.found.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(content)
        return target

    def _effect(self, do: Callable[[], Any], *, is_done_before: bool) -> Any:
        if self.found is not None:
            raise PowerLoss("The simulated power is gone.")
        self.n_effects += 1
        if self.n_effects == self.crash_at:
            if is_done_before:
                do()
            self.found = self._after_loss()
            raise PowerLoss("The simulated power is gone.")
        return do()

    def _sync(self, path: Path) -> None:
        if path.is_dir():
            self._names[path] = {each.name: each.inode() for each in os.scandir(path)}
        elif path.is_relative_to(self.folder):
            self._bytes[path.stat().st_ino] = path.read_bytes()

    def _after_loss(self) -> dict[Path, bytes]:
        found: dict[Path, bytes] = {}
        kept = self.chance.choice((0.0, 0.3, 0.7, 1.0))
        for folder, durable in self._names.items():
            if not folder.is_relative_to(self.folder):
                continue
            seen = {each.name: each.inode() for each in os.scandir(folder)}
            for name in {*durable, *seen}:
                survives = seen.get(name) == durable.get(name) or self.chance.random() < kept
                inode = seen.get(name) if survives else durable.get(name)
                if inode is None or (folder / name).is_dir():
                    continue
                content = self._bytes.get(inode)
                if content is None:  # never synced: all, nothing, or the length without the contents
                    whole = (folder / name).read_bytes()
                    content = self.chance.choice((whole, b"", whole[: len(whole) // 2]))
                found[(folder / name).relative_to(self.folder)] = content
        return found
