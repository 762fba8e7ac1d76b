"""Scratch space in a folder: one Arrow file a put. What a killed process left is removed by the next one."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

import pyarrow as pa
from pyarrow import feather

from volano.errors import StoreFullError


class FileScratch:
    """Scratch space for the time of a `with` block.

    Args:
        folder: its own; emptied at the beginning, removed at the end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._n_files: dict[str, int] = {}

    def __enter__(self) -> FileScratch:
        shutil.rmtree(self._folder, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, name: str, rows: pa.Table) -> None:
        """Write the rows to a file (see `Scratch.put`)."""
        number = self._n_files.get(name, 0)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            feather.write_feather(rows, self._path(name, number), compression="lz4")
        except OSError as error:
            raise StoreFullError(
                f"Rows cannot be put aside: {error}.",
                where=str(self._folder),
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
        return self._folder / f"{name}-{number:06d}.arrow"
