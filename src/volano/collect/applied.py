"""Journal records beside what the applier did with them: the journey's middle, read back from apply log and journal."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Final, NamedTuple

from volano.errors import CorruptionError
from volano.protocols.journal import JournalEntry, JournalReader
from volano.records.receipt import Applied, ApplyBatch

_RECORDS_A_RUN: Final = 8_192
_end: Final = attrgetter("end")


class AppliedEntry(NamedTuple):
    """One journal entry, its fate, and the apply-log sequence of its batch."""

    sequence: int
    entry: JournalEntry
    applied: Applied


class AppliedRun(NamedTuple):
    """Batches that follow each other, and their journal entries in order."""

    batches: list[ApplyBatch]
    entries: list[JournalEntry]


def applied_entries(journal: JournalReader, batches: Iterable[ApplyBatch]) -> Iterator[AppliedEntry]:
    """Every record of some batches, in order, with its fate.

    Raises:
        CorruptionError: the journal holds another number of records than the apply log says.
    """
    for run in applied_runs(journal, batches):
        at = 0
        for batch in run.batches:
            for applied in batch.applied:
                yield AppliedEntry(batch.sequence, run.entries[at], applied)
                at += 1


def applied_runs(journal: JournalReader, batches: Iterable[ApplyBatch]) -> Iterator[AppliedRun]:
    """The same by runs of batches: what they hold of a segment is read at once, for a batch may be one record.

    Raises:
        CorruptionError: the journal holds another number of records than the apply log says.
    """
    run: list[ApplyBatch] = []
    spans: dict[str, tuple[int, int]] = {}
    n_records = 0
    for batch in batches:
        if run and (n_records >= _RECORDS_A_RUN or not _extend(spans, batch)):
            yield _read(journal, run, spans)
            run, spans, n_records = [], {}, 0
        if not run and not _extend(spans, batch):
            yield _checked([batch], [entry for each in batch.ranges for entry in journal.read_range(*each)])
            continue
        run.append(batch)
        n_records += len(batch.applied)
    if run:
        yield _read(journal, run, spans)


def _extend(spans: dict[str, tuple[int, int]], batch: ApplyBatch) -> bool:
    """Lengthen the spans of segments by the ranges of a batch; False, and nothing done, where they do not follow."""
    longer = dict(spans)
    for segment, start, end in batch.ranges:
        first, last = longer.get(segment, (start, start))
        if last != start:
            return False
        longer[segment] = (first, end)
    spans.update(longer)
    return True


def _read(journal: JournalReader, run: list[ApplyBatch], spans: Mapping[str, tuple[int, int]]) -> AppliedRun:
    read = {segment: journal.read_range(segment, start, end) for segment, (start, end) in spans.items()}
    if len(read) == 1:
        (entries,) = read.values()
    else:
        entries = []
        at = dict.fromkeys(read, 0)
        for batch in run:
            for segment, _, end in batch.ranges:
                found, first = read[segment], at[segment]
                at[segment] = bisect_right(found, end, first, key=_end)
                entries += found[first : at[segment]]
    return _checked(run, entries)


def _checked(run: list[ApplyBatch], entries: list[JournalEntry]) -> AppliedRun:
    n_records = sum(len(batch.applied) for batch in run)
    if len(entries) != n_records:
        raise CorruptionError(
            f"The journal holds {len(entries)} records where the apply log says {n_records}.",
            where=f"apply-log sequences {run[0].sequence} to {run[-1].sequence}",
            mend="run `volano doctor`; restore the journal segment from a copy",
        )
    return AppliedRun(run, entries)
