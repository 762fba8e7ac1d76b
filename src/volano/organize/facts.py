"""Facts of a source: its table before the hand-over, its stream after it, united by id, with their visibility.

A row is visible on `[applied_at, superseded_at)` in replay and on `[known_at, superseded_known_at)` in training on
history. Both ends follow from which revisions of an id were applied when; nothing is stored twice. Never reads the
clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import NotReadyError, RequestError, StateMismatchError
from volano.kernels.columns import combined
from volano.organize.declared import FittingRows, declared_table, fitting_rows
from volano.organize.partitions import Span
from volano.organize.snapshots import changes_of
from volano.plan.built_in import fact_table, source_of
from volano.plan.definitions import CompiledProject, CompiledSource
from volano.plan.state_index import TABLE_REVISION
from volano.protocols.lake import LakeReader
from volano.protocols.sql_engine import SqlEngine
from volano.records.handover import HandOver
from volano.records.journal import Operation
from volano.values.arrow import ARROW_TYPES, INSTANT
from volano.values.event_ids import event_id
from volano.values.instants import NEVER, Instant
from volano.values.schema import Field

FACT_COLUMNS: Final = pa.schema(
    [
        ("event_id", pa.string()),
        ("revision", pa.int64()),
        ("operation", pa.string()),
        ("event_time", INSTANT),
        ("received_at", INSTANT),
        ("applied_at", INSTANT),
        ("known_at", INSTANT),
        ("payload_hash", pa.binary()),
        ("too_late", pa.bool_()),
    ]
)
_SAMPLE: Final = 3
_SCANNED_AT_ONCE: Final = 200_000

Micros = NDArray[np.int64]


class Facts:
    """Reads facts. Keeps the table snapshots that it has read in memory.

    Args:
        lake: holds `fact_<source>`.
        sql: reads the sources' tables.
        handovers: of every source that has a table, by source name.
        waiting: sources whose table could not be handed over yet: only what was pushed is there.
    """

    def __init__(
        self,
        project: CompiledProject,
        lake: LakeReader,
        sql: SqlEngine,
        handovers: Mapping[str, HandOver],
        *,
        waiting: Collection[str] = (),
    ) -> None:
        self._project = project
        self._lake = lake
        self._sql = sql
        self._handovers = handovers
        self._waiting = frozenset(waiting)
        self._tables: dict[str, pa.Table] = {}
        self._large: set[str] = set()

    def rows(
        self,
        source: str,
        *,
        since: Instant | None = None,
        until: Instant | None = None,
        stamp: Instant | None = None,
        columns: Sequence[str] | None = None,
        for_features: bool = False,
        version: int | None = None,
        timeless: bool = False,
        moved: bool = False,
    ) -> pa.Table:
        """The facts of a source, every revision.

        Args:
            since, until: only rows with event_time in `[since, until)`; rows without an event time (some retractions)
                come only when both are open. They supersede all the same.
            stamp: only what was applied by then, supersession included; None: everything.
            columns: which of the event's columns; all when None.
            for_features: leave out rows that the applier found pushed later than `accept_late`: they change no feature,
                and supersede no row that does.
            version: of the fact table; the newest when None.
            timeless: only the rows without an event time.
            moved: also the revisions with an event time outside of the range that replace one inside: a correction that
                moves an event away takes nothing back.

        Returns:
            event_id, revision (-1: from the table), operation, event_time, received_at, applied_at, known_at,
            payload_hash, too_late, superseded_at, superseded_known_at (both null while the row stands), then the
            event's columns. The order of the rows is not defined.

        Raises:
            UnknownNameError: there is no such source.
            NotReadyError: the source has a table and its hand-over is not pinned yet.
            StateMismatchError: the table has changed since it was pinned.
            RequestError: the table does not fit the declared schema.
        """
        definition = source_of(self._project, source)
        wanted = [field for field in definition.schema.fields if columns is None or field.name in columns]
        names = [field.name for field in wanted if field.name not in FACT_COLUMNS.names]
        if timeless:
            streamed = self._timeless(definition, names, stamp, for_features, version)
            return _with_supersession(
                streamed, self._replacing(definition, streamed, False, stamp, for_features, version)
            )
        streamed = self._streamed(definition, names, since, until, stamp, for_features, version)
        tabled = self._tabled(definition, names, since, until, stamp)
        rows = pa.concat_tables([streamed, tabled]) if tabled is not None else streamed
        replacing = self._replacing(
            definition, rows, tabled is not None and tabled.num_rows > 0, stamp, for_features, version
        )
        if moved and replacing.num_rows:
            away = self._away(definition, names, rows, replacing, since, until, version)
            rows = pa.concat_tables([rows, _counting(away, definition, stamp, for_features)])
        return _with_supersession(rows, replacing)

    def spans(
        self,
        source: str,
        n_rows: int,
        *,
        whole: int | None = None,
        since: Instant | None = None,
        until: Instant | None = None,
        stamp: Instant | None = None,
    ) -> list[Span]:
        """Ranges of event time that hold about so many rows of a source each, oldest first.

        One range when all fit. Otherwise the source's table is read range by range from then on, and not kept;
        that an id occurs twice in it shows only inside a range.

        Args:
            n_rows: in a range; more where one instant has more.
            whole: how many rows fit; `n_rows` when None.
            since, until: the ends of the first and last range.
            stamp: only what was applied by then is counted.
        """
        definition = source_of(self._project, source)
        whole = n_rows if whole is None else whole
        streamed = self._read(definition, ["event_time", "applied_at"], "event_time", since, until, None)
        streamed = _counting(streamed, definition, stamp, False)
        times = _inside(_micros(streamed["event_time"].drop_null()), since, until)
        handover = self._handovers.get(source)
        # Dumps are told apart by the dump before: a range of them says nothing.
        is_whole = (
            (handover is not None and handover.imported)
            or definition.change == "snapshots"
            or source in self._tables
            or source in self._waiting
        )
        if definition.table is not None and not is_whole:
            address = handover.table if handover is not None and handover.table else definition.table
            by = definition.event_time
            rows = self._sql.read_table(address, columns=[by], between=(by, since, until))
            # What is no column of instants is refused when the rows themselves are read.
            fits = rows.num_rows <= whole or not pa.types.is_timestamp(rows.schema.types[0])
            if not fits:
                if handover is not None and source not in self._large:
                    self._verify(definition, handover, address)
                self._large.add(source)
                times = np.concatenate([times, _inside(_micros(rows[by].drop_null()), since, until)])
        if len(times) <= whole:
            return [Span(since, until)]
        places = np.arange(n_rows, len(times), n_rows)
        edges = np.unique(np.partition(times, places)[places]).tolist()
        return [Span(*ends) for ends in pairwise([since, *edges, until])]

    def revisions(self, source: str, ids: pa.Array) -> pa.Table:
        """The rows of some event ids in the fact table of a source, wherever in time: event_id, revision.

        The table is looked through some rows at a time.
        """
        found = [pa.schema([FACT_COLUMNS.field(name) for name in ("event_id", "revision")]).empty_table()]
        if len(ids):
            for some in self._scan(self._project.source(source), ["event_id", "revision"], None):
                found.append(some.filter(pc.is_in(some["event_id"], value_set=ids)))
        return pa.concat_tables(found)

    def handed_over(self) -> list[Instant]:
        """The stamps of the hand-overs of the project's sources."""
        return [handover.stamp for name, handover in self._handovers.items() if name in self._project.sources]

    def is_altered(self, source: str, *, after: Instant, until: Instant, known_by: Instant) -> bool:
        """Whether rows of a source that were applied in `(after, until]` count as known by an instant.

        Pushed rows are known when they are applied. Those of a table, or of a later backfill, may have been known long
        before: only a stamp keeps them out of what was computed earlier.
        """
        definition = source_of(self._project, source)
        handover = self._handovers.get(source)
        if definition.table is not None and handover is not None and after < handover.stamp <= until:
            return True
        rows = self._read(definition, ["known_at"], "applied_at", after + 1, until + 1, None)
        earliest = pc.min(rows["known_at"].cast(pa.int64())).as_py()
        return earliest is not None and earliest <= known_by

    def snapshots(self) -> dict[str, str]:
        """The pinned content token of every table, by source."""
        return {name: handover.snapshot for name, handover in self._handovers.items()}

    def _streamed(
        self,
        source: CompiledSource,
        names: Sequence[str],
        since: Instant | None,
        until: Instant | None,
        stamp: Instant | None,
        for_features: bool,
        version: int | None,
    ) -> pa.Table:
        rows = self._read(source, [*FACT_COLUMNS.names, *names], "event_time", since, until, version)
        return _counting(rows, source, stamp, for_features)

    def _timeless(
        self,
        source: CompiledSource,
        names: Sequence[str],
        stamp: Instant | None,
        for_features: bool,
        version: int | None,
    ) -> pa.Table:
        """Retractions may lack an event time; they have a revision."""
        rows = self._read(source, [*FACT_COLUMNS.names, *names], "revision", 1, None, version)
        return _counting(rows.filter(rows["event_time"].is_null()), source, stamp, for_features)

    def _read(
        self,
        source: CompiledSource,
        names: Sequence[str],
        by: str,
        low: int | None,
        high: int | None,
        version: int | None,
    ) -> pa.Table:
        """Columns of the fact table, cast to what they are declared; empty before the first commit."""
        table = fact_table(source.name)
        schema = pa.schema([_field(source, name) for name in names])
        if self._lake.version(table) is None:
            return schema.empty_table()
        where = None if low is None and high is None else {by: (low, high)}
        rows = self._lake.read(table, columns=list(names), where=where, version=version)
        return _declared(rows.select(list(names)), schema)

    def _tabled(
        self,
        source: CompiledSource,
        names: Sequence[str],
        since: Instant | None,
        until: Instant | None,
        stamp: Instant | None,
    ) -> pa.Table | None:
        if source.table is None or source.name in self._waiting:
            return None
        handover = self._handovers.get(source.name)
        if handover is not None and handover.imported:
            return None
        if handover is None:
            raise NotReadyError(
                f"The table of source {source.name!r} is not handed over yet.",
                where=f"source {source.name}, table {source.table}",
                mend="run `volano apply`; it says what is wrong with a table that cannot be used",
            )
        if handover is not None and stamp is not None and handover.stamp > stamp:
            return None
        if source.name in self._large:
            rows = self._range(source, handover, names, since, until)
        else:
            rows = self._table(source, handover).select([*FACT_COLUMNS.names, *names])
        if since is None and until is None:
            return rows
        inside = _is_inside(_micros(rows["event_time"]), since, until)
        return rows if inside.all() else rows.filter(pa.array(inside))

    def _range(
        self,
        source: CompiledSource,
        handover: HandOver | None,
        names: Sequence[str],
        since: Instant | None,
        until: Instant | None,
    ) -> pa.Table:
        """Some columns of a range of a table that does not fit memory."""
        address = handover.table if handover is not None and handover.table else source.table
        assert address is not None
        has_unfit = handover is not None and handover.n_unfit > 0
        wanted = {*names, *source.id_columns, source.event_time, source.known_at}
        # Whether a row fits is said by all of its columns.
        fields = tuple(field for field in source.schema.fields if has_unfit or field.name in wanted)
        read = [field.name for field in fields]
        rows = self._sql.read_table(address, columns=read, between=(source.event_time, since, until))
        if has_unfit:
            rows = fitting_rows(source, rows, address).rows
        facts = facts_of_table(source, rows, handover, address, fields)
        return facts.select([*FACT_COLUMNS.names, *names])

    def _table(self, source: CompiledSource, handover: HandOver | None) -> pa.Table:
        """All rows of the table before the hand-over, as facts; read and verified once."""
        found = self._tables.get(source.name)
        if found is None:
            address = handover.table if handover is not None and handover.table else source.table
            assert address is not None
            if handover is not None:
                self._verify(source, handover, address)
            rows = self._sql.read_table(address)
            if handover is not None and handover.n_unfit:
                rows = _fitting(source, rows, handover, address)
            found = facts_of_table(source, rows, handover, address)
            self._tables[source.name] = found
        return found

    def _verify(self, source: CompiledSource, handover: HandOver, address: str) -> None:
        token = self._sql.snapshot(address)
        if token != handover.snapshot:
            raise StateMismatchError(
                f"The table of source {source.name!r} has changed since its hand-over was pinned.",
                where=f"{address}: pinned {handover.snapshot[:16]}, now {token[:16]}",
                mend="restore the table, or give the source a new name and apply",
            )

    def _away(
        self,
        source: CompiledSource,
        names: Sequence[str],
        rows: pa.Table,
        replacing: pa.Table,
        since: Instant | None,
        until: Instant | None,
        version: int | None,
    ) -> pa.Table:
        """The revisions of some rows' events that lie outside of a range of event time."""
        columns = [*FACT_COLUMNS.names, *names]
        found = replacing.filter(replacing["event_time"].is_valid())
        outside = ~_is_inside(_micros(found["event_time"]), since, until)
        found = found.filter(pa.array(outside))
        found = found.filter(pc.is_in(found["event_id"], value_set=combined(rows["event_id"])))
        if not found.num_rows:
            return self._read(source, columns, "revision", 0, 0, version)
        times = _micros(found["event_time"])
        read = self._read(source, columns, "event_time", int(times.min()), int(times.max()) + 1, version)
        read = read.filter(pa.array(~_is_inside(_micros(read["event_time"]), since, until)))
        return read.filter(pc.is_in(read["event_id"], value_set=combined(found["event_id"])))

    def _replacing(
        self,
        source: CompiledSource,
        rows: pa.Table,
        has_table: bool,
        stamp: Instant | None,
        for_features: bool,
        version: int | None,
    ) -> pa.Table:
        """Every pushed row that may replace one of `rows`, whatever its event time: id, revision and instants.

        Corrections are few. All that was pushed is looked through only when rows of the table may be replaced by it,
        some rows at a time; what concerns none of `rows` is not held.
        """
        names = ["event_id", "revision", "event_time", "applied_at", "known_at", "too_late"]
        if not has_table:
            return _counting(
                self._read(source, names, "revision", 1, None, version), source, stamp, for_features
            )
        ids = combined(rows["event_id"])
        of_table = combined(rows.filter(pc.equal(rows["revision"], TABLE_REVISION))["event_id"])
        found = [pa.schema([_field(source, name) for name in names]).empty_table()]
        for some in self._scan(source, names, version):
            corrects = pc.and_(pc.greater(some["revision"], 0), pc.is_in(some["event_id"], value_set=ids))
            kept = some.filter(pc.or_(corrects, pc.is_in(some["event_id"], value_set=of_table)))
            found.append(_counting(kept, source, stamp, for_features))
        return pa.concat_tables(found)

    def _scan(self, source: CompiledSource, names: Sequence[str], version: int | None) -> Iterator[pa.Table]:
        """Columns of the whole fact table, as `_read` gives them, some rows at a time."""
        table = fact_table(source.name)
        if self._lake.version(table) is None:
            return
        dataset = self._lake.dataset(table, version=version)
        held = [name for name in names if name in dataset.schema.names]
        scanner = dataset.scanner(
            columns=held, batch_size=_SCANNED_AT_ONCE, batch_readahead=1, fragment_readahead=1
        )
        for batch in scanner.to_batches():
            columns = [
                batch.column(name).cast(kind) if name in held else pa.nulls(batch.num_rows, kind)
                for name, kind in ((name, _field(source, name).type) for name in names)
            ]
            yield pa.table(columns, names=list(names))


