"""The apply log: which journal ranges were applied, with which stamps. Written before the online commit."""

from __future__ import annotations

from typing import Protocol

from volano.records.receipt import ApplyBatch


class ApplyLogReader(Protocol):
    """Reads batches in sequence order."""

    def last(self) -> ApplyBatch | None:
        """The newest batch, or None when nothing was ever applied."""
        ...

    def read(self, after: int, *, limit: int) -> list[ApplyBatch]:
        """At most `limit` batches with a sequence above `after`, in order; empty at the end."""
        ...

    def sync(self) -> None:
        """Make every batch that this reader has shown survive a loss of power, whoever wrote it.

        A batch can be read before its writer has synced it. What is derived from it and kept for good must not outlive
        it: another batch would get its sequence.
        """
        ...


class ApplyLogWriter(ApplyLogReader, Protocol):
    """The applier's side; there is one writer."""

    def append(self, batch: ApplyBatch) -> None:
        """Append one batch and fsync it. Its sequence must be one more than the last. All or nothing."""
        ...
