"""Rows put aside because they do not fit memory, for one piece of work. Nothing of it outlives the process."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa


class Scratch(Protocol):
    """Keeps tables by name until they are taken."""

    def put(self, name: str, rows: pa.Table) -> None:
        """Put rows aside, behind those that lie under the name; all of one schema. Raises StoreFullError."""
        ...

    def take(self, name: str) -> pa.Table | None:
        """Every row under the name, in order, and forget them; None when there are none."""
        ...
