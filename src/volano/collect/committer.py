"""The committer: what was applied becomes rows of the lake, in large batches, exactly once a table.

Each table remembers the last apply-log sequence it holds. A crash between two tables leaves them at different
sequences; the next step skips, table by table, what is there already, so no batch has to be cut where the last
one was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from itertools import groupby
from typing import Any, Final, NamedTuple, assert_never

import pyarrow as pa

from volano.collect.applied import AppliedRun, applied_runs
from volano.collect.event_rows import EventRows
from volano.collect.schemas import SourceSchema
from volano.collect.tables import (
    DECISION_COLUMNS,
    QUARANTINE,
    QUARANTINE_COLUMNS,
    RECEIPT_COLUMNS,
    RECEIPTS,
    RESOLUTION_COLUMNS,
    RESOLUTIONS,
    SHADOW_COLUMNS,
    SHADOWS,
    decision_table,
    lake_tables,
)
from volano.errors import StateMismatchError, UnknownNameError
from volano.plan.built_in import collected_sources, fact_table
from volano.plan.definitions import CompiledProject, CompiledRequest, CompiledService
from volano.protocols.apply_log import ApplyLogReader
from volano.protocols.journal import JournalReader
from volano.protocols.lake import LakeWriter
from volano.records.journal import (
    DecisionMade,
    EventReceived,
    JournalRecord,
    ShadowScored,
    decode_record,
    encode_record,
    kind_of,
)
from volano.records.quarantine import Resolution
from volano.records.receipt import Applied, ApplyBatch, ReceiptStatus
from volano.values.arrow import ARROW_TYPES
from volano.values.instants import BEGINNING

WRITER: Final = "committer"
"""The name under which the lake remembers what was committed."""
_BATCHES_A_READ: Final = 1_024
_MADE_ELSEWHERE: Final = ""
"""The feature service of a decision that we did not make: it has no features."""
_OF_A_SOURCE: Final = (EventReceived, Resolution)
_NO_PROBLEM: Final = ("", "", "")


class _Row(NamedTuple):
    """One record that goes into a table."""

    record: Any
    applied: Applied


class Committer:
    """Writes the lake.

    Args:
        project: names the sources and tables; it may be wider than what is applied.
        definitions: the project of a bundle, by its digest: a decision is written with the request and the feature
            service of the bundle that made it. Without it every decision is the project's own.
        sources: the definitions by which the events of a batch were applied, by the bundle that the batch names: a
            server may change its definitions between two batches. Without it they are the project's.
        rows_a_commit: how many records are held in memory and committed at once, about.
    """

    def __init__(
        self,
        project: CompiledProject,
        journal: JournalReader,
        apply_log: ApplyLogReader,
        lake: LakeWriter,
        *,
        definitions: Callable[[str], CompiledProject] | None = None,
        sources: Callable[[str], CompiledProject] | None = None,
        rows_a_commit: int = 250_000,
    ) -> None:
        self._project = project
        self._journal = journal
        self._apply_log = apply_log
        self._lake = lake
        self._rows_a_commit = rows_a_commit
        self._definitions = definitions
        self._sources = sources
        self._schemas_of: dict[str, dict[str, SourceSchema]] = {"": _schemas(project)}
        self._schemas = self._schemas_of[""]
        self._tables = lake_tables(project)
        self._created: set[str] = set()
        self._committed: dict[str, int] = {}
        self._done: int | None = None

    def step(self) -> int:
        """Commit everything applied since the last commit; returns the number of rows written.

        Raises:
            StateMismatchError: a decision names a bundle or a feature service that nobody knows, or a column has
                changed its type.
                Nothing is lost: the same rows are committed once the definition is known.
        """
        if self._done is None:
            # Receipts are written last, so every table holds at least what they hold.
            self._done = self._last_of(RECEIPTS)
        n_rows = 0
        for batches in self._pending(self._done):
            n_rows += self._commit(batches)
            self._done = batches[-1].sequence
        return n_rows

    def _pending(self, after: int) -> Iterator[list[ApplyBatch]]:
        """The batches above a sequence, as far as the log reaches now, in runs of about `rows_a_commit` records.

        The batches of a run were applied by one bundle.
        """
        last = self._apply_log.last()
        until = 0 if last is None else last.sequence
        if after < until:
            self._apply_log.sync()  # the lake must not hold what a loss of power takes from the log
        run: list[ApplyBatch] = []
        n_records = 0
        while after < until:
            batches = self._apply_log.read(after, limit=min(_BATCHES_A_READ, until - after))
            after = batches[-1].sequence
            for batch in batches:
                if run and run[-1].bundle != batch.bundle:
                    yield run
                    run, n_records = [], 0
                run.append(batch)
                n_records += len(batch.applied)
                if n_records >= self._rows_a_commit:
                    yield run
                    run, n_records = [], 0
        if run:
            yield run

    def _commit(self, batches: list[ApplyBatch]) -> int:
        self._schemas = self._applied_by(batches[0].bundle)
        parts: defaultdict[str, list[pa.Table]] = defaultdict(list)
        for run in applied_runs(self._journal, batches):
            work = _Run(run)
            for name in work.places:
                places = work.after(self._last_of(name), work.places[name])
                if places:
                    parts[name].append(self._build(name, work, places))
        if RECEIPTS not in parts:  # how far they are is how far every table is
            parts[RECEIPTS] = [RECEIPT_COLUMNS.empty_table()]
        n_rows = 0
        for name in sorted(parts, key=lambda name: (name == RECEIPTS, name)):
            # Permissive: decisions of an older bundle may hold whole numbers where a newer one has floats.
            built = pa.concat_tables(parts.pop(name), promote_options="permissive")
            self._ensure(name, built.schema)
            self._lake.append(name, built, writer=WRITER, sequence=batches[-1].sequence)
            self._committed[name] = batches[-1].sequence
            n_rows += built.num_rows
        return n_rows

    def _applied_by(self, bundle: str) -> dict[str, SourceSchema]:
        if bundle not in self._schemas_of:
            project = self._project
            if self._sources is not None:
                with suppress(UnknownNameError):  # of a catalog that was lost: the present definitions may do
                    project = self._sources(bundle)
            self._schemas_of[bundle] = _schemas(project)
        return self._schemas_of[bundle]

    def _last_of(self, table: str) -> int:
        if table not in self._committed:
            known = self._lake.version(table) is not None
            self._committed[table] = self._lake.committed(table, WRITER) if known else 0
        return self._committed[table]

    def _ensure(self, table: str, schema: pa.Schema) -> None:
        """Create the table or widen it, once in this process and again when a new column appears."""
        known = self._tables.get(table)
        missing = [] if known is None else [name for name in schema.names if name not in known.names]
        if table in self._created and not missing:
            return
        whole = schema if known is None else pa.schema([*known, *(schema.field(name) for name in missing)])
        self._lake.create(table, whole)
        self._tables[table] = whole
        self._created.add(table)

    def _build(self, table: str, work: _Run, places: list[int]) -> pa.Table:
        if table == RECEIPTS:
            return work.receipts(places)
        if table == QUARANTINE:
            return _quarantine(work.rows(places))
        if table == SHADOWS:
            return _shadows(work.rows(places))
        if table == RESOLUTIONS:
            return _resolutions(work.rows(places))
        first = work.records[places[0]]
        if isinstance(first, EventReceived):
            return work.events(places).facts(self._schema(first.source, len(places)))
        return self._decisions(work.rows(places))

    def _schema(self, source: str, n_events: int) -> SourceSchema:
        schema = self._schemas.get(source)
        if schema is None:
            raise StateMismatchError(
                f"The journal holds {n_events} events of the source {source!r}, which the project no longer has.",
                where=f"source {source}",
                mend="declare the source again until its events are committed",
            )
        return schema

    def _decisions(self, rows: list[_Row]) -> pa.Table:
        def maker(row: _Row) -> tuple[str, str]:
            return row.record.bundle, row.record.service_version

        rows = sorted(rows, key=maker)
        parts = [self._decisions_of(*made_by, list(group)) for made_by, group in groupby(rows, key=maker)]
        return pa.concat_tables(parts, promote_options="permissive")

    def _decisions_of(self, bundle: str, version: str, rows: list[_Row]) -> pa.Table:
        name = rows[0].record.decision
        found = self._logged_with(bundle, name)
        if found is None or version not in (found[0].version, _MADE_ELSEWHERE):
            raise StateMismatchError(
                f"{len(rows)} decisions of {name!r} name feature service version {version}, which bundle "
                f"{bundle[:12]} does not declare.",
                where=f"decision {name}",
                mend="restore the catalog that the bundle was applied with; the decisions wait in the journal",
            )
        service, request = found
        records = [row.record for row in rows]
        arrays = [_decision_column(field, rows) for field in DECISION_COLUMNS]
        fields = list(DECISION_COLUMNS)
        for field in request.schema.fields:
            fields.append(pa.field(f"request__{field.name}", ARROW_TYPES[field.dtype]))
            arrays.append(pa.array([record.request.get(field.name) for record in records], fields[-1].type))
        for at, source in enumerate(service.inputs):
            fields.append(pa.field(f"feature__{source.name}", ARROW_TYPES[source.dtype]))
            served = [record.features[at] if record.features else None for record in records]
            arrays.append(pa.array(served, fields[-1].type))
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def _logged_with(self, bundle: str, decision: str) -> tuple[CompiledService, CompiledRequest] | None:
        """The feature service and the request of a decision in a bundle; None when nobody knows them."""
        project = self._project
        if self._definitions is not None:
            try:
                project = self._definitions(bundle)
            except UnknownNameError:
                return None
        declared = project.decisions.get(decision)
        if declared is None:
            return None
        return project.model(declared.model).service, project.requests[declared.request]


class _Run:
    """Some records, and at which places among them lies what goes into each table.

    Few at a time: they are turned into Arrow while they still lie in the processor's cache.
    """

    def __init__(self, run: AppliedRun) -> None:
        self._batches = run.batches
        self.records: list[Any] = [decode_record(entry.record) for entry in run.entries]
        self._fates = [fate for batch in run.batches for fate in batch.applied]
        self.places = self._sort()

    def _sort(self) -> dict[str, list[int]]:
        """In order; a record may go into several tables."""
        tables: defaultdict[str, list[int]] = defaultdict(list)
        notes: dict[tuple[type, str, str], list[Callable[[int], None]]] = {}
        for at, (record, fate) in enumerate(zip(self.records, self._fates, strict=True)):
            kind = type(record)
            key = (kind, record.source if kind in _OF_A_SOURCE else record.decision, fate.status)
            found = notes.get(key)
            if found is None:
                found = notes[key] = [tables[name].append for name in destinations(record, fate.status)]
            for note in found:
                note(at)
        return tables

    def after(self, sequence: int, places: list[int]) -> list[int]:
        """Of some places, those of batches above a sequence: a table may hold the others already."""
        n_records = sum(len(batch.applied) for batch in self._batches if batch.sequence <= sequence)
        return places[bisect_left(places, n_records) :]

    def rows(self, places: list[int]) -> list[_Row]:
        return [_Row(self.records[at], self._fates[at]) for at in places]

    def events(self, places: list[int]) -> EventRows:
        """What lies at some places, all of it events."""
        return self._events.take(places if self._ranks is None else [self._ranks[at] for at in places])

    def receipts(self, places: list[int]) -> pa.Table:
        """The rows of receipts: of events, and of what is a receipt itself."""
        if self._ranks is None:
            return self.events(places).receipts()
        events = [at for at in places if at in self._ranks]
        others = [at for at in places if at not in self._ranks]
        tables = [_receipts(self.rows(others))] if others else []
        return pa.concat_tables([self.events(events).receipts(), *tables] if events else tables)

    @cached_property
    def _ranks(self) -> dict[int, int] | None:
        """The place of each event among the events; None where all records are events."""
        events = [at for at, record in enumerate(self.records) if type(record) is EventReceived]
        return None if len(events) == len(self.records) else {at: rank for rank, at in enumerate(events)}

    @cached_property
    def _events(self) -> EventRows:
        whole = EventRows(self.records, self._fates)
        return whole if self._ranks is None else whole.take(list(self._ranks))


def _schemas(project: CompiledProject) -> dict[str, SourceSchema]:
    return {source.name: SourceSchema(source) for source in collected_sources(project).values()}


def destinations(record: JournalRecord, status: str) -> tuple[str, ...]:
    """The tables that an applied record has a row in; it is counted in the first.

    Every event has a receipt; of decisions and shadow scores, which are their own receipts, those that are not stored.
    """
    if status == ReceiptStatus.DUPLICATE:
        return (RECEIPTS,)
    if status != ReceiptStatus.STORED:
        return QUARANTINE, RECEIPTS
    match record:
        case EventReceived():
            return fact_table(record.source), RECEIPTS
        case DecisionMade():
            return (decision_table(record.decision),)
        case ShadowScored():
            return (SHADOWS,)
        case Resolution():
            return (RESOLUTIONS,)
    assert_never(record)


class _Identity(NamedTuple):
    """What a receipt says of any record."""

    receipt_id: str | None
    source: str
    event_id: str
    revision: int
    received_at: int


def _identity(record: JournalRecord) -> _Identity:
    match record:
        case EventReceived():
            return _Identity(
                record.receipt_id, record.source, record.event_id, record.revision, record.received_at
            )
        case DecisionMade():
            return _Identity(None, record.decision, record.decision_id, record.attempt, record.decided_at)
        case ShadowScored():
            return _Identity(None, record.decision, record.decision_id, record.attempt, record.scored_at)
        case Resolution():
            return _Identity(None, record.source, record.receipt_id, 0, record.resolved_at)
    assert_never(record)


def _decision_column(field: pa.Field, rows: list[_Row]) -> pa.Array:
    values: list[Any]
    match field.name:
        case "applied_at":
            values = [row.applied.applied_at for row in rows]
        case "attempt":
            values = [
                row.record.attempt if row.applied.attempt is None else row.applied.attempt for row in rows
            ]
        case "latency_us":
            values = [list(row.record.latency_us.items()) for row in rows]
        case "features_as_of":
            stamps = [row.record.features_as_of for row in rows]
            # The beginning of time has no timestamp; null says that nothing was visible.
            values = [None if stamp == BEGINNING else stamp for stamp in stamps]
        case "mode":
            values = [row.record.mode.value for row in rows]
        case name:
            values = [getattr(row.record, name) for row in rows]
    return pa.array(values, field.type)


def _shadows(rows: list[_Row]) -> pa.Table:
    columns = [
        [row.applied.applied_at for row in rows]
        if name == "applied_at"
        else [getattr(row.record, name) for row in rows]
        for name in SHADOW_COLUMNS.names
    ]
    return _table(columns, SHADOW_COLUMNS)


def _resolutions(rows: list[_Row]) -> pa.Table:
    columns: list[list[Any]] = [
        [row.applied.applied_at for row in rows]
        if name == "applied_at"
        else [getattr(row.record, name) for row in rows]
        for name in RESOLUTION_COLUMNS.names
    ]
    return _table(columns, RESOLUTION_COLUMNS)


def _receipts(rows: list[_Row]) -> pa.Table:
    known = [_identity(row.record) for row in rows]
    columns: list[list[Any]] = [
        [kind_of(row.record) for row in rows],
        [each.receipt_id for each in known],
        [each.source for each in known],
        [each.event_id for each in known],
        [each.revision for each in known],
        [row.applied.status for row in rows],
        [each.received_at for each in known],
        [row.applied.applied_at for row in rows],
    ]
    return _table(columns, RECEIPT_COLUMNS)


def _quarantine(rows: list[_Row]) -> pa.Table:
    known = [_identity(row.record) for row in rows]
    problems = [row.applied.problem or getattr(row.record, "problem", None) or _NO_PROBLEM for row in rows]
    columns: list[list[Any]] = [
        [kind_of(row.record) for row in rows],
        [each.receipt_id for each in known],
        [each.source for each in known],
        [each.event_id for each in known],
        [row.record.operation.value if isinstance(row.record, EventReceived) else None for row in rows],
        [each.revision for each in known],
        [row.applied.status for row in rows],
        [problem[0] for problem in problems],
        [problem[1] for problem in problems],
        [problem[2] for problem in problems],
        [
            row.record.payload if isinstance(row.record, EventReceived) else encode_record(row.record)
            for row in rows
        ],
        [each.received_at for each in known],
        [row.applied.applied_at for row in rows],
    ]
    return _table(columns, QUARANTINE_COLUMNS)


def _table(columns: list[list[Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )
