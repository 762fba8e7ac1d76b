"""The applier: the single writer of online state. Decides what becomes of each record, stamps it, makes it visible.

Order of a batch: fates → stamps → journal synced → apply log, fsynced → one online transaction (chunks, index,
cursor, sequence). A crash after the apply log is mended by `recover`, which applies the logged fates with the logged
stamps: nothing is stamped twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeAlias, assert_never, cast

import msgspec

from volano.collect.applied import applied_entries
from volano.collect.schemas import Misfit, Problem, SourceSchema
from volano.collect.sealing import sealed_chunks
from volano.collect.stamps import Stamps
from volano.collect.state import Arrival, GroupState, StateChange, ViewFailure, group_states
from volano.errors import StateMismatchError
from volano.plan.built_in import collected_sources
from volano.plan.definitions import CompiledProject, CompiledSource
from volano.plan.failed_rows import FailingView, encode_failed, failed_key
from volano.plan.state import StateGroup
from volano.plan.state_index import (
    CURSOR_KEY,
    NOTHING_STANDS,
    Known,
    KnownDecision,
    decision_key,
    decode_known,
    decode_known_decision,
    encode_known,
    event_key,
    event_prefix,
    resolution_key,
    shadow_key,
)
from volano.protocols.apply_log import ApplyLogReader, ApplyLogWriter
from volano.protocols.clock import Clock
from volano.protocols.functions import Functions
from volano.protocols.journal import JournalEntry, JournalReader
from volano.protocols.key_history import KeyHistory
from volano.protocols.online_store import OnlineWriter
from volano.protocols.sql_engine import SqlEngine
from volano.records.journal import (
    DecisionMade,
    EventReceived,
    JournalRecord,
    Operation,
    ShadowScored,
    answer_hash,
    decode_record,
    request_hash,
)
from volano.records.quarantine import Resolution
from volano.records.receipt import Applied, ApplyBatch, ReceiptStatus
from volano.values.event_ids import ROW_ID_BYTES, row_id
from volano.values.instants import Instant
from volano.values.schema import Scalar

Cells: TypeAlias = tuple[Scalar, ...]
_STORED: Final = ReceiptStatus.STORED.value
_DUPLICATE: Final = ReceiptStatus.DUPLICATE.value
_CONFLICT: Final = ReceiptStatus.CONFLICT.value
_QUARANTINED: Final = ReceiptStatus.QUARANTINED.value
_OTHER_PAYLOAD: Final[Problem] = (
    "conflict", "", "the same id and revision came before with another payload; the first stays"
)  # fmt: skip
_OTHER_REQUEST: Final[Problem] = (
    "conflict", "", "the same decision id came before with another request; the first stays"
)  # fmt: skip
_RESOLVED: Final[Problem] = (
    "resolved", "", "the row that it replays was replayed or discarded before; that stands"
)  # fmt: skip
_OTHER_ANSWER: Final[Problem] = (
    "conflict", "", "the same decision id came before with another answer; the first stays"
)  # fmt: skip
_RECOVERED_AT_ONCE: Final = 64
_SEALED_AT_ONCE: Final = 1_000
"""Chunks that one transaction seals at most: it holds their values, where one that deletes holds keys."""


class _Source(NamedTuple):
    """A source, prepared."""

    definition: CompiledSource
    schema: SourceSchema
    prefix: bytes
    groups: tuple[GroupState, ...]

    def is_late(self, cells: Cells, stamp: Instant) -> bool:
        """Whether an event comes later than its source accepts: it is stored, and changes no feature."""
        # What a refreshed table brings is never too late: its accept_late says how far a refresh looks back.
        late_us = self.definition.accept_late_us if self.definition.stream else None
        event_time = cells[self.schema.time_at]
        return late_us is not None and event_time is not None and stamp - event_time > late_us  # type: ignore[operator]


class Applier:
    """Applies the journal to online state.

    Args:
        groups: every state group that receives events, also those of older bundles that still serve.
        journal, apply_log, online: where records come from, where stamps are kept, where they become visible. To
            `step`, the log has to be a writer; to follow another applier a reader is enough.
        functions, sql_engine: run the projections of views.
        clock: the physical part of stamps.
        bundle: names the project in the apply log.
        history: asked when a row changes that is sealed; without it nothing is sealed.
    """

    def __init__(
        self,
        project: CompiledProject,
        groups: Sequence[StateGroup],
        journal: JournalReader,
        apply_log: ApplyLogReader,
        online: OnlineWriter,
        functions: Functions,
        sql_engine: SqlEngine,
        clock: Clock,
        *,
        bundle: str = "",
        history: KeyHistory | None = None,
    ) -> None:
        self._history = history
        self._namespace = project.namespace
        self._bundle = bundle
        self._journal = journal
        self._apply_log = apply_log
        self._online = online
        self._clock = clock
        states = group_states(project, groups, functions, sql_engine)
        self._groups = tuple(state for of_source in states.values() for state in of_source)
        self._joined = frozenset(state.group.source for state in self._groups if state.group.is_dimension)
        self._sources = {
            source.name: _Source(
                source,
                SourceSchema(source),
                event_prefix(project.namespace, source.name),
                tuple(states.get(source.name, ())),
            )
            for source in collected_sources(project).values()
        }
        self._cursor: dict[str, int] = {}
        self._sequence = 0
        self._stamps: Stamps | None = None
        self._is_in_doubt = False
        self._failing: dict[str, FailingView] = {}

    @property
    def last_stamp(self) -> Instant:
        """The newest stamp given so far. Only after `recover`."""
        return self._ready().last

    def take_stamp(self) -> Instant:
        """A stamp for what becomes visible outside the journal, such as a hand-over. No record gets the same."""
        return self._ready().take(1)[0]

    def recover(self) -> int:
        """Bring online state to the end of the apply log; returns the number of records applied again.

        Call it before the first `step`. Called again and again instead, it follows another applier, which keeps the
        log: that is how a state that is being built, or about to go, stays up to date. An empty online store is
        rebuilt from the whole journal that way; one whose journal has been pruned is rebuilt from the lake
        (`organize.backfill.rebuild`).

        Raises:
            StateMismatchError: online state is ahead of the apply log: one of them belongs to another project.
        """
        with self._online.snapshot() as snapshot:
            sequence, stamp = snapshot.sequence, snapshot.stamp
            (stored,) = snapshot.get_many([CURSOR_KEY])
        last = self._apply_log.last()
        if sequence > (last.sequence if last else 0):
            raise StateMismatchError(
                f"Online state is at sequence {sequence}; the apply log ends before it.",
                where="online store and apply log",
                mend="restore the apply log, or delete the online store's folder and let it be rebuilt",
            )
        self._cursor = {} if stored is None else msgspec.msgpack.decode(stored, type=dict[str, int])
        self._sequence = sequence
        n_records = 0
        while batches := self._apply_log.read(self._sequence, limit=_RECOVERED_AT_ONCE):
            for batch in batches:
                n_records += self._apply_again(batch)
        self._stamps = Stamps(self._clock, max(stamp, last.last_stamp if last else stamp))
        self._is_in_doubt = False
        return n_records

    def step(self, limit: int = 10_000) -> int:
        """Apply at most `limit` new journal records as one batch; returns how many there were.

        Raises:
            StoreFullError: nothing of the batch is visible; the next `recover` or `step` brings it.
        """
        if self._is_in_doubt:
            # The last step failed between the apply log and the online store: its fates and stamps stand.
            self.recover()
        stamps = self._ready()
        entries = self._journal.read(self._cursor, limit=limit)
        if not entries:
            return 0
        records = [decode_record(entry.record) for entry in entries]
        work = _Batch(self, records, entries)
        applied = work.decide(stamps.take(len(records)))
        batch = ApplyBatch(self._sequence + 1, _ranges(entries), applied, stamps.last, self._bundle)
        # An apply log that names bytes which a loss of power takes away could not be followed.
        self._journal.sync({segment for segment, _, _ in batch.ranges})
        self._is_in_doubt = True
        cast(ApplyLogWriter, self._apply_log).append(batch)
        self._write(batch, work)
        self._is_in_doubt = False
        return len(records)

    def behind(self) -> int:
        """How many bytes of the journal wait."""
        return self._journal.behind(self._cursor)

    def beat(self, stamp: Instant | None = None) -> Instant:
        """Say that everything accepted so far is visible: moves the stamp of online state, and nothing else.

        An applier at rest would leave readers to think that features grow stale. What is in the apply log and not in
        online state, because a step failed in between, is brought there first: no stamp may pass it by.

        Args:
            stamp: of the applier that this one follows; a new one when None.
        """
        if self._is_in_doubt or stamp is not None:
            self.recover()
        stamp = self._ready().take(1)[0] if stamp is None else stamp
        self._online.write({}, (), stamp=stamp, sequence=0)
        return stamp

    def prune(self, now: Instant, *, chunks_at_once: int = 10_000) -> int:
        """Delete chunks that no window can reach any more, and seal rows that no window needs one by one.

        The index keeps its entries: what came twice is known for ever. Interrupted, it goes on with the next call.
        Nothing is sealed without a `history`: a correction of a sealed row asks it.

        Args:
            now: no later read will ask for a window that ends before it.
            chunks_at_once: how many one transaction looks at; bounds memory.

        Returns:
            How many chunks were deleted or sealed.
        """
        return sum(self.pruning(now, chunks_at_once=chunks_at_once))

    def pruning(self, now: Instant, *, chunks_at_once: int) -> Iterator[int]:
        """`prune`, transaction by transaction: how many chunks each changed. Batches may be applied in between."""
        for group in self._groups:
            yield from self._delete_expired(group, now, chunks_at_once)
            if self._history is not None:
                yield from self._seal(group, now, min(chunks_at_once, _SEALED_AT_ONCE))

    def _seal(self, group: GroupState, now: Instant, chunks_at_once: int) -> Iterator[int]:
        after = b""
        while True:
            with self._online.snapshot() as snapshot:
                stamp = snapshot.stamp
                done, after = sealed_chunks(group, snapshot, now, after=after, n_chunks=chunks_at_once)
            if done:
                puts = {key: value for chunk in done for key, value in chunk.puts.items()}
                deletes = [key for chunk in done for key in chunk.deletes]
                self._online.write(puts, deletes, stamp=stamp, sequence=0)
            if not after:
                return
            yield len(done)

    def _delete_expired(self, group: GroupState, now: Instant, chunks_at_once: int) -> Iterator[int]:
        after = b""
        while True:
            with self._online.snapshot() as snapshot:
                stamp = snapshot.stamp
                doomed = list(islice(group.expired(snapshot, now, after=after), chunks_at_once))
            if not doomed:
                return
            self._online.write({}, doomed, stamp=stamp, sequence=0)
            yield len(doomed)
            after = doomed[-1]

    def take_failing(self) -> tuple[FailingView, ...]:
        """The views that could not take rows since the last call: how many, and the first of them.

        The rows themselves stand beside online state (`plan.failed_rows`).
        """
        found = tuple(self._failing.values())
        self._failing = {}
        return found

    def note(self, failures: Sequence[ViewFailure]) -> None:
        """Count rows that views could not take; one summary a view is held."""
        for _, _, row in failures:
            known = self._failing.get(row.view)
            if known is None:
                known = FailingView(row.view, row.source, 0, row.event_id, row.reason)
            self._failing[row.view] = msgspec.structs.replace(known, n_rows=known.n_rows + 1)

    def _ready(self) -> Stamps:
        if self._stamps is None:
            self.recover()
        assert self._stamps is not None
        return self._stamps

    def _apply_again(self, batch: ApplyBatch) -> int:
        found = list(applied_entries(self._journal, [batch]))
        records = [decode_record(one.entry.record) for one in found]
        work = _Batch(self, records, [one.entry for one in found])
        work.repeat([one.applied for one in found])
        self._write(batch, work)
        return len(found)

    def _write(self, batch: ApplyBatch, work: _Batch) -> None:
        cursor = self._cursor | {segment: end for segment, _, end in batch.ranges}
        puts, deletes = work.effects()
        puts[CURSOR_KEY] = msgspec.msgpack.encode(cursor)
        self._online.write(puts, deletes, stamp=batch.last_stamp, sequence=batch.sequence)
        self._cursor = cursor
        self._sequence = batch.sequence


class _Batch:
    """One batch on its way: the index entries it touches, and what changes in the chunks."""

    def __init__(
        self, applier: Applier, records: Sequence[JournalRecord], entries: Sequence[JournalEntry]
    ) -> None:
        self._applier = applier
        self._namespace = applier._namespace
        self._sources = applier._sources
        self._records = records
        prefixes = {name: source.prefix for name, source in self._sources.items()}
        keys = [
            event_key(prefixes[record.source], row_id(record.event_id))
            if type(record) is EventReceived and record.problem is None and record.source in prefixes
            else self._index_key(record)
            for record in records
        ]
        replayed = [
            resolution_key(record.namespace, record.replays)
            for record in records
            if type(record) is EventReceived and record.replays is not None
        ]
        wanted = list(dict.fromkeys([*(key for key in keys if key is not None), *replayed]))
        with applier._online.snapshot() as snapshot:
            found = snapshot.get_many(wanted)
        self._keys = keys
        self._places = entries
        decisions = {key for key, record in zip(keys, records, strict=True) if type(record) is DecisionMade}
        self._known: dict[bytes, Known | None] = {}
        self._asked: dict[bytes, KnownDecision | None] = {}
        for key, data in zip(wanted, found, strict=True):
            if key in decisions:
                self._asked[key] = None if data is None else decode_known_decision(data)
            else:
                self._known[key] = None if data is None else decode_known(data)
        self._touched: dict[bytes, Known | KnownDecision] = {}
        self._replaced: list[bytes] = []
        self._change = StateChange(applier._joined)

    def _index_key(self, record: JournalRecord) -> bytes | None:
        match record:
            case EventReceived():
                return None  # it does not fit, or its source is gone
            case DecisionMade():
                return decision_key(self._namespace, record.decision, record.decision_id)
            case ShadowScored():
                return shadow_key(
                    self._namespace, record.decision, record.decision_id, record.attempt, record.model_version
                )
            case Resolution():
                return resolution_key(self._namespace, record.receipt_id)
        assert_never(record)

    def decide(self, stamps: Sequence[Instant]) -> tuple[Applied, ...]:
        """The fates of the records, in order; what they change is noted."""
        known_of = self._known
        fates: list[Applied] = []
        for record, key, cells, stamp, place in zip(
            self._records, self._keys, self._read_cells(), stamps, self._places, strict=True
        ):
            if cells is not None and key is not None and known_of[key] is None:
                fates.append(self._store_first(record, key, cells, stamp))  # type: ignore[arg-type]
            else:
                fates.append(self._decide(record, key, stamp, place))
        return tuple(fates)

    def repeat(self, fates: Sequence[Applied]) -> None:
        """Note what the records change, their fates being known."""
        for record, key, place, applied in zip(self._records, self._keys, self._places, fates, strict=True):
            if applied.status != _STORED:
                continue
            if isinstance(record, EventReceived) and record.source not in self._sources:
                continue  # another version stored it; nothing here reads its source
            assert key is not None
            self._repeat(record, key, place, applied)

    def _read_cells(self) -> list[Cells | None]:
        """The columns of events that state a row, many at once; None for what is looked at by itself."""
        cells: list[Cells | None] = [None] * len(self._records)
        places: defaultdict[str, list[int]] = defaultdict(list)
        for at, (record, key) in enumerate(zip(self._records, self._keys, strict=True)):
            if (
                type(record) is EventReceived
                and key is not None
                and record.revision == 0
                and record.operation is Operation.INSERT
                and record.replays is None
            ):
                places[record.source].append(at)
        for source, found in places.items():
            schema = self._sources[source].schema
            try:
                columns = schema.columns([self._records[at].payload for at in found])  # type: ignore[union-attr]
            except Misfit:
                continue
            for at, row in zip(found, zip(*columns, strict=True), strict=True):
                if row[schema.time_at] is not None:
                    cells[at] = row
        return cells

    def _store_first(self, record: EventReceived, key: bytes, cells: Cells, stamp: Instant) -> Applied:
        """`_decide_event` of an insert whose id never came before."""
        source = self._sources[record.source]
        event_time: Instant = cells[source.schema.time_at]  # type: ignore[assignment]
        late = source.is_late(cells, stamp)
        known = self._known[key] = self._touched[key] = Known({0: record.payload_hash})
        if not late:
            known.standing = 0
            known.event_time = event_time
            row = key[-ROW_ID_BYTES:]
            arrival = Arrival(record.event_id, row, event_time, stamp, cells, known)
            self._change.insert(source.definition.name, arrival)
        return Applied(_STORED, stamp, None, None, late)

    def _decide(
        self, record: JournalRecord, key: bytes | None, stamp: Instant, place: JournalEntry
    ) -> Applied:
        if isinstance(record, EventReceived):
            return self._decide_event(record, key, stamp)
        assert key is not None
        if isinstance(record, DecisionMade):
            return self._decide_decision(record, key, stamp, place)
        if self._known[key] is not None:
            return Applied(_DUPLICATE, stamp)
        self._remember(key, Known())
        return Applied(_STORED, stamp)

    def _repeat(self, record: JournalRecord, key: bytes, place: JournalEntry, applied: Applied) -> None:
        match record:
            case EventReceived():
                source, stamp = self._sources[record.source], applied.applied_at
                cells = source.schema.values(record.payload)
                # What was late when it came is late for ever, whatever its source accepts by now.
                late = source.is_late(cells, stamp) if applied.late is None else applied.late
                self._store(record, source, cells, key, stamp, late)
            case DecisionMade():
                attempt = record.attempt if applied.attempt is None else applied.attempt
                self._remember_answer(record, key, attempt, place)
            case ShadowScored() | Resolution():
                self._remember(key, Known())

    def effects(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Puts and deletes of the whole batch."""
        failures: list[ViewFailure] = []
        with self._applier._online.snapshot() as snapshot:
            puts, deletes = self._change.effects(
                self._applier._groups, snapshot, failures, self._applier._history
            )
        self._applier.note(failures)
        deletes += self._replaced
        for failure in failures:
            puts[failed_key(failure.view, failure.row_id)] = encode_failed(failure.row)
        for key, known in self._touched.items():
            puts[key] = encode_known(known)
        return puts, deletes

    def _decide_event(self, record: EventReceived, key: bytes | None, stamp: Instant) -> Applied:
        if record.problem is not None:
            return Applied(_QUARANTINED, stamp, record.problem)
        source = self._sources.get(record.source)
        if source is None or key is None:
            message = f"the project has no source {record.source!r} any more"
            return Applied(_QUARANTINED, stamp, ("unknown_source", "", message))
        known = self._known[key]
        if known is not None and record.revision in known.hashes:
            if known.hashes[record.revision] == record.payload_hash:
                return Applied(_DUPLICATE, stamp)
            return Applied(_CONFLICT, stamp, _OTHER_PAYLOAD)
        if record.replays is not None and self._is_resolved(record.namespace, record.replays):
            return Applied(_CONFLICT, stamp, _RESOLVED)
        try:
            cells = source.schema.values(record.payload)
        except Misfit as misfit:
            return Applied(_QUARANTINED, stamp, ("schema_changed", *misfit.problem[1:]))
        late = source.is_late(cells, stamp)
        self._store(record, source, cells, key, stamp, late)
        return Applied(_STORED, stamp, None, None, late)

    def _is_resolved(self, namespace: str, receipt_id: str) -> bool:
        """Whether a row that was set aside was resolved by now; what an event resolves itself comes behind it."""
        return self._known[resolution_key(namespace, receipt_id)] is not None

    def _decide_decision(
        self, record: DecisionMade, key: bytes, stamp: Instant, place: JournalEntry
    ) -> Applied:
        """The first answer to an id stands; one of a process that did not know it is kept beside it."""
        known = self._asked[key]
        if known is None:
            self._remember_answer(record, key, record.attempt, place)
            return Applied(_STORED, stamp)
        if known.request != request_hash(record.request):
            return Applied(_CONFLICT, stamp, _OTHER_REQUEST)
        if _answer(record) in known.answers:
            return Applied(_DUPLICATE, stamp)
        if record.origin:
            return Applied(_CONFLICT, stamp, _OTHER_ANSWER)
        attempt = max(known.next_attempt, record.attempt)
        self._remember_answer(record, key, attempt, place)
        return Applied(_STORED, stamp, None, None if attempt == record.attempt else attempt)

    def _remember_answer(self, record: DecisionMade, key: bytes, attempt: int, place: JournalEntry) -> None:
        known, answer = self._asked[key], _answer(record)
        if known is None:
            where = (place.segment, place.start, place.end)
            known = KnownDecision(request_hash(record.request), [answer], attempt + 1, where)
            self._asked[key] = known
        else:
            known.answers.append(answer)
            known.next_attempt = attempt + 1
        self._touched[key] = known

    def _remember(self, key: bytes, known: Known) -> None:
        self._known[key] = self._touched[key] = known

    def _store(
        self, record: EventReceived, source: _Source, cells: Cells, key: bytes, stamp: Instant, late: bool
    ) -> None:
        known = self._known[key]
        if known is None:
            known = Known({record.revision: record.payload_hash})
        else:
            known.hashes[record.revision] = record.payload_hash
        self._remember(key, known)
        if late or record.revision <= known.standing:
            return
        event_time = cells[source.schema.time_at]
        row = key[-ROW_ID_BYTES:]
        if known.standing != NOTHING_STANDS:
            self._change.remove(source.definition.name, known, row, stamp)
            known.places = []
            known.event_time = None
            for group in source.groups:
                self._replaced += [failed_key(view, row) for view in group.projected]
        known.standing = record.revision
        if record.operation is Operation.RETRACT or event_time is None:
            return
        known.event_time = event_time  # type: ignore[assignment]
        arrival = Arrival(record.event_id, row, event_time, stamp, cells, known)  # type: ignore[arg-type]
        self._change.insert(source.definition.name, arrival)


def _answer(made: DecisionMade) -> bytes:
    return answer_hash(made.decided_at, made.features_as_of, made.release_id, made.action)


def _ranges(entries: Iterable[JournalEntry]) -> tuple[tuple[str, int, int], ...]:
    """Neighbouring entries as ranges, in order."""
    ranges: list[tuple[str, int, int]] = []
    for segment, start, end, _ in entries:
        if ranges and ranges[-1][0] == segment and ranges[-1][2] == start:
            ranges[-1] = (segment, ranges[-1][1], end)
        else:
            ranges.append((segment, start, end))
    return tuple(ranges)
