"""Journal records beside what the applier did with them: the journey's middle, read back from apply log and journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from volano.errors import CorruptionError
from volano.protocols.journal import JournalEntry, JournalReader
from volano.records.receipt import Applied, ApplyBatch


class AppliedEntry(NamedTuple):
    """One journal entry, its fate, and the apply-log sequence of its batch."""

    sequence: int
    entry: JournalEntry
    applied: Applied


def applied_entries(journal: JournalReader, batches: Iterable[ApplyBatch]) -> Iterator[AppliedEntry]:
    """Every record of some batches, in order, with its fate.

    Neighbouring ranges of one segment are read at once: a batch may be as small as one record.

    Raises:
        CorruptionError: the journal holds another number of records than the apply log says.
    """
    run: list[ApplyBatch] = []
    for batch in batches:
        if run and not _follows(run[-1], batch):
            yield from _read(journal, run)
            run = []
        run.append(batch)
    if run:
        yield from _read(journal, run)


def _follows(previous: ApplyBatch, batch: ApplyBatch) -> bool:
    if len(previous.ranges) != 1 or len(batch.ranges) != 1:
        return False
    (segment, _, end), (next_segment, start, _) = previous.ranges[0], batch.ranges[0]
    return segment == next_segment and end == start


def _read(journal: JournalReader, run: list[ApplyBatch]) -> Iterator[AppliedEntry]:
    ranges = run[0].ranges
    if len(run) > 1:
        ranges = ((ranges[0][0], ranges[0][1], run[-1].ranges[0][2]),)
    entries = [entry for segment, start, end in ranges for entry in journal.read_range(segment, start, end)]
    n_records = sum(len(batch.applied) for batch in run)
    if len(entries) != n_records:
        raise CorruptionError(
            f"The journal holds {len(entries)} records where the apply log says {n_records}.",
            where=f"apply-log sequences {run[0].sequence} to {run[-1].sequence}",
            mend="run `volano doctor`; restore the journal segment from a copy",
        )
    at = 0
    for batch in run:
        for applied in batch.applied:
            yield AppliedEntry(batch.sequence, entries[at], applied)
            at += 1
