"""What a table says that its source's facts do not: the changes that bring the facts up to it. Reads no clock.

`append` states new rows and corrects changed ones. `slowly_changing` also retracts rows that are gone: the table is the
whole history. `snapshots` continues from the newest dump that is known: older dumps are not read again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import RequestError
from volano.kernels.columns import combined
from volano.organize.facts import event_ids, snapshot_facts
from volano.organize.snapshots import row_codes
from volano.plan.definitions import CompiledSource
from volano.records.journal import Operation, TableChange
from volano.values.instants import Instant, format_instant

Micros = NDArray[np.int64]
_END, _RETRACT = Operation.END.value, Operation.RETRACT.value


class _Wanted(NamedTuple):
    """What the facts should be: rows, whether each is an end; and which present facts must go unless wanted."""

    rows: pa.Table
    is_end: pa.Array
    doomed: pa.Array


class Extent(NamedTuple):
    """How much a table and the facts that stand of its source hold, and how far they reach.

    Args:
        newest_row, newest_standing: the newest event times; BEGINNING where there is no row.
    """

    n_rows: int
    newest_row: Instant
    n_standing: int
    newest_standing: Instant


def stands(facts: pa.Table) -> pa.ChunkedArray:
    """Which facts hold: nothing supersedes them and they are no retractions."""
    return pc.and_(facts["superseded_at"].is_null(), pc.not_equal(facts["operation"], _RETRACT))


def refuse_table(source: CompiledSource, extent: Extent, address: str) -> None:
    """Refuse a table of rows or snapshots that ends before it ended, and a changing one that was emptied.

    Another table without rows may have been emptied.

    Raises:
        RequestError: says until when the table reached before.
    """
    where = f"source {source.name}, table {address}"
    if source.change == "slowly_changing" and extent.n_standing and not extent.n_rows:
        raise RequestError(
            "The table is empty; its rows would all be retracted.",
            where=where,
            mend="put its rows back; a table that was emptied takes nothing back",
        )
    goes_back = extent.n_rows and extent.n_standing and extent.newest_row < extent.newest_standing
    if source.change != "slowly_changing" and goes_back:
        kind = "snapshot" if source.change else "row"
        raise RequestError(
            f"The newest {kind} is of {format_instant(extent.newest_row)}; one of "
            f"{format_instant(extent.newest_standing)} came before.",
            where=f"{where}, column {source.event_time}",
            mend="put the newer table back: a source does not go back in time",
        )


def changes_to(
    source: CompiledSource,
    rows: pa.Table,
    facts: pa.Table,
    address: str,
    *,
    unfit: pa.Array | None = None,
    elsewhere: pa.Table | None = None,
) -> list[TableChange]:
    """The changes that bring the facts of a source up to its table, in the order of their event times.

    Args:
        rows: of the table, as `organize.declared` gives them; those of some ids, but of snapshots all.
        facts: every revision of the same ids, as `Facts.rows` gives them; both as far back as a refresh looks.
        address: names the table in errors.
        unfit: ids of rows of the table that do not fit: what stands of them is neither retracted nor ended.
        elsewhere: event_id and revision of what is known of `rows` beside `facts`: such a row is no new one.

    Raises:
        RequestError: ids occur twice.
    """
    where = f"source {source.name}, table {address}"
    present = facts.filter(facts["superseded_at"].is_null())
    standing = pc.not_equal(present["operation"], _RETRACT)
    match source.change:
        case "snapshots":
            wanted = _of_snapshots(source, rows, present, present.filter(standing), where)
        case "slowly_changing":
            wanted = _Wanted(rows, pa.array(np.zeros(rows.num_rows, bool)), combined(standing))
        case _:
            nothing = pa.array(np.zeros(present.num_rows, bool))
            wanted = _Wanted(rows, pa.array(np.zeros(rows.num_rows, bool)), nothing)
    if unfit is not None and len(unfit):
        wanted = _Wanted(
            wanted.rows,
            wanted.is_end,
            pc.and_(wanted.doomed, pc.invert(pc.is_in(combined(present["event_id"]), value_set=unfit))),
        )
        spared = pc.and_(wanted.is_end, pc.is_in(event_ids(wanted.rows, source), value_set=unfit))
        wanted = wanted._replace(
            rows=wanted.rows.filter(pc.invert(spared)), is_end=wanted.is_end.filter(pc.invert(spared))
        )
    return _differences(source, wanted, present, where, elsewhere)


def _of_snapshots(
    source: CompiledSource, rows: pa.Table, present: pa.Table, standing: pa.Table, where: str
) -> _Wanted:
    times = _micros(rows[source.event_time])
    known = _micros(standing["event_time"])
    nothing = pa.array(np.zeros(present.num_rows, bool))
    if not len(known):
        facts, operations = snapshot_facts(source, rows, where)
        return _Wanted(facts, pc.equal(operations, _END), nothing)
    last = int(known.max())
    # Where the newest known dump is there again, it is compared with what stood before it: a crash may have cut it.
    again = bool((times == last).any())
    base_at = last - 1 if again else last
    base = _standing_at(source, standing, known, base_at)
    newer = rows.filter(pa.array(times > base_at))
    facts, operations = snapshot_facts(source, pa.concat_tables([base, newer]), where)
    fresh = pa.array(_micros(facts[source.event_time]) > base_at)
    doomed = nothing
    if again:
        at_last = pc.equal(present["event_time"].cast(pa.int64()), last)
        doomed = combined(pc.and_(pc.fill_null(at_last, False), pc.not_equal(present["operation"], _RETRACT)))
    return _Wanted(facts.filter(fresh), pc.equal(operations.filter(fresh), _END), doomed)


def _standing_at(source: CompiledSource, standing: pa.Table, known: Micros, at: Instant) -> pa.Table:
    """The rows that stood at an instant, as a dump of that instant."""
    order = np.flatnonzero(known <= at)
    order = order[np.argsort(-known[order], kind="stable")]
    newest_first = standing.take(pa.array(order))
    _, first = np.unique(row_codes(newest_first, source.id_columns[:-1]), return_index=True)
    rows = newest_first.take(pa.array(first))
    rows = rows.filter(pc.not_equal(rows["operation"], _END)).select(source.schema.names)
    instants = pa.array(np.full(rows.num_rows, at), pa.int64()).cast(
        rows.schema.field(source.event_time).type
    )
    return rows.set_column(rows.column_names.index(source.event_time), source.event_time, instants)


def _differences(
    source: CompiledSource, wanted: _Wanted, present: pa.Table, where: str, elsewhere: pa.Table | None
) -> list[TableChange]:
    rows, ids = wanted.rows, event_ids(wanted.rows, source)
    if len(pc.unique(ids)) < len(ids):
        raise RequestError(
            "Event ids occur in more than one row.",
            where=where,
            mend="make the id columns identify a row: add a column to id=, or remove the copies",
        )
    found = pc.index_in(ids, value_set=combined(present["event_id"]))
    is_new = found.is_null().to_numpy(zero_copy_only=False)
    places = found.fill_null(0)
    differs = np.zeros(rows.num_rows, bool)
    if present.num_rows and rows.num_rows:
        there = present.take(places)
        was_end = _bools(pc.equal(there["operation"], _END))
        differs = _bools(pc.equal(there["operation"], _RETRACT)) | (was_end != _bools(wanted.is_end))
        for name in source.schema.names:
            differs |= _differ(combined(rows[name]), combined(there[name]))
    changed = np.flatnonzero(is_new | differs)
    chosen = pa.array(changed)
    before = (
        present["revision"].take(places.take(chosen))
        if present.num_rows
        else pa.nulls(len(changed), pa.int64())
    )
    above = pc.add(pc.max_element_wise(combined(before), 0), 1)
    first = _first_revisions(ids.take(chosen), elsewhere)
    revisions = pc.if_else(pa.array(is_new[changed]), first, above).to_pylist()
    ends = wanted.is_end.take(chosen).to_pylist()
    changes = []
    for event, revision, is_end in zip(rows.take(chosen).to_pylist(), revisions, ends, strict=True):
        operation = Operation.CORRECT if revision else Operation.INSERT
        if is_end:
            event = {name: event[name] for name in source.id_columns}
        changes.append((event, Operation.END if is_end else operation, revision))
    changes.sort(key=lambda change: change[0][source.event_time])
    gone = pc.and_(wanted.doomed, pc.invert(pc.is_in(present["event_id"], value_set=ids)))
    for row in present.filter(gone).to_pylist():
        event = {name: row[name] for name in source.id_columns}
        changes.append((event, Operation.RETRACT, max(row["revision"], 0) + 1))
    return [TableChange(*change) for change in changes]


def _first_revisions(ids: pa.Array, elsewhere: pa.Table | None) -> pa.Array:
    """The revision of each id that is new here: 0, or one more than the highest that is known elsewhere."""
    none = pa.array(np.zeros(len(ids), np.int64))
    if elsewhere is None or not elsewhere.num_rows:
        return none
    highest = elsewhere.group_by("event_id").aggregate([("revision", "max")])
    known = combined(highest["revision_max"]).take(pc.index_in(ids, value_set=combined(highest["event_id"])))
    return pc.fill_null(pc.add(pc.max_element_wise(known, 0, skip_nulls=False), 1), 0)


def _differ(a: pa.Array, b: pa.Array) -> NDArray[np.bool_]:
    """Where two columns hold other values; a null equals a null, NaN equals NaN."""
    nulls = pc.xor(a.is_null(), b.is_null())
    other = pc.fill_null(pc.not_equal(a, b), False)
    if pa.types.is_floating(a.type):
        both_nan = pc.fill_null(pc.and_(pc.is_nan(a), pc.is_nan(b)), False)
        other = pc.and_(other, pc.invert(both_nan))
    found: NDArray[np.bool_] = pc.or_(nulls, other).to_numpy(zero_copy_only=False)
    return found


def _bools(column: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    values: NDArray[np.bool_] = combined(column).to_numpy(zero_copy_only=False)
    return values


def _micros(column: pa.ChunkedArray | pa.Array) -> Micros:
    values: Micros = combined(column).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values
