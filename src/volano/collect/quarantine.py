"""What was set aside, and sending it in again: rows of the lake joined with what was decided about them.

Reads also what was applied and is not committed yet, so that a row is listed as soon as its receipt says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.applied import applied_entries
from volano.collect.committer import WRITER
from volano.collect.tables import QUARANTINE, RECEIPTS, RESOLUTIONS
from volano.errors import RequestError, UnknownNameError
from volano.protocols.apply_log import ApplyLogReader
from volano.protocols.journal import JournalReader
from volano.protocols.lake import LakeWriter
from volano.records.journal import EVENT, EventReceived, JournalRecord, Operation, decode_record
from volano.records.quarantine import Edits, Fate, QuarantinedRow, Resolution
from volano.records.receipt import Applied, ReceiptStatus
from volano.values.instants import Instant

_BATCHES: Final = 1_024
_SET_ASIDE: Final = (ReceiptStatus.CONFLICT, ReceiptStatus.QUARANTINED)
_LISTED: Final = (
    "receipt_id", "source", "event_id", "operation", "revision", "status", "reason", "field", "message", "received_at",
    "applied_at",
)  # fmt: skip


class Quarantine:
    """Events that were set aside. Decisions and shadow scores that are in conflict are not events: see the lake."""

    def __init__(self, journal: JournalReader, apply_log: ApplyLogReader, lake: LakeWriter) -> None:
        self._journal = journal
        self._apply_log = apply_log
        self._lake = lake

    def rows(
        self,
        *,
        source: str | None = None,
        since: Instant | None = None,
        reason: str | None = None,
        fate: Fate | None = None,
    ) -> list[QuarantinedRow]:
        """Rows without their bytes, the oldest first.

        Args:
            since: only those received from then on.
            reason: only those of this code.
            fate: only those that stand so; all when None.
        """

        def wanted(row: QuarantinedRow) -> bool:
            return (
                (source is None or row.source == source)
                and (since is None or row.received_at >= since)
                and (reason is None or row.reason == reason)
                and (fate is None or row.fate is fate)
            )

        return [row for row in self._all(payload=False, only=None) if wanted(row)]

    def get(self, receipt_ids: Sequence[str]) -> list[QuarantinedRow]:
        """Some rows with their bytes, in the order asked for.

        Raises:
            UnknownNameError: none was set aside under one of the receipts.
        """
        found = {row.receipt_id: row for row in self._all(payload=True, only=frozenset(receipt_ids))}
        for receipt_id in receipt_ids:
            if receipt_id not in found:
                raise UnknownNameError(
                    f"Nothing was set aside under the receipt {receipt_id!r}.",
                    where="quarantine",
                    mend="`volano quarantine list --fate all` lists what was",
                )
        return [found[receipt_id] for receipt_id in receipt_ids]

    def _all(self, *, payload: bool, only: frozenset[str] | None) -> list[QuarantinedRow]:
        while True:
            # What is committed while this reads could be missed on both sides, or met on both.
            before = self._committed()
            rows = {row.receipt_id: row for row in self._stored(payload=payload, only=only)}
            resolutions = {each.receipt_id: each for each in self._stored_resolutions()}
            for record, applied in self._uncommitted(min(before)):
                match record:
                    case EventReceived() if applied.status in _SET_ASIDE:
                        if only is None or record.receipt_id in only:
                            rows.setdefault(record.receipt_id, _row(record, applied, payload=payload))
                    case Resolution() if applied.status == ReceiptStatus.STORED:
                        resolutions.setdefault(record.receipt_id, record)
                    case _:
                        pass
            if self._committed() == before:
                break
        settled = [_resolved(row, resolutions.get(row.receipt_id)) for row in rows.values()]
        return sorted(settled, key=lambda row: (row.received_at, row.receipt_id))

    def _committed(self) -> tuple[int, int]:
        """Up to which apply-log sequence both tables surely hold what they should."""
        receipts = self._committed_of(RECEIPTS)  # written last, so every table holds what it says
        return max(receipts, self._committed_of(QUARANTINE)), max(receipts, self._committed_of(RESOLUTIONS))

    def _committed_of(self, table: str) -> int:
        return 0 if self._lake.version(table) is None else self._lake.committed(table, WRITER)

    def _stored(self, *, payload: bool, only: frozenset[str] | None) -> Iterator[QuarantinedRow]:
        if self._lake.version(QUARANTINE) is None:
            return
        names = [*_LISTED, *(["payload"] if payload else [])]
        where = None if only is None else {"receipt_id": (min(only), max(only) + "\x00")}
        rows = self._lake.read(QUARANTINE, columns=["kind", *names], where=where)
        kinds = rows["kind"].cast(pa.string()).fill_null(EVENT)
        rows = rows.filter(pc.equal(kinds, EVENT)).drop_columns("kind")
        for name in ("received_at", "applied_at"):
            rows = rows.set_column(rows.column_names.index(name), name, rows[name].cast(pa.int64()))
        for row in rows.to_pylist():
            if only is None or row["receipt_id"] in only:
                # A row from before there was the column: what has a revision replaced something.
                row["operation"] = row["operation"] or (
                    Operation.CORRECT if row["revision"] else Operation.INSERT
                )
                yield QuarantinedRow(**row)

    def _stored_resolutions(self) -> Iterator[Resolution]:
        if self._lake.version(RESOLUTIONS) is None:
            return
        rows = self._lake.read(RESOLUTIONS)
        rows = rows.set_column(
            rows.column_names.index("resolved_at"), "resolved_at", rows["resolved_at"].cast(pa.int64())
        )
        for row in rows.drop_columns("applied_at").to_pylist():
            yield Resolution(**{**row, "namespace": "", "fate": Fate(row["fate"])})

    def _uncommitted(self, after: int) -> Iterator[tuple[JournalRecord, Applied]]:
        while batches := self._apply_log.read(after, limit=_BATCHES):
            after = batches[-1].sequence
            for _, entry, applied in applied_entries(self._journal, batches):
                yield decode_record(entry.record), applied


def edited(row: QuarantinedRow, edits: Edits) -> bytes:
    """The bytes of a row with some fields set anew; as they came without edits.

    Raises:
        RequestError: fields are to be set and the bytes are no JSON object.

    >>> row = QuarantinedRow("r", "s", "", "insert", 0, "quarantined", "", "", "", 0, 0, b'{"a": "x", "b": 1}')
    >>> edited(row, {"a": 7})
    b'{"a":7,"b":1}'
    """
    assert row.payload is not None
    if not edits:
        return row.payload
    try:
        event: Any = msgspec.json.decode(row.payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise RequestError(
            f"What came under the receipt {row.receipt_id!r} is no JSON object, so no field of it can be set.",
            where=f"source {row.source}",
            mend="give the whole event in its place: --event '{...}'",
        )
    return msgspec.json.encode({**event, **edits})


def still_open(rows: Iterable[QuarantinedRow]) -> list[QuarantinedRow]:
    """The rows, if nothing was decided about any of them.

    Raises:
        RequestError: one was replayed or discarded before; that stands.
    """
    found = list(rows)
    for row in found:
        if row.fate is not Fate.OPEN:
            told = f", as {row.replayed_as}" if row.replayed_as else ""
            raise RequestError(
                f"The row {row.receipt_id!r} was {row.fate.value} before by {row.actor}{told}; that stands.",
                where="quarantine",
                mend="send the event anew if it is still wanted",
            )
    return found


def _row(record: EventReceived, applied: Applied, *, payload: bool) -> QuarantinedRow:
    reason, field, message = applied.problem or record.problem or ("", "", "")
    return QuarantinedRow(
        record.receipt_id, record.source, record.event_id, record.operation.value, record.revision, applied.status,
        reason, field, message, record.received_at, applied.applied_at, record.payload if payload else None,
    )  # fmt: skip


def _resolved(row: QuarantinedRow, resolution: Resolution | None) -> QuarantinedRow:
    if resolution is None:
        return row
    return msgspec.structs.replace(
        row,
        fate=resolution.fate,
        actor=resolution.actor,
        resolved_at=resolution.resolved_at,
        resolution=resolution.reason,
        replayed_as=resolution.replayed_as,
    )
