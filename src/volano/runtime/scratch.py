"""Scratch space in a folder: one Arrow file a put. What a killed process left is removed by the next one."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import pyarrow as pa
from pyarrow import feather

from volano.errors import StoreFullError

_LOCK: Final = "lock"


class FileScratch:
    """Scratch space for the time of a `with` block; its folder is made when something is put aside.

    Args:
        parent: holds a folder for each process at work. A folder whose process is gone is removed: its lock is free.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._folder: Path | None = None
        self._held: IO[bytes] | None = None
        self._n_files: dict[str, int] = {}

    def __enter__(self) -> FileScratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None and self._held is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._held.close()
            self._folder = self._held = None

    def put(self, name: str, rows: pa.Table) -> None:
        """Write the rows to a file (see `Scratch.put`)."""
        number = self._n_files.get(name, 0)
        try:
            feather.write_feather(rows, self._path(name, number), compression="lz4")
        except OSError as error:
            raise StoreFullError(
                f"Rows cannot be put aside: {error}.",
                where=str(self._parent),
                mend="free space on the disk and call again; it goes on where it stopped",
            ) from error
        self._n_files[name] = number + 1

    def take(self, name: str) -> pa.Table | None:
        """Read and remove the files of a name (see `Scratch.take`)."""
        paths = [self._path(name, number) for number in range(self._n_files.pop(name, 0))]
        if not paths:
            return None
        rows = pa.concat_tables([feather.read_table(path, memory_map=False) for path in paths])
        for path in paths:
            path.unlink()
        return rows

    def _path(self, name: str, number: int) -> Path:
        if self._folder is None:
            self._folder, self._held = _own_folder(self._parent)
        return self._folder / f"{name}-{number:06d}.arrow"


def _own_folder(parent: Path) -> tuple[Path, IO[bytes]]:
    """A new folder and the lock in it, held; removes those that nobody holds."""
    parent.mkdir(parents=True, exist_ok=True)
    with open(parent / _LOCK, "wb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        for other in parent.iterdir():
            if other.is_dir() and _is_free(other / _LOCK):
                shutil.rmtree(other, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=parent))
        held = open(folder / _LOCK, "wb")  # noqa: SIM115 - held until the work ends
        fcntl.flock(held, fcntl.LOCK_EX)
    return folder, held


def _is_free(lock: Path) -> bool:
    try:
        with open(lock, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
