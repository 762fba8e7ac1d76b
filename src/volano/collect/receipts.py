"""Receipts: how an accepted event ended, and the account of all of them.

The account is counted at both ends: what was accepted in the journal, what became of it where it lies now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.applied import applied_entries
from volano.collect.committer import WRITER, destinations
from volano.collect.parents import Named, Parents
from volano.collect.tables import QUARANTINE, RECEIPTS, RESOLUTIONS, SHADOWS, decision_table
from volano.errors import UnknownNameError
from volano.plan.built_in import BUILT_IN, fact_table, is_fact_table
from volano.protocols.apply_log import ApplyLogReader
from volano.protocols.journal import JournalReader
from volano.protocols.lake import LakeReader, LakeWriter
from volano.records.journal import (
    DECISION,
    EVENT,
    RESOLUTION,
    SHADOW,
    EventReceived,
    JournalRecord,
    decode_record,
    kind_of,
)
from volano.records.receipt import Account, Applied, ApplyBatch, Receipt, ReceiptStatus, Reconciliation
from volano.values.instants import BEGINNING, Instant

_AT_ONCE: Final = 10_000
_BATCHES: Final = 1_024
_SET_ASIDE: Final = (ReceiptStatus.CONFLICT, ReceiptStatus.QUARANTINED)
_TOO_LATE: Final = (
    "too_late",
    "",
    "it came later than its source accepts: it is stored, may be evidence of a label, and changes no feature",
)


class Receipts:
    """Answers what became of a receipt.

    Looks first at what was applied since the last commit, then in the lake, then at what waits in the
    journal. Reads more the longer the committer has not run.

    Args:
        parents: finds the decisions that exposures and actions taken name; without it they count as stored.
    """

    def __init__(
        self,
        journal: JournalReader,
        apply_log: ApplyLogReader,
        lake: LakeWriter,
        parents: Parents | None = None,
    ) -> None:
        self._journal = journal
        self._apply_log = apply_log
        self._lake = lake
        self._parents = parents

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
                    problem = _TOO_LATE if applied.late else applied.problem
                    status = ReceiptStatus(applied.status)
                    if (
                        self._parents is not None
                        and status is ReceiptStatus.STORED
                        and record.source in BUILT_IN
                    ):
                        named = msgspec.json.decode(record.payload, type=Named)
                        status, problem = self._parents.standing(named, applied.applied_at)
                    return Receipt(receipt_id, status, problem)
        return None

    def _find_committed(self, receipt_id: str) -> Receipt | None:
        if self._lake.version(RECEIPTS) is None:
            return None
        only = {"receipt_id": (receipt_id, receipt_id + "\x00")}
        rows = self._lake.read(RECEIPTS, columns=["status", "source"], where=only)
        if rows.num_rows == 0:
            return None
        status = ReceiptStatus(rows["status"][0].as_py())
        problem = None
        if (
            self._parents is not None
            and status is ReceiptStatus.STORED
            and rows["source"][0].as_py() in BUILT_IN
        ):
            child = self._lake.read(
                fact_table(rows["source"][0].as_py()),
                columns=["decision", "decision_id", "applied_at"],
                where=only,
            )
            named = Named(child["decision"][0].as_py(), child["decision_id"][0].as_py())
            at = child["applied_at"].cast(pa.int64())[0].as_py()
            status, problem = self._parents.standing(named, at)
        elif status is ReceiptStatus.STORED:
            stored = self._lake.read(fact_table(rows["source"][0].as_py()), columns=["too_late"], where=only)
            problem = _TOO_LATE if stored.num_rows and stored["too_late"][0].as_py() else None
        if status in _SET_ASIDE:
            why = self._lake.read(QUARANTINE, columns=["reason", "field", "message"], where=only)
            if why.num_rows:
                problem = (why["reason"][0].as_py(), why["field"][0].as_py(), why["message"][0].as_py())
        return Receipt(receipt_id, status, problem)

    def _find_waiting(self, receipt_id: str) -> Receipt | None:
        cursor = _applied_until(self._apply_log)
        until = self._journal.ends()
        while entries := self._journal.read(cursor, limit=_AT_ONCE, until=until):
            for segment, _, end, data in entries:
                cursor[segment] = end
                record = decode_record(data)
                if isinstance(record, EventReceived) and record.receipt_id == receipt_id:
                    return Receipt(receipt_id, ReceiptStatus.PENDING, record.problem)
        return None


def reconcile(journal: JournalReader, apply_log: ApplyLogReader, lake: LakeWriter) -> Account:
    """Count every accepted record where it was accepted and where it ended.

    What is stored is counted in its own table, conflicts and quarantined ones in `quarantine`, duplicates in `receipt`;
    what was applied and is not committed yet by its fate in the apply log; the rest is pending. Counts from the
    end of the journey to its beginning, each part as far as it reaches when its turn comes: exact, and at an end some
    day, also while another process accepts, applies and commits.
    """
    ends = _Ends(lake)
    n_applied: Counter[str] = Counter()
    for batches in _batches(apply_log):
        for sequence, entry, fate in applied_entries(journal, batches):
            record = decode_record(entry.record)
            n_applied[kind_of(record)] += 1
            ends.count(record, fate, sequence)
    accepted = _count_accepted(journal)
    return Account(
        *(
            ends.account(kind, accepted[kind], n_applied[kind])
            for kind in (EVENT, DECISION, SHADOW, RESOLUTION)
        )
    )


class Total(NamedTuple):
    """All kinds together, and of the stored events those that came too late to change a feature, by source."""

    account: Reconciliation
    too_late: dict[str, int]


def total(journal: JournalReader, apply_log: ApplyLogReader, lake: LakeWriter) -> Total:
    """The account of all kinds together, with what was applied counted in the apply log: reads no old journal."""
    ends = _Ends(lake)
    n_applied = 0
    cursor: dict[str, int] = {}
    for batches in _batches(apply_log):
        for batch in batches:
            n_applied += len(batch.applied)
            cursor.update({segment: end for segment, _, end in batch.ranges})
        waiting = [batch for batch in batches if batch.sequence > ends.oldest]
        for sequence, entry, fate in applied_entries(journal, waiting):
            ends.count(decode_record(entry.record), fate, sequence)
    accepted, until = n_applied, journal.ends()
    while entries := journal.read(cursor, limit=_AT_ONCE, until=until):
        accepted += len(entries)
        cursor.update({entry.segment: entry.end for entry in entries})
    return Total(ends.account(None, accepted, n_applied), dict(sorted(ends.too_late.items())))


def committed_until(apply_log: ApplyLogReader, lake: LakeWriter) -> Instant:
    """The stamp up to which every table is committed, also while another process commits; BEGINNING before the first.

    A commit writes table by table, receipts last: a decision may be in the lake before a fact that it saw.
    """
    sequence = _committed(lake, RECEIPTS)
    batches = apply_log.read(sequence - 1, limit=1) if sequence else []
    return batches[0].last_stamp if batches else BEGINNING


class _Ends:
    """Where records ended, by kind and status: rows of the lake, then what the apply log says of later ones."""

    def __init__(self, lake: LakeWriter) -> None:
        self._lake = lake
        self._ended: Counter[tuple[str, str]] = Counter()
        self._until: dict[str, int] = {}
        self.too_late: Counter[str] = Counter()
        # Receipts are written last, so what was committed later than they say cannot be missed in another table.
        tables = sorted(lake.tables(), key=lambda name: name != RECEIPTS)
        self.oldest = 0 if RECEIPTS not in tables else _committed(lake, RECEIPTS)
        for table in tables:
            self._count_table(table)

    def count(self, record: JournalRecord, fate: Applied, sequence: int) -> None:
        """Count an applied record, unless its table holds it."""
        if sequence > self._until.get(destinations(record, fate.status)[0], 0):
            self._ended[kind_of(record), fate.status] += 1
            if fate.late and isinstance(record, EventReceived):
                self.too_late[record.source] += 1

    def account(self, kind: str | None, accepted: int, n_applied: int) -> Reconciliation:
        """The account of a kind, or of all when None."""
        ended: Counter[str] = Counter()
        for (of_kind, status), n in self._ended.items():
            if kind in (None, of_kind):
                ended[status] += n
        return Reconciliation(
            accepted=accepted,
            stored=ended[ReceiptStatus.STORED],
            duplicate=ended[ReceiptStatus.DUPLICATE],
            conflict=ended[ReceiptStatus.CONFLICT],
            quarantined=ended[ReceiptStatus.QUARANTINED],
            pending=accepted - n_applied,
        )

    def _count_table(self, table: str) -> None:
        """Count the rows of a table and note how far it is committed, as of one moment."""
        while True:
            until = _committed(self._lake, table)
            found, n_late = _count_rows(self._lake, table)
            if until == _committed(self._lake, table):
                break
        self._until[table] = until
        self._ended += found
        if n_late:
            self.too_late[table.removeprefix("fact_")] = n_late


def _committed(lake: LakeWriter, table: str) -> int:
    return 0 if lake.version(table) is None else lake.committed(table, WRITER)


def _count_accepted(journal: JournalReader) -> Counter[str]:
    cursor: dict[str, int] = {}
    until = journal.ends()
    n_records: Counter[str] = Counter()
    while entries := journal.read(cursor, limit=_AT_ONCE, until=until):
        for segment, _, end, data in entries:
            cursor[segment] = end
            n_records[kind_of(decode_record(data))] += 1
    return n_records


def _count_rows(lake: LakeReader, table: str) -> tuple[Counter[tuple[str, str]], int]:
    """The rows of a table that are the end of a record, by kind and status; and how many of them came too late."""
    stored = ReceiptStatus.STORED.value
    if is_fact_table(table):
        # Rows that a hand-over copied from a table were never accepted; their revision is below zero.
        marks = lake.read(table, columns=["too_late"], where={"revision": (0, None)})["too_late"]
        return Counter({(EVENT, stored): len(marks)}), pc.sum(marks).as_py() or 0
    if table.startswith(decision_table("")):
        return Counter({(DECISION, stored): lake.read(table, columns=["attempt"]).num_rows}), 0
    if table == SHADOWS:
        return Counter({(SHADOW, stored): lake.read(table, columns=["attempt"]).num_rows}), 0
    if table == RESOLUTIONS:
        return Counter({(RESOLUTION, stored): lake.read(table, columns=["receipt_id"]).num_rows}), 0
    if table not in (QUARANTINE, RECEIPTS):
        return Counter(), 0
    # Neither was a row that a hand-over found unfit.
    accepted = {"revision": (0, None)}
    rows = lake.read(table, columns=["kind", "status"], where=accepted if table == QUARANTINE else None)
    # Rows from before there was the column; where all are, it has no type.
    kinds = rows["kind"].cast(pa.string()).fill_null(EVENT)
    counted = (
        pa.table([kinds, rows["status"]], ["kind", "status"])
        .group_by(["kind", "status"])
        .aggregate([([], "count_all")])
    )
    pairs = {(row["kind"], row["status"]): row["count_all"] for row in counted.to_pylist()}
    duplicate = ReceiptStatus.DUPLICATE.value
    return Counter({pair: n for pair, n in pairs.items() if table == QUARANTINE or pair[1] == duplicate}), 0


def _applied_until(apply_log: ApplyLogReader) -> dict[str, int]:
    cursor: dict[str, int] = {}
    for batches in _batches(apply_log):
        for batch in batches:
            cursor.update({segment: end for segment, _, end in batch.ranges})
    return cursor


def _batches(apply_log: ApplyLogReader) -> Iterator[list[ApplyBatch]]:
    """All batches of an apply log as long as it is now, some at a time."""
    last = apply_log.last()
    until, after = 0 if last is None else last.sequence, 0
    while after < until:
        batches = apply_log.read(after, limit=min(_BATCHES, until - after))
        yield batches
        after = batches[-1].sequence
