"""Bringing labels up to date: reads decisions and facts, asks `organize.labels` for what changed, appends it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.tables import decision_table, fact_table
from volano.organize.labels import LABEL_SCHEMA, attribute, open_decisions
from volano.plan.definitions import CompiledDecision, CompiledLabel, CompiledProject
from volano.runtime.session import Session
from volano.values.identities import content_hash
from volano.values.instants import BEGINNING, Instant

LABELS = "label"


def labelled_decisions(project: CompiledProject) -> Iterator[tuple[CompiledDecision, CompiledLabel]]:
    """Every decision whose model has a label."""
    for decision in project.decisions.values():
        label = project.models[decision.model].label
        if label:
            yield decision, project.labels[label]


class Watermark(msgspec.Struct, frozen=True):
    """A label of a decision is up to date as of this instant."""

    as_of: Instant


def update_labels(session: Session, *, as_of: Instant) -> int:
    """Append the label rows that changed since the last update, as of an instant; returns how many.

    Everything accepted must be committed. How far each label came is remembered a decision and a definition, so a new
    or changed label begins at the beginning. What is up to date as of a later instant is left alone.
    """
    lake, catalog = session.stores.lake, session.stores.catalog
    lake.create(LABELS, LABEL_SCHEMA)
    n_rows = 0
    for decision, label in labelled_decisions(session.applied.project):
        stream = f"labels/{decision.name}/{content_hash(label)[:12]}"
        entry = catalog.last_entry(stream)
        since = BEGINNING if entry is None else msgspec.json.decode(entry.body, type=Watermark).as_of
        if lake.version(decision_table(decision.name)) is None or as_of <= since:
            continue
        changed = _changed(session, decision, label, since, as_of)
        if changed.num_rows:
            lake.append(LABELS, changed, writer=f"label/{label.name}/{decision.name}", sequence=as_of)
        catalog.append(stream, [msgspec.json.encode(Watermark(as_of))], at=as_of)
        n_rows += changed.num_rows
    return n_rows


def evidence_columns(project: CompiledProject, label: CompiledLabel, source: str) -> list[str]:
    """The event columns that a label joins on or reads; the value may read any column of its own source."""
    if source == label.source:
        return list(project.sources[source].schema.names)
    return [column for _, column in label.on]


def read_labels(session: Session, label: str, *, until: Instant | None = None) -> pa.Table:
    """Label rows computed by an instant (all when None)."""
    lake = session.stores.lake
    if lake.version(LABELS) is None:
        return LABEL_SCHEMA.empty_table()
    where = {"computed_at": (None, None if until is None else until + 1)}
    rows = lake.read(LABELS, columns=LABEL_SCHEMA.names, where=where)
    return rows.filter(pc.equal(rows["label"], label))


def _changed(
    session: Session, decision: CompiledDecision, label: CompiledLabel, since: Instant, as_of: Instant
) -> pa.Table:
    project, lake = session.applied.project, session.stores.lake
    sources = [label.source, *label.censored_by]
    window_from = min(_reach(session, source, since, as_of) for source in sources) - label.horizon_us
    window = {"decided_at": (max(window_from, BEGINNING), as_of + 1)}
    asked = [f"request__{field}" for field, _ in label.on]
    decisions = lake.read(
        decision_table(decision.name), columns=["decision_id", "decided_at", "attempt", *asked], where=window
    )
    decisions = decisions.filter(pc.equal(decisions["attempt"], 0))
    facts = {
        source: session.facts.rows(
            source,
            since=window_from if window_from > BEGINNING else None,
            until=as_of + 1,
            columns=evidence_columns(project, label, source),
        )
        for source in sources
    }
    opened = open_decisions(label, decisions, list(facts.values()), since=since, as_of=as_of)
    existing = lake.read(LABELS, columns=LABEL_SCHEMA.names, where=window)
    return attribute(
        label,
        opened,
        facts[label.source],
        {source: facts[source] for source in label.censored_by},
        existing,
        decision=decision.name,
        as_of=as_of,
        sql=session.stores.sql,
    )


def _reach(session: Session, source: str, since: Instant, as_of: Instant) -> Instant:
    """The oldest event_time that facts which became known in `(since, as_of]` state or replace."""
    lake = session.stores.lake
    table = fact_table(source)
    if since <= BEGINNING or lake.version(table) is None:
        return since
    columns = ["event_id", "revision", "event_time"]
    known = lake.read(table, columns=columns, where={"applied_at": (since + 1, as_of + 1)})
    changed = pc.unique(known.filter(pc.greater(known["revision"], 0))["event_id"])
    if len(changed):
        known = pa.concat_tables([known, _earlier(session, source, changed)])
    times = known["event_time"].cast(pa.int64())
    if times.null_count:
        return BEGINNING  # a retraction without an event time: it may concern any decision
    oldest = pc.min(times).as_py()
    return since if oldest is None else min(since, oldest)


def _earlier(session: Session, source: str, event_ids: pa.Array) -> pa.Table:
    """Every revision of some events: a correction may have moved an event away from an old decision."""
    rows = session.facts.rows(source, columns=())
    found = rows.filter(pc.is_in(rows["event_id"], value_set=event_ids))
    return found.select(["event_id", "revision", "event_time"])
