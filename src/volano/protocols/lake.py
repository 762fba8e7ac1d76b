"""The lake: append-only tables of Arrow data with versions. The truth that everything else is rebuilt from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    import pyarrow.dataset as ds


class Compacted(NamedTuple):
    """What a compaction did: so many files became so many, of so many bytes."""

    n_before: int
    n_after: int
    n_bytes: int


class Vacuumed(NamedTuple):
    """What a vacuum removed: data files and their bytes, and files of the log."""

    n_files: int
    n_bytes: int
    n_log_files: int


class Contents(NamedTuple):
    """How much a version of a table holds.

    Args:
        bounds: the least and the greatest value of columns of instants and whole numbers, where every file says it;
            instants as int64 µs, cut to milliseconds where another writer wrote them.
    """

    version: int
    n_rows: int
    n_files: int
    n_bytes: int
    partition_by: tuple[str, ...]
    bounds: Mapping[str, tuple[int, int]]


class LakeReader(Protocol):
    """Reads tables at a version."""

    def tables(self) -> list[str]:
        """The names of all tables, sorted."""
        ...

    def version(self, table: str) -> int | None:
        """The newest version of a table, or None when there is no such table."""
        ...

    def files(self, table: str, *, version: int | None = None) -> list[str]:
        """Paths of the Parquet files of a version, for engines that read them themselves; empty without a table."""
        ...

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        where: Mapping[str, tuple[object | None, object | None]] | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Rows of a table; row order is not defined.

        Args:
            columns: which, in this order; all when None. A column that the table lacks is null throughout.
            where: column -> half-open range [low, high); None on a side leaves it open. Instants as int64 µs.
            version: as of this version; the newest when None.

        Returns:
            An empty table of the table's schema when nothing fits.

        Raises:
            UnknownNameError: there is no such table.
        """
        ...

    def contents(self, table: str) -> Contents:
        """How much the newest version of a table holds, without reading its rows. Raises UnknownNameError."""
        ...

    def dataset(self, table: str, *, version: int | None = None) -> ds.Dataset:
        """The rows of a version of a table, for engines that read lazily; see `read`. Raises UnknownNameError."""
        ...


class LakeWriter(LakeReader, Protocol):
    """The committer's side."""

    def create(self, table: str, schema: pa.Schema, *, partition_by: Sequence[str] = ()) -> None:
        """Create a table, or widen it: by the columns it lacks, and whole numbers (int64) into float64.

        The same schema again does nothing, nor does int64 for a column that was widened. Earlier versions keep their
        types. Raises StateMismatchError when a column changes its type otherwise, or holds a number that float64 does
        not; then the table is as it was.
        """
        ...

    def append(self, table: str, rows: pa.Table | Iterable[pa.Table], *, writer: str, sequence: int) -> int:
        """Append rows in one atomic commit and return the table's version.

        Exactly once for (writer, sequence): a sequence not above the writer's last committed one is skipped. Several
        tables are written one after the other and appear together; when their iterator raises, nothing was appended.
        """
        ...

    def committed(self, table: str, writer: str) -> int:
        """The newest sequence that `writer` committed to the table; 0 when none."""
        ...

    def compact(self, table: str, *, cluster_by: str | None = None, eager: bool = True) -> Compacted:
        """Merge small files and checkpoint the log. Readers at a version and other writers are not disturbed.

        Args:
            cluster_by: the column whose order the rows of a merged file have, so that ranges of it read little.
            eager: merge every small file; otherwise only where enough of one size have gathered.
        """
        ...

    def vacuum(
        self, table: str, *, pinned: Collection[int] = (), retain_us: int, dry_run: bool = False
    ) -> Vacuumed:
        """Remove what no version needs that counts: the newest, those that were it within `retain_us`, the pinned ones.

        Other old versions cannot be read any more. A pinned version that cannot be read is passed over.

        Args:
            retain_us: at least as long as a reader, or a commit, may take.
            dry_run: remove nothing, say what would be.
        """
        ...
