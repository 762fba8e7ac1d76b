"""Which files of a table are worth merging: small ones, neighbours in time, few times over. Pure.

Files are never merged one by one into a large one: that would rewrite the large one each time. A file belongs to a
size class, each eight times the one before; eight files of a class become one of the next, so a row is written again
at most once a class (docs/decisions/0048-layout-of-the-lake.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

COMPACTED_BYTES: Final = 128 << 20
"""Size that compaction aims at."""
COMPACTED_ROWS: Final = 1 << 20
"""Rows that a merged file has at most: they are in memory while it is written."""
ENOUGH_FILES: Final = 8
"""Fewer files of one size are left for later, unless everything is to be merged."""

_SMALLEST: Final = 64 << 10


def groups_to_merge(
    files: pa.Table, *, partition_by: Sequence[str], cluster_by: str | None, eager: bool
) -> Iterator[pa.Table]:
    """Files that become one, group by group; each of one partition, at least two.

    Args:
        files: of a version: path, size_bytes, num_records, modification_time, `min.<column>`, `partition.<column>`.
        cluster_by: files follow each other by their least value of this column; without it by when they were written.
        eager: merge every small file; otherwise only where enough of one size have gathered.

    >>> files = pa.table({"path": list("abcd"), "size_bytes": [9, 9, 1 << 30, 9], "num_records": [1, 1, 9, 1],
    ...                   "modification_time": [0, 1, 2, 3], "min.at": [5, 1, 2, 3]})
    >>> groups = groups_to_merge(files, partition_by=[], cluster_by="at", eager=True)
    >>> [group["path"].to_pylist() for group in groups]
    [['b', 'd', 'a']]
    >>> list(groups_to_merge(files, partition_by=[], cluster_by="at", eager=False))
    []
    """
    by = f"min.{cluster_by}"
    ordered = [(by, "ascending")] if by in files.column_names else []
    if "modification_time" in files.column_names:
        ordered.append(("modification_time", "ascending"))
    order = pc.sort_indices(files, [*ordered, ("path", "ascending")])
    classes: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for at, file in zip(order.to_pylist(), files.take(order).to_pylist(), strict=True):
        if _is_small(file):
            partition = tuple(file[f"partition.{name}"] for name in partition_by)
            key = partition if eager else (*partition, _size_class(file["size_bytes"]))
            classes.setdefault(key, []).append({**file, "at": at})
    for members in classes.values():
        for group in _runs(members):
            if len(group) >= (2 if eager else ENOUGH_FILES):
                yield files.take([file["at"] for file in group])


def _is_small(file: dict[str, Any]) -> bool:
    return file["size_bytes"] < COMPACTED_BYTES // 2 and (file["num_records"] or 0) < COMPACTED_ROWS // 2


def _size_class(n_bytes: int) -> int:
    """How many times eight the smallest size fits.

    >>> [_size_class(n) for n in (0, 64 << 10, 512 << 10, 600 << 10, 4 << 20)]
    [0, 0, 1, 1, 2]
    """
    return max(0, ((n_bytes // _SMALLEST).bit_length() - 1) // 3)


def _runs(members: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Neighbours that together are no larger than what compaction aims at."""
    run: list[dict[str, Any]] = []
    n_bytes = n_rows = 0
    for file in members:
        size, rows = file["size_bytes"], file["num_records"] or 0
        if run and (n_bytes + size > COMPACTED_BYTES or n_rows + rows > COMPACTED_ROWS):
            yield run
            run, n_bytes, n_rows = [], 0, 0
        run.append(file)
        n_bytes, n_rows = n_bytes + size, n_rows + rows
    if run:
        yield run
