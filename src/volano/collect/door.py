"""The door: an event is checked, gets its receipt, and is in the journal before its sender is answered.

Deliberately does not look whether an event came before: the applier knows, and the receipt id tells later.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from volano.collect.schemas import Misfit, Problem, SourceSchema, raw_bytes
from volano.errors import RequestError, UnknownNameError
from volano.plan.built_in import BUILT_IN, collected_sources
from volano.plan.definitions import CompiledProject
from volano.protocols.clock import Clock
from volano.protocols.journal import JournalWriter
from volano.records.journal import (
    DecisionMade,
    EventReceived,
    Operation,
    ShadowScored,
    TableChange,
    encode_record,
)
from volano.records.quarantine import Resolution
from volano.records.receipt import Receipt, ReceiptStatus
from volano.values.identities import short_hash, uuid7, uuid7s
from volano.values.instants import MINUTE_US, Instant, format_instant

_ENTROPY_BYTES = 8
_CHANGES_AT_ONCE = 10_000
_WORTH_A_COLUMN = 8
"""So many events are faster together than one by one."""


class _OfDecision(msgspec.Struct):
    decision: str | None = None


class Door:
    """Takes events and decisions in.

    Args:
        journal: a segment of its own.
        clock: says `received_at`.
        entropy: so many random bytes, for receipt ids.
        future_tolerance_us: how far a sender's clock may run ahead of ours.
    """

    def __init__(
        self,
        project: CompiledProject,
        journal: JournalWriter,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        future_tolerance_us: int = 5 * MINUTE_US,
    ) -> None:
        self._namespace = project.namespace
        self._schemas = {
            name: SourceSchema(source, project.key_columns(name))
            for name, source in collected_sources(project).items()
        }
        self._decisions = frozenset(project.decisions)
        self._journal = journal
        self._clock = clock
        self._entropy = entropy
        self._tolerance_us = future_tolerance_us

    def accept(
        self,
        source: str,
        events: Sequence[Mapping[str, Any] | bytes],
        *,
        operation: Operation = Operation.INSERT,
        revision: int = 0,
        sync: bool = True,
    ) -> list[Receipt]:
        """Journal events of one source in one append, in order, and answer each with a receipt.

        An event that does not fit is journaled as it came, with its problem; its neighbours are not affected.

        Args:
            events: mappings, or JSON objects as bytes. Timestamps are aware datetimes or ISO 8601 with a zone.
            operation: insert states rows; correct and retract replace them by id.
            revision: 0 for an insert, 1 or more for what replaces it; the highest stands.
            sync: whether the events must survive a loss of power before this returns.

        Returns:
            One receipt an event, in order: pending, or quarantined with the problem.

        Raises:
            UnknownNameError: there is no such source.
            RequestError: the source takes no events, or revision and operation do not fit together.
            StoreFullError: nothing of this call was accepted.
        """
        receipts, records = self.prepare(source, events, operation=operation, revision=revision)
        self._journal.append(records, sync=sync)
        return receipts

    def prepare(
        self,
        source: str,
        events: Sequence[Mapping[str, Any] | bytes],
        *,
        operation: Operation = Operation.INSERT,
        revision: int = 0,
    ) -> tuple[list[Receipt], list[bytes]]:
        """The receipts of events and the records to journal, for a caller who appends them himself (see `accept`).

        No receipt may be answered before the records are in the journal.
        """
        schema = self._schema(source)
        _check_revision(operation, revision)
        now = self._clock.now()
        receipt_ids = uuid7s(now, self._entropy(_ENTROPY_BYTES * len(events)))
        records = self._receive_alike(schema, events, operation, revision, receipt_ids, now)
        if records is not None:
            return [Receipt(receipt_id, ReceiptStatus.PENDING) for receipt_id in receipt_ids], records
        receipts, records = [], []
        for receipt_id, event in zip(receipt_ids, events, strict=True):
            record = self._receive(
                schema, event, operation, revision, receipt_id, now, now + self._tolerance_us
            )
            records.append(encode_record(record))
            status = ReceiptStatus.PENDING if record.problem is None else ReceiptStatus.QUARANTINED
            receipts.append(Receipt(receipt_id, status, record.problem))
        return receipts, records

    def replay(
        self,
        source: str,
        event: bytes,
        *,
        operation: Operation,
        revision: int,
        received_at: Instant,
        resolution: Resolution,
    ) -> Receipt:
        """Journal an event that was set aside again, and in the same append what is noted about the row.

        Args:
            received_at: when it was first held; it keeps that.
            resolution: of the row; its `replayed_as` is set here.

        Returns:
            Its receipt; with a problem when it still does not fit. Then nothing was journaled.

        Raises:
            UnknownNameError, RequestError: as for `accept`.
            StoreFullError: nothing was accepted.
        """
        schema = self._schema(source)
        _check_revision(operation, revision)
        now = self._clock.now()
        receipt_id = uuid7(now, self._entropy(_ENTROPY_BYTES))
        latest = now + self._tolerance_us
        record = self._receive(schema, event, operation, revision, receipt_id, now, latest)
        if record.problem is not None:
            return Receipt(receipt_id, ReceiptStatus.QUARANTINED, record.problem)
        record = msgspec.structs.replace(record, received_at=received_at, replays=resolution.receipt_id)
        noted = msgspec.structs.replace(resolution, replayed_as=receipt_id)
        self._journal.append([encode_record(record), encode_record(noted)], sync=True)
        return Receipt(receipt_id, ReceiptStatus.PENDING)

    def resolve(self, resolutions: Sequence[Resolution]) -> None:
        """Journal what was decided about rows that were set aside, in one append."""
        self._journal.append([encode_record(each) for each in resolutions], sync=True)

    def bring(self, source: str, changes: Sequence[TableChange]) -> int:
        """Journal what changed in the table of a source; returns how many of the changes did not fit its schema.

        Unlike a sender, a table may speak of the future: a price that is announced. Bringing a change that was stored
        before makes a duplicate, which changes nothing.
        """
        schema = self._schemas[source]
        n_problems = 0
        for start in range(0, len(changes), _CHANGES_AT_ONCE):
            part = changes[start : start + _CHANGES_AT_ONCE]
            now = self._clock.now()
            receipt_ids = uuid7s(now, self._entropy(_ENTROPY_BYTES * len(part)))
            records: list[bytes] = []
            for receipt_id, (event, operation, revision, known_at) in zip(receipt_ids, part, strict=True):
                record = self._receive(schema, event, operation, revision, receipt_id, now, None, known_at)
                n_problems += record.problem is not None
                records.append(encode_record(record))
            self._journal.append(records, sync=True)
        return n_problems

    def log(self, records: Sequence[DecisionMade | ShadowScored], *, sync: bool = False) -> list[bytes]:
        """Journal decisions and shadow scores, in one append; returns their wire forms.

        Without `sync` they survive a kill of the process but not a loss of power.
        """
        written = [encode_record(record) for record in records]
        self._journal.append(written, sync=sync)
        return written

    def _receive_alike(
        self,
        schema: SourceSchema,
        events: Sequence[Mapping[str, Any] | bytes],
        operation: Operation,
        revision: int,
        receipt_ids: Sequence[str],
        now: Instant,
    ) -> list[bytes] | None:
        """What `_receive` makes of each event of a batch in which nothing is wrong; None where something may be."""
        if len(events) < _WORTH_A_COLUMN or schema.source.name in BUILT_IN:
            return None
        payloads = [event for event in events if type(event) is bytes]
        fitted = schema.fit_all(payloads, operation) if len(payloads) == len(events) else None
        if fitted is None or max(fitted.event_times) > now + self._tolerance_us:
            return None
        namespace, source = self._namespace, schema.source.name
        mark = _mark(operation)
        received = [
            EventReceived(
                receipt_id,
                namespace,
                source,
                event_id,
                event_time,
                now,
                payload,
                short_hash(mark + canonical),
                operation,
                revision,
            )
            for receipt_id, payload, canonical, event_id, event_time in zip(
                receipt_ids, payloads, fitted.canonical, fitted.event_ids, fitted.event_times, strict=True
            )
        ]
        return list(map(encode_record, received))

    def _receive(
        self,
        schema: SourceSchema,
        event: Mapping[str, Any] | bytes,
        operation: Operation,
        revision: int,
        receipt_id: str,
        now: Instant,
        latest: Instant | None,
        known_at: Instant | None = None,
    ) -> EventReceived:
        problem: Problem | None = None
        try:
            payload, canonical, event_id, event_time = schema.fit(event, operation)
            if event_time is not None and latest is not None and event_time > latest:
                message = (
                    f"{format_instant(event_time)} lies in the future; it was {format_instant(now)} here"
                )
                problem = ("future_event_time", schema.source.event_time, message)
            elif schema.source.name in BUILT_IN:
                problem = self._unknown_decision(payload)
        except Misfit as misfit:
            problem = misfit.problem
            payload = canonical = raw_bytes(event)
            event_id, event_time = schema.salvage_id(event), None
        return EventReceived(
            receipt_id,
            self._namespace,
            schema.source.name,
            event_id,
            event_time or 0,
            now,
            payload,
            short_hash(_mark(operation) + canonical),
            operation,
            revision,
            None,
            problem,
            known_at,
        )

    def _unknown_decision(self, payload: bytes) -> Problem | None:
        """What is wrong with a built-in event that names a decision which is not declared."""
        named = msgspec.json.decode(payload, type=_OfDecision).decision
        if named is None or named in self._decisions:
            return None
        known = ", ".join(sorted(self._decisions)) or "none"
        return "unknown_decision", "decision", f"there is no decision {named!r}; known: {known}"

    def _schema(self, source: str) -> SourceSchema:
        found = self._schemas.get(source)
        if found is None:
            near = difflib.get_close_matches(source, self._schemas, n=3)
            names = ", ".join(near or sorted(self._schemas)) or "none"
            raise UnknownNameError(
                f"There is no source named {source!r}.",
                where="sources of the definitions in force",
                mend=f"{'did you mean' if near else 'known names'}: {names}",
            )
        if not found.source.stream:
            raise RequestError(
                f"Source {source!r} takes no pushed events.",
                where=f"source {source}",
                mend=f"declare stream=True on {source!r}",
            )
        return found


def _check_revision(operation: Operation, revision: int) -> None:
    if operation is Operation.END:
        raise RequestError(
            "An end comes from the snapshots of a table; it cannot be pushed.",
            mend="retract the row, or push one that says what holds from now on",
        )
    if (operation is Operation.INSERT) != (revision == 0) or not 0 <= revision < 2**31:
        raise RequestError(
            f"Revision {revision} does not fit the operation {operation.value!r}.",
            where="revision",
            mend="an insert has revision 0; a correction or retraction has 1 or more, higher than the one it replaces",
        )


def _mark(operation: Operation) -> bytes:
    """What tells the payload hash of an operation from that of an insert."""
    return b"" if operation is Operation.INSERT else operation.value.encode()
