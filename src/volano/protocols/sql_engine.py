"""The engine that reads authors' tables and runs authors' SQL. Stateless over what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from volano.values.instants import Instant


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

        Raises StoreError when it cannot be read; the mend names the address.
        """
        ...

    def snapshot(self, address: str) -> str:
        """A token that changes when the table's content does (a digest, a Delta version)."""
        ...
