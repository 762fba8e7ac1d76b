"""The invariants of learning, as functions that raise. Jobs run them on the sets they use; tests see them fail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.errors import InvariantError
from volano.kernels.standing import as_array, as_micros
from volano.learn.training_set import TrainingSet, mature_labels, member_ids
from volano.records.label import LabelState
from volano.records.learning import ReleaseEvent
from volano.values.instants import format_instant

_MAY_HOLD_A_VALUE = (LabelState.PROVISIONAL.value, LabelState.MATURE.value)


def check_label_rows(labels: pa.Table) -> None:
    """Only provisional and mature labels hold a value, and nothing is mature before its horizon ended.

    Raises:
        InvariantError: a row breaks it; names the first.
    """
    valued = pc.or_(labels["value"].is_valid(), labels["value_text"].is_valid())
    state = labels["state"]
    may = pc.is_in(state, value_set=pa.array(_MAY_HOLD_A_VALUE))
    _refuse_any(
        labels, pc.and_(valued, pc.invert(may)), "holds a value though it is not known", "decision_id"
    )
    mature = pc.equal(state, LabelState.MATURE.value)
    early = pa.array(as_micros(labels["computed_at"]) < as_micros(labels["matures_at"]))
    _refuse_any(labels, pc.and_(mature, early), "is mature before its horizon ended", "decision_id")
    _refuse_any(labels, pc.and_(mature, pc.invert(valued)), "is mature and has no value", "decision_id")


def check_labels_of(members: TrainingSet, labels: pa.Table, label: str) -> None:
    """Every member's label is the mature one that stood at the set's cut-off: a pending label is never a negative.

    Args:
        labels: label rows, as given to `build` or read again.
        label: name of the label.

    Raises:
        InvariantError: a member has no mature label, or another value.
    """
    manifest, table = members
    matured = mature_labels(labels, label, label_cutoff=manifest.label_cutoff, stamp=manifest.stamp)
    at = pc.index_in(as_array(table["id"]), value_set=member_ids(matured))
    _refuse_any(table, at.is_null(), "has no mature label at the cut-off and is in the set", "id")
    column = table["label"]
    text = pa.types.is_string(column.type)
    found = matured["value_text" if text else "value"].take(at)
    held = column if text else column.cast(pa.int64() if pa.types.is_timestamp(column.type) else pa.int8())
    if not text and pa.types.is_floating(column.type):
        held = column
    _refuse_any(
        table, pc.not_equal(held if text else held.cast(pa.float64()), found), "has another label", "id"
    )


def check_time_split(training: TrainingSet, evaluation: TrainingSet, *, horizon_us: int) -> None:
    """Every training label was mature before the first evaluated decision: no row of the future trains.

    Raises:
        InvariantError: the two overlap, or the embargo is shorter than the label's horizon.
    """
    if not training.table.num_rows or not evaluation.table.num_rows:
        return
    last = int(as_micros(training.table["decided_at"]).max())
    first = int(as_micros(evaluation.table["decided_at"]).min())
    if last + horizon_us > first:
        raise InvariantError(
            f"Training set {training.manifest.name!r} holds a decision of {format_instant(last)}, whose label matures "
            f"after the first evaluated decision, {format_instant(first)}.",
            where=f"evaluation set {evaluation.manifest.name}",
            mend="split by time, with an embargo of one label horizon",
        )


def check_disjoint(training: TrainingSet, evaluation: TrainingSet, *, groups: bool) -> None:
    """No member of an evaluation set is in a training set.

    Args:
        groups: also no unit of one. True for a pinned evaluation set; False for a rolling one, where a unit decided
            last month may be judged this month.

    Raises:
        InvariantError: at least one is shared; names the first and how many.
    """
    for column in ("id", "unit") if groups else ("id",):
        judged = as_array(evaluation.table[column]).drop_null()
        shared = judged.filter(pc.is_in(judged, value_set=as_array(training.table[column]).drop_null()))
        if len(shared):
            raise InvariantError(
                f"{len(pc.unique(shared))} members of evaluation set {evaluation.manifest.name!r} are in training set "
                f"{training.manifest.name!r}, first {column} {shared[0].as_py()!r}.",
                where=f"model {training.manifest.model}",
                mend="train without them; a model is judged on what it has not seen",
            )


def check_releases(events: Sequence[ReleaseEvent]) -> None:
    """A decision's ledger of releases is sound: evidence behind each release, and every rollback goes to a past
    champion.

    Raises:
        InvariantError: an entry breaks it.
    """
    champions: list[str] = []
    for event in events:
        serving = champions[-1] if champions else None
        problem = _problem(event, serving, champions)
        if problem:
            raise InvariantError(
                f"Release entry {event.release_id!r} {problem}.", where=f"decision {event.decision}"
            )
        if event.outcome == "released":
            champions.append(event.champion)
        elif event.outcome == "rolled_back":
            del champions[champions.index(event.champion) + 1 :]


def _problem(event: ReleaseEvent, serving: str | None, champions: Sequence[str]) -> str:
    if event.previous != serving:
        return f"replaces {event.previous!r}, but {serving!r} served"
    match event.outcome:
        case "released":
            return "" if event.evidence else "has no evidence"
        case "applied":
            return "" if event.champion == serving else "applies a bundle and yet changes the champion"
        case "refused":
            return "" if event.champion == serving else "refuses and yet changes the champion"
        case "rolled_back":
            return "" if event.champion in champions[:-1] else "goes back to a version that never served"
        case _:
            return f"has an unknown outcome {event.outcome!r}"


def _refuse_any(table: pa.Table, wrong: pa.ChunkedArray | pa.Array, what: str, name: str) -> None:
    places = np.flatnonzero(pc.fill_null(wrong, True).to_numpy(zero_copy_only=False))
    if len(places):
        raise InvariantError(
            f"{len(places)} rows break a rule of labels: the first, {table[name][int(places[0])].as_py()!r}, {what}.",
            mend="build from label rows that attribution wrote; see organize/labels.py",
        )