def _declared(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows in the declared types. An older bundle may declare whole numbers where the lake holds floats by now.

    What is none came after the column was widened, so nothing of that bundle saw it: it is null.
    """
    for at, field in enumerate(schema):
        column = rows.column(at)
        if pa.types.is_integer(field.type) and pa.types.is_floating(column.type):
            whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**63))
            rows = rows.set_column(at, field.name, pc.if_else(pc.fill_null(whole, False), column, None))
    return rows.cast(schema)


def _fitting(source: CompiledSource, table: pa.Table, handover: HandOver, address: str) -> pa.Table:
    """The rows of a table that fit, the same ones as when it was handed over."""
    fitting = fitting_rows(source, table, address)
    if fitting.n_misfits != handover.n_unfit:
        raise RequestError(
            f"{fitting.n_misfits} rows do not fit the event as it is declared now; {handover.n_unfit} did not when "
            "the table was handed over.",
            where=f"source {source.name}, table {address}: {fitting.n_wrong}",
            mend="declare new columns as `... | None`, or give the source a new name and apply",
        )
    return fitting.rows


def standing(rows: pa.Table) -> pa.Table:
    """The rows that stand now: nothing supersedes them and they are not retractions."""
    return rows.filter(
        pc.and_(rows["superseded_at"].is_null(), pc.not_equal(rows["operation"], Operation.RETRACT.value))
    )


def _field(source: CompiledSource, name: str) -> pa.Field:
    if name in FACT_COLUMNS.names:
        return FACT_COLUMNS.field(name)
    field = source.schema.find(name)
    assert field is not None
    return pa.field(name, ARROW_TYPES[field.dtype])


def _counting(rows: pa.Table, source: CompiledSource, stamp: Instant | None, for_features: bool) -> pa.Table:
    """Rows applied by the stamp and, for features, not later than the source accepts."""
    if rows.num_rows == 0:
        return rows
    applied = _micros(rows["applied_at"])
    keep = np.ones(len(applied), bool)
    if stamp is not None:
        keep &= applied <= stamp
    if for_features:
        keep &= ~_is_late(rows, source, applied)
    return rows if keep.all() else rows.filter(pa.array(keep))


def _is_late(rows: pa.Table, source: CompiledSource, applied: Micros) -> NDArray[np.bool_]:
    """Which rows the applier found too late when they came. What the source accepts by now changes nothing of that:
    a row that online state never took must not be seen by a recomputation."""
    late = combined(rows["too_late"])
    if late.null_count:  # from before it was written down
        computed = np.zeros(len(applied), bool)
        if source.stream and source.accept_late_us is not None:
            # A retraction without an event time is never too late.
            times = rows["event_time"].cast(pa.int64()).fill_null(NEVER).to_numpy()
            computed = (applied - times > source.accept_late_us) & (times != NEVER)
        late = pc.if_else(late.is_null(), pa.array(computed), late)
    found: NDArray[np.bool_] = late.to_numpy(zero_copy_only=False).astype(bool)
    return found


def _with_supersession(rows: pa.Table, replacing: pa.Table) -> pa.Table:
    """Add when each row was replaced: the first instant at which a higher revision of its id was there."""
    n = rows.num_rows
    at = np.full(n, NEVER)
    known = np.full(n, NEVER)
    if n and replacing.num_rows:
        touched = pc.is_in(rows["event_id"], value_set=combined(replacing["event_id"]).unique())
        places = np.flatnonzero(touched.to_numpy(zero_copy_only=False))
        _supersede(rows.take(pa.array(places)), places, replacing, at, known)
    system = [rows[name] for name in FACT_COLUMNS.names]
    others = [name for name in rows.column_names if name not in FACT_COLUMNS.names]
    return pa.Table.from_arrays(
        [*system, _or_null(at), _or_null(known), *(rows[name] for name in others)],
        names=[*FACT_COLUMNS.names, "superseded_at", "superseded_known_at", *others],
    )


def _supersede(rows: pa.Table, places: Micros, replacing: pa.Table, at: Micros, known: Micros) -> None:
    """Fill `at` and `known` for some rows: running minima over the revisions of each id, from the highest down."""
    ids = pc.dictionary_encode(
        pa.concat_arrays([combined(rows["event_id"]), combined(replacing["event_id"])])
    ).indices.to_numpy()
    revisions = np.concatenate([_ints(rows["revision"]), _ints(replacing["revision"])])
    n = rows.num_rows
    is_row = np.arange(len(ids)) < n
    applied = np.concatenate([np.full(n, NEVER), _micros(replacing["applied_at"])])
    known_at = np.concatenate([np.full(n, NEVER), _micros(replacing["known_at"])])
    # Highest revision first; of one revision the rows before what replaces: a row does not replace itself.
    order = np.lexsort((~is_row, -revisions, ids))
    current, first_at, first_known = -1, NEVER, NEVER
    for place in order:
        if ids[place] != current:
            current, first_at, first_known = ids[place], NEVER, NEVER
        if is_row[place]:
            at[places[place]] = first_at
            known[places[place]] = first_known
        else:
            first_at = min(first_at, int(applied[place]))
            first_known = min(first_known, int(known_at[place]))


def _or_null(instants: Micros) -> pa.Array:
    return pa.array(instants, pa.int64(), mask=instants == NEVER).cast(INSTANT)


def facts_of_table(
    source: CompiledSource,
    table: pa.Table,
    handover: HandOver | None,
    address: str,
    fields: Sequence[Field] | None = None,
    unfit: pa.Array | None = None,
) -> pa.Table:
    """Rows of an author's table as facts, with ids, known_at and the hand-over's stamp; where a stream follows, only
    those before the hand-over.

    Args:
        fields: which columns of the event, among them those of its id and its times; all when None.
        unfit: `unfit_ids` of what was left out: such a row of a snapshot ends nothing.

    Raises:
        RequestError: the table does not fit the declared schema.
    """
    where = f"source {source.name}, table {address}"
    rows = declared_table(source, table, where, fields)
    operations: pa.Array | None = None
    if source.change == "snapshots":
        rows, operations = snapshot_facts(source, rows, where)
    columns = {name: combined(rows[name]) for name in rows.column_names}
    times = columns[source.event_time]
    if source.known_at is not None:
        known = columns[source.known_at]
        if operations is not None:
            # An end has no row that could say when it became known: as soon as it happened.
            known = pc.coalesce(known, times)
    else:
        known = pc.add(times.cast(pa.int64()), source.available_after_us or 0).cast(INSTANT)
    n = len(times)
    applied = known if handover is None else pa.array(np.full(n, handover.stamp), pa.int64()).cast(INSTANT)
    facts = {
        "event_id": event_ids(rows, source),
        "revision": pa.array(np.full(n, TABLE_REVISION), pa.int64()),
        "operation": operations
        if operations is not None
        else pa.array([Operation.INSERT.value], pa.string()).take(pa.array(np.zeros(n, np.int64))),
        "event_time": times,
        "received_at": applied,
        "applied_at": applied,
        "known_at": known,
        "payload_hash": pa.nulls(n, pa.binary()),
        "too_late": pa.array(np.zeros(n, bool)),
    }
    rows = pa.table(facts | {name: column for name, column in columns.items() if name not in facts})
    if handover is not None and source.stream:
        rows = rows.filter(pa.array(_micros(times) < handover.at))
    if unfit is not None and operations is not None and len(unfit):
        rows = rows.filter(pc.invert(is_unfit_end(rows["operation"], rows["event_id"], unfit)))
    refuse_repeated_ids(rows, where)
    return rows


def snapshot_facts(source: CompiledSource, rows: pa.Table, where: str) -> tuple[pa.Table, pa.Array]:
    """The facts of dumps; see `organize.snapshots`. When a row became known is no value of it."""
    ignored = [] if source.known_at is None else [source.known_at]
    return changes_of(rows, key=source.id_columns[:-1], at=source.event_time, where=where, ignored=ignored)


def is_unfit_end(operations: pa.ChunkedArray, ids: pa.ChunkedArray, unfit: pa.Array) -> pa.ChunkedArray:
    """Which rows say that something ended because its row in that snapshot does not fit."""
    return pc.and_(pc.equal(operations, Operation.END.value), pc.is_in(ids, value_set=unfit))


def refuse_repeated_ids(rows: pa.Table, where: str) -> None:
    """Raise RequestError when rows of a table share an id; shows some."""
    ids = combined(rows["event_id"])
    if len(ids.unique()) == len(ids):  # a third of the time that counting takes
        return
    counts = ids.value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    sample = repeated.field("values").slice(0, _SAMPLE).to_pylist()
    raise RequestError(
        f"{len(repeated)} event ids occur in more than one row, such as {sample}.",
        where=where,
        mend="make the id columns identify a row: add a column to id=, or remove the copies",
    )


def event_ids(rows: pa.Table, source: CompiledSource) -> pa.Array:
    """`values.event_ids.event_id` of every row."""
    parts = []
    for name in source.id_columns:
        column = combined(rows[name])
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        parts.append(column)
    if len(parts) == 1 and pa.types.is_string(parts[0].type):
        return parts[0]
    if len(parts) == 1 and pa.types.is_integer(parts[0].type):
        return parts[0].cast(pa.string())
    return pa.array(
        [event_id(values) for values in zip(*(part.to_pylist() for part in parts), strict=True)], pa.string()
    )


def unfit_ids(fitting: FittingRows, source: CompiledSource) -> pa.Array:
    """The ids of the rows that do not fit, as far as they can be read: these rows are wrong, and not gone."""
    rows = fitting.typed_misfits()
    for name in source.id_columns:
        rows = rows.filter(rows[name].is_valid())
    return event_ids(rows, source)


def _is_inside(times: Micros, since: Instant | None, until: Instant | None) -> NDArray[np.bool_]:
    inside = np.ones(len(times), bool)
    if since is not None:
        inside &= times >= since
    if until is not None:
        inside &= times < until
    return inside


def _inside(times: Micros, since: Instant | None, until: Instant | None) -> Micros:
    return times if since is None and until is None else times[_is_inside(times, since, until)]


def _micros(column: pa.ChunkedArray | pa.Array) -> Micros:
    values: Micros = combined(column).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values


def _ints(column: pa.ChunkedArray) -> Micros:
    values: Micros = combined(column).to_numpy(zero_copy_only=False)
    return values
