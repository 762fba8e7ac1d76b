"""Receipts: how an accepted event ended, and the account of all of them.

The account is counted at both ends: what was accepted in the journal, what became of it where it lies now.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from volano.collect.applied import applied_entries
from volano.collect.committer import WRITER
from volano.collect.tables import QUARANTINE, RECEIPTS, fact_table
from volano.errors import UnknownNameError
from volano.protocols.apply_log import ApplyLogReader
from volano.protocols.journal import JournalReader
from volano.protocols.lake import LakeReader, LakeWriter
from volano.records.journal import EventReceived, decode_record
from volano.records.receipt import Receipt, ReceiptStatus, Reconciliation

_AT_ONCE: Final = 10_000
_BATCHES: Final = 1_024
_TABLE_OF: Final = {ReceiptStatus.CONFLICT: QUARANTINE, ReceiptStatus.QUARANTINED: QUARANTINE}


class Receipts:
    """Answers what became of a receipt.

    Looks first at what was applied since the last commit, then in the lake, then at what waits in the
    journal. Reads more the longer the committer has not run.
    """

    def __init__(self, journal: JournalReader, apply_log: ApplyLogReader, lake: LakeWriter) -> None:
        self._journal = journal
        self._apply_log = apply_log
        self._lake = lake

    def status(self, receipt_id: str) -> Receipt:
        """How the event of a receipt ended, as far as it has.

        Raises:
            UnknownNameError: no accepted event has this receipt.
        """
        while True:
            last = self._apply_log.last()
            found = (
                self._find_applied(receipt_id, _committed(self._lake, RECEIPTS))
                or self._find_committed(receipt_id)
                or self._find_waiting(receipt_id)
            )
            if found is not None:
                return found
            # It may have moved from one place to the next between the looks, in another process.
            if self._apply_log.last() == last:
                raise UnknownNameError(
                    f"No accepted event has the receipt {receipt_id!r}.",
                    where="journal and lake table receipt",
                    mend="give the receipt_id that was answered",
                )

    def _find_applied(self, receipt_id: str, after: int) -> Receipt | None:
        while batches := self._apply_log.read(after, limit=_BATCHES):
            after = batches[-1].sequence
            for _, entry, applied in applied_entries(self._journal, batches):
                record = decode_record(entry.record)
                if isinstance(record, EventReceived) and record.receipt_id == receipt_id:
                    return Receipt(receipt_id, ReceiptStatus(applied.status), applied.problem)
        return None

    def _find_committed(self, receipt_id: str) -> Receipt | None:
        if self._lake.version(RECEIPTS) is None:
            return None
        only = {"receipt_id": (receipt_id, receipt_id + "\x00")}
        rows = self._lake.read(RECEIPTS, columns=["status"], where=only)
        if rows.num_rows == 0:
            return None
        status = ReceiptStatus(rows["status"][0].as_py())
        problem = None
        if status in _TABLE_OF:
            why = self._lake.read(QUARANTINE, columns=["reason", "field", "message"], where=only)
            if why.num_rows:
                problem = (why["reason"][0].as_py(), why["field"][0].as_py(), why["message"][0].as_py())
        return Receipt(receipt_id, status, problem)

    def _find_waiting(self, receipt_id: str) -> Receipt | None:
        cursor = _applied_until(self._apply_log)
        while entries := self._journal.read(cursor, limit=_AT_ONCE):
            for segment, _, end, data in entries:
                cursor[segment] = end
                record = decode_record(data)
                if isinstance(record, EventReceived) and record.receipt_id == receipt_id:
                    return Receipt(receipt_id, ReceiptStatus.PENDING, record.problem)
        return None


def reconcile(journal: JournalReader, apply_log: ApplyLogReader, lake: LakeWriter) -> Reconciliation:
    """Count every accepted event where it was accepted and where it ended.

    Stored events are counted in the fact tables, conflicts and quarantined ones in `quarantine`, duplicates in
    `receipt`; what was applied and is not committed yet by its fate in the apply log; the rest is pending.
    """
    accepted = _count_accepted(journal)
    ended = _count_lake(lake)
    applied: dict[str, int] = {}
    n_applied = 0
    after = 0
    while batches := apply_log.read(after, limit=_BATCHES):
        after = batches[-1].sequence
        for sequence, entry, fate in applied_entries(journal, batches):
            record = decode_record(entry.record)
            if not isinstance(record, EventReceived):
                continue
            n_applied += 1
            table = _table_of(record, ReceiptStatus(fate.status))
            if table not in applied:
                applied[table] = _committed(lake, table)
            if sequence > applied[table]:
                ended[ReceiptStatus(fate.status)] += 1
    return Reconciliation(
        accepted=accepted,
        stored=ended[ReceiptStatus.STORED],
        duplicate=ended[ReceiptStatus.DUPLICATE],
        conflict=ended[ReceiptStatus.CONFLICT],
        quarantined=ended[ReceiptStatus.QUARANTINED],
        pending=accepted - n_applied,
    )


def _table_of(record: EventReceived, status: ReceiptStatus) -> str:
    if status is ReceiptStatus.STORED:
        return fact_table(record.source)
    return _TABLE_OF.get(status, RECEIPTS)


def _committed(lake: LakeWriter, table: str) -> int:
    return 0 if lake.version(table) is None else lake.committed(table, WRITER)


def _count_accepted(journal: JournalReader) -> int:
    cursor: dict[str, int] = {}
    n_events = 0
    while entries := journal.read(cursor, limit=_AT_ONCE):
        for segment, _, end, data in entries:
            cursor[segment] = end
            n_events += isinstance(decode_record(data), EventReceived)
    return n_events


def _count_lake(lake: LakeReader) -> Counter[ReceiptStatus]:
    counts: Counter[ReceiptStatus] = Counter()
    tables = lake.tables()
    for table in tables:
        if table.startswith(fact_table("")):
            counts[ReceiptStatus.STORED] += lake.read(table, columns=["revision"]).num_rows
    if QUARANTINE in tables:
        for status in lake.read(QUARANTINE, columns=["status"])["status"].to_pylist():
            counts[ReceiptStatus(status)] += 1
    if RECEIPTS in tables:
        statuses = Counter(lake.read(RECEIPTS, columns=["status"])["status"].to_pylist())
        counts[ReceiptStatus.DUPLICATE] = statuses[ReceiptStatus.DUPLICATE.value]
    return counts


def _applied_until(apply_log: ApplyLogReader) -> dict[str, int]:
    cursor: dict[str, int] = {}
    after = 0
    while batches := apply_log.read(after, limit=_BATCHES):
        after = batches[-1].sequence
        for batch in batches:
            cursor.update({segment: end for segment, _, end in batch.ranges})
    return cursor
