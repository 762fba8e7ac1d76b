"""Views of decisions, of the labels that stand, and of what came of each decision. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from volano.organize.view_sql import (
    LAKE,
    MAIN,
    SYSTEM,
    TYPES,
    LakeContents,
    LakeView,
    has_facts,
    quoted,
    ref,
    text,
)
from volano.plan.definitions import CompiledDecision, CompiledLabel, CompiledProject, CompiledSource
from volano.values.schema import DType

ATTRIBUTION: Final = "attribution"
_ATTRIBUTED: Final = {
    "decision", "decision_id", "label", "source", "event_id", "state", "weight", "event_time", "attached_at",
}  # fmt: skip


def decision_views(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    for name in contents.tables:
        if name.startswith("decision_"):
            decision = name.removeprefix("decision_")
            declared = project.decisions.get(decision)
            yield LakeView(
                MAIN,
                name,
                "decision",
                f"SELECT * FROM {ref(LAKE, name)} WHERE attempt = 0",
                ((LAKE, name),),
                f"one decision of {decision}: the answer that counts",
                ("decision_id",),
                decision,
                "" if declared is None else declared.owner,
            )


def label_views(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    if "label" not in contents.tables:
        return
    for label in project.labels.values():
        yield LakeView(
            MAIN,
            f"label_{label.name}",
            "label",
            f"SELECT * REPLACE ({_value(label)} AS value) FROM {ref(LAKE, 'label')} WHERE label = {text(label.name)} "
            "QUALIFY row_number() OVER (PARTITION BY decision, decision_id ORDER BY computed_at DESC) = 1",
            ((LAKE, "label"),),
            f"the state of {label.name} that stands, of one decision; a decision without a row is pending",
            ("decision", "decision_id"),
            label.name,
            label.owner,
        )


def _value(label: CompiledLabel) -> str:
    match label.dtype:
        case DType.STRING:
            return "value_text"
        case DType.TIMESTAMP:
            return "make_timestamptz(CAST(value AS BIGINT))"
        case dtype:
            return f"CAST(value AS {TYPES[dtype]})"


def attribution_views(contents: LakeContents) -> Iterator[LakeView]:
    """The events that labels stand on, as they stand."""
    if _has_attribution(contents):
        yield LakeView(
            MAIN,
            ATTRIBUTION,
            "label",
            f"SELECT * FROM {ref(LAKE, ATTRIBUTION)} QUALIFY row_number() OVER "
            "(PARTITION BY decision, decision_id, label, event_id ORDER BY attached_at DESC) = 1 "
            "AND state = 'attached'",
            ((LAKE, ATTRIBUTION),),
            "one event that a label of a decision stands on, with the decision's share in it",
            ("decision", "decision_id", "label", "event_id"),
        )


def _has_attribution(contents: LakeContents) -> bool:
    return set(contents.tables.get(ATTRIBUTION, ())) >= _ATTRIBUTED


def outcome_views(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    """Of every decision what is known of it since: its label, the event behind it, exposure and action taken."""
    for decision in project.decisions.values():
        if f"decision_{decision.name}" not in contents.tables:
            continue
        columns, reads = ["made.*"], [(MAIN, f"decision_{decision.name}")]
        joins: list[str] = []
        if label := project.model(decision.model).label:
            declared = project.labels[label]
            if "label" in contents.tables:
                _join_label(
                    decision, declared, project.sources[declared.source], contents, columns, joins, reads
                )
            else:
                columns.append("'pending' AS label_state")
        for table in ("exposure", "action_taken"):
            if "decision_id" in contents.tables.get(table, ()):
                _join_newest(decision.name, table, contents.tables[table], columns, joins, reads)
        yield LakeView(
            MAIN,
            f"outcome_{decision.name}",
            "outcome",
            f"SELECT {', '.join(columns)} FROM {ref(MAIN, f'decision_{decision.name}')} AS made {' '.join(joins)}",
            tuple(reads),
            f"one decision of {decision.name}, with what happened",
            ("decision_id",),
            decision.name,
            decision.owner,
        )


def _join_label(
    decision: CompiledDecision,
    label: CompiledLabel,
    source: CompiledSource,
    contents: LakeContents,
    columns: list[str],
    joins: list[str],
    reads: list[tuple[str, str]],
) -> None:
    columns.append(
        "coalesce(judged.state, 'pending') AS label_state, judged.value AS label_value, "
        f"coalesce(judged.matures_at, made.decided_at + to_microseconds({label.horizon_us})) AS label_matures_at, "
        "judged.computed_at AS label_computed_at, judged.reason AS label_reason, judged.evidence AS label_evidence"
    )
    joins.append(
        f"LEFT JOIN {ref(MAIN, f'label_{label.name}')} AS judged "
        f"ON judged.decision_id = made.decision_id AND judged.decision = {text(decision.name)}"
    )
    reads.append((MAIN, f"label_{label.name}"))
    if _has_attribution(contents):
        columns.append("touched.touches")
        joins.append(
            "LEFT JOIN (SELECT decision_id, list(struct_pack(event_id, source, event_time, weight) "
            f"ORDER BY event_time, event_id) AS touches FROM {ref(MAIN, ATTRIBUTION)} "
            f"WHERE decision = {text(decision.name)} AND label = {text(label.name)} GROUP BY ALL) AS touched "
            "ON touched.decision_id = made.decision_id"
        )
        reads.append((MAIN, ATTRIBUTION))
    if has_facts(source, contents):
        fields = ["event_time", *(field.name for field in source.schema.fields if field.name not in SYSTEM)]
        columns.extend(f"happened.{quoted(name)} AS {quoted(f'event__{name}')}" for name in fields)
        joins.append(
            f"LEFT JOIN {ref(MAIN, f'fact_{source.name}')} AS happened "
            f"ON happened.event_id = judged.evidence AND judged.evidence_source = {text(source.name)}"
        )
        reads.append((MAIN, f"fact_{source.name}"))


def _join_newest(
    decision: str,
    table: str,
    held: Sequence[str],
    columns: list[str],
    joins: list[str],
    reads: list[tuple[str, str]],
) -> None:
    """The newest row of a table that names decisions, its columns named after it."""
    own = ["event_time", *(name for name in held if name not in (*SYSTEM, "decision", "decision_id"))]
    columns.extend(f"{table}.{quoted(name)} AS {quoted(f'{table}__{name}')}" for name in own)
    joins.append(
        f"LEFT JOIN (SELECT * FROM {ref(MAIN, table)} QUALIFY row_number() OVER "
        f"(PARTITION BY decision, decision_id ORDER BY event_time DESC, event_id DESC) = 1) AS {table} "
        f"ON {table}.decision_id = made.decision_id AND {table}.decision = {text(decision)}"
    )
    reads.append((MAIN, table))
