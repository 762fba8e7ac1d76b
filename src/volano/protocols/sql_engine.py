"""The engine that reads authors' tables and runs authors' SQL. Stateless over what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa


class SqlEngine(Protocol):
    """Runs SQL over Arrow tables and files."""

    def query(self, sql: str, relations: Mapping[str, pa.Table]) -> pa.Table:
        """The result of a SELECT over named relations. Raises AuthorCodeError with the engine's message."""
        ...

    def read_table(self, address: str) -> pa.Table:
        """All rows of an author's table: a `.parquet` or `.csv` path, `delta:PATH`, `duckdb:SELECT ...`.

        Raises StoreError when it cannot be read; the mend names the address.
        """
        ...

    def snapshot(self, address: str) -> str:
        """A token that changes when the table's content does (a digest, a Delta version)."""
        ...
