"""The engine that reads authors' tables and runs authors' SQL. Stateless over what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from volano.values.instants import Instant

if TYPE_CHECKING:
    import pyarrow.dataset as ds


class SqlEngine(Protocol):
    """Runs SQL over Arrow tables and files."""

    def query(self, sql: str, relations: Mapping[str, pa.Table]) -> pa.Table:
        """The result of a SELECT over named relations. Raises AuthorCodeError with the engine's message."""
        ...

    def read_table(
        self,
        address: str,
        *,
        columns: Sequence[str] | None = None,
        between: tuple[str, Instant | None, Instant | None] | None = None,
    ) -> pa.Table:
        """Rows of an author's table: a `.parquet` or `.csv` path, `delta:PATH`, `duckdb:SELECT ...`.

        Args:
            columns: which; those that the table lacks are left out; all when None.
            between: a column of instants and a half-open range of it. An engine may read less for it, or return more.

        Raises TableUnreadableError when it cannot be read; the mend names the address.
        """
        ...

    def scan_table(
        self,
        address: str,
        *,
        columns: Sequence[str] | None = None,
        between: tuple[str, Instant | None, Instant | None] | None = None,
        rows_at_once: int = 100_000,
    ) -> Iterator[pa.Table]:
        """The rows of `read_table`, at most so many at a time, in one order while the table is the same.

        At least one table comes, which may be empty. Raises TableUnreadableError, also on the way.
        """
        ...

    def scan(self, address: str) -> pa.Table | ds.Dataset:
        """An author's table as it is, for `ask`: in place where the engine can. Raises StoreError."""
        ...

    def ask(
        self,
        sql: str,
        relations: Mapping[str, pa.Table | ds.Dataset],
        views: Sequence[tuple[str, str, str]],
        *,
        known: Sequence[str],
        limit: int | None = None,
    ) -> pa.Table:
        """The result of one SELECT of a person, in the engine's own types. Writes nothing, and reads nothing else.

        Args:
            relations: what the views read, by name.
            views: schema, name and SELECT of each, in an order in which they can be made.
            known: the names that can be asked.
            limit: at most so many rows; all when None.

        Raises UnknownNameError for a table that is not known, AuthorCodeError with the engine's message and the place.
        """
        ...

    def snapshot(self, address: str) -> str:
        """A token that changes when the table's content does (a digest, a Delta version)."""
        ...
