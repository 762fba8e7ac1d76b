"""Logged decisions, read back: the newest ones, and one explained."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.tables import decision_table
from volano.decide.explain import ExplainedDecision, explain_decision
from volano.errors import UnknownNameError
from volano.records.journal import ShadowScored
from volano.records.label import Label, LabelState
from volano.runtime.labelling import LABELS
from volano.runtime.logged import find_logged
from volano.runtime.session import Session
from volano.values.instants import Instant

_SHADOWS = "shadow_score"


def newest_decisions(session: Session, name: str, limit: int, since: Instant | None) -> pa.Table:
    """The newest rows of a decision's table, newest first.

    Raises:
        UnknownNameError: no such decision.
    """
    session.applied.project.decision(name)
    lake, table = session.stores.lake, decision_table(name)
    if lake.version(table) is None:
        return pa.table({"decision_id": pa.array([], pa.string())})
    rows = lake.read(table, where={"decided_at": (since, None)})
    order = pc.sort_indices(rows, sort_keys=[("decided_at", "descending"), ("decision_id", "descending")])
    return rows.take(order[:limit])


def explain_logged(session: Session, decision_id: str) -> ExplainedDecision:
    """Explain a decision by its id: its first answer, which is the one that labels and training count.

    Raises:
        UnknownNameError: no decision of this id was logged.
    """
    for name in session.definitions.decisions():
        made = find_logged(session.stores.lake, session.definitions, name, decision_id)
        if made is not None:
            project = session.definitions.get(made.bundle)
            labels, shadows = _labels(session, name, decision_id), _shadows(session, name, decision_id)
            return explain_decision(made, project, labels=labels, shadows=shadows)
    raise UnknownNameError(
        f"No decision {decision_id!r} was logged.",
        where="lake tables decision_*",
        mend="list some with `volano decisions list NAME`",
    )


def _rows(table: pa.Table, decision: str, decision_id: str) -> pa.Table:
    own = pc.and_(pc.equal(table["decision"], decision), pc.equal(table["decision_id"], decision_id))
    return table.filter(own)


def _labels(session: Session, decision: str, decision_id: str) -> list[Label]:
    lake = session.stores.lake
    if lake.version(LABELS) is None:
        return []
    rows = _rows(lake.read(LABELS), decision, decision_id).sort_by("computed_at")
    numbers = rows
    for name in ("decided_at", "matures_at", "computed_at", "evidence_stamp"):
        at = numbers.column_names.index(name)
        numbers = numbers.set_column(at, name, numbers[name].cast(pa.int64()))
    return [_label(row) for row in numbers.to_pylist()]


def _label(row: dict[str, object]) -> Label:
    value = row.pop("value_text") if row["value"] is None else row["value"]
    row.pop("value_text", None)
    fields = {name: row[name] for name in Label.__struct_fields__ if name in row}
    return msgspec.convert({**fields, "value": value, "state": LabelState(str(row["state"]))}, Label)


def _shadows(session: Session, decision: str, decision_id: str) -> list[ShadowScored]:
    lake = session.stores.lake
    if lake.version(_SHADOWS) is None:
        return []
    rows = _rows(lake.read(_SHADOWS), decision, decision_id)
    rows = rows.set_column(
        rows.column_names.index("scored_at"), "scored_at", rows["scored_at"].cast(pa.int64())
    )
    names = ShadowScored.__struct_fields__
    return [ShadowScored(**{k: v for k, v in row.items() if k in names}) for row in rows.to_pylist()]
