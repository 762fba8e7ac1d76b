"""The catalog (documents by kind and name) and the ledger (append-only entries by stream).

Both hold JSON bytes; codecs are the callers'. Generic over kinds, so a new kind costs no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from volano.values.instants import Instant


class Document(NamedTuple):
    """The present version of one document; `revision` counts from 1."""

    kind: str
    name: str
    revision: int
    body: bytes


class LedgerEntry(NamedTuple):
    """One entry; `sequence` counts from 1 in its stream."""

    stream: str
    sequence: int
    at: Instant
    body: bytes


class CatalogReader(Protocol):
    """Reads documents and ledger entries."""

    def find(self, kind: str, name: str) -> Document | None:
        """The document, or None."""
        ...

    def documents(self, kind: str) -> list[Document]:
        """All documents of a kind, by name."""
        ...

    def entries(self, stream: str, *, after: int = 0) -> list[LedgerEntry]:
        """Entries of a stream above a sequence, in order; empty when there are none."""
        ...

    def last_entry(self, stream: str) -> LedgerEntry | None:
        """The newest entry of a stream, or None."""
        ...


class CatalogWriter(CatalogReader, Protocol):
    """Writes both. Every method is one atomic, durable transaction."""

    def put(self, kind: str, name: str, body: bytes, *, expected: int | None = None) -> int:
        """Write a document; returns its revision. With `expected`, compare-and-set (0: must not exist yet).

        Raises ConflictError when the present revision is another.
        """
        ...

    def append(
        self, stream: str, bodies: Sequence[bytes], *, at: Instant, expected: int | None = None
    ) -> int:
        """Append entries; returns the last sequence. With `expected`, only if the stream's last sequence is that.

        Raises ConflictError otherwise, and appends nothing.
        """
        ...

    def trim(self, stream: str, *, before: int) -> None:
        """Remove entries of a stream below a sequence, where its newest entry says all. The newest stays."""
        ...
