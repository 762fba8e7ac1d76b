"""Bringing labels up to date: reads decisions and facts, asks `organize.labels` for what changed, appends it.

A run reads what its instants can concern. What became known since the last run, the earliest of it at `reach`, concerns
decisions up to a horizon before that; they share events with decisions up to a horizon before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.tables import decision_table
from volano.compile.judging import can_judge
from volano.kernels.standing import as_micros
from volano.organize.attribution import ATTRIBUTION_SCHEMA
from volano.organize.facts import Facts
from volano.organize.labels import LABEL_SCHEMA, NOTHING, Derived, Evidence, attribute, may_change
from volano.organize.orphans import names_decisions
from volano.plan.built_in import EXPOSURE, fact_table
from volano.plan.definitions import DECISION_ID, CompiledDecision, CompiledLabel, CompiledProject
from volano.protocols.lake import LakeReader
from volano.runtime.orphans import orphans
from volano.runtime.session import Session
from volano.values.identities import content_hash
from volano.values.instants import BEGINNING, Instant

LABELS: Final = "label"
ATTRIBUTION: Final = "attribution"
_RULES: Final = 1
"""Counts up when what labels write changes: labels of before are derived again, and what differs is appended."""


def labelled_decisions(project: CompiledProject) -> Iterator[tuple[CompiledDecision, CompiledLabel]]:
    """Every decision whose model has a label."""
    for decision in project.decisions.values():
        label = project.models[decision.model].label
        if label:
            yield decision, project.labels[label]


class Watermark(msgspec.Struct, frozen=True):
    """A label of the decisions of one bundle is up to date as of an instant, by one definition.

    Args:
        seen: the newest stamp that was there then, if that is older: what is stamped later in the very instant is new.
    """

    definition: str
    as_of: Instant
    seen: Instant | None = None

    @property
    def since(self) -> Instant:
        """What became known later than this has not been looked at."""
        return self.as_of if self.seen is None else min(self.as_of, self.seen)


class _Judge(NamedTuple):
    """A label, the bundle that declares it, and the bundles whose decisions it judges as of one instant.

    Events are shared with the decisions of `beside`: of all bundles that the label judges.
    """

    label: CompiledLabel
    declared_in: str
    bundles: tuple[str, ...]
    since: Instant
    beside: tuple[str, ...]


def update_labels(session: Session, *, as_of: Instant) -> int:
    """Append the label and attribution rows that changed since the last update, as of an instant.

    Everything accepted must be committed. A decision is judged by the label in force where that could have been
    declared in the decision's own bundle, else by its own bundle's (`compile.judging`). How far each label came is
    remembered by bundle and definition, so a new or changed label begins at the beginning. What is up to date as of a
    later instant is left alone.

    Returns:
        How many label rows.
    """
    lake, catalog = session.stores.lake, session.stores.catalog
    lake.create(LABELS, LABEL_SCHEMA)
    lake.create(ATTRIBUTION, ATTRIBUTION_SCHEMA)
    n_rows = 0
    last = session.stores.apply_log_reader.last()
    seen = BEGINNING if last is None else last.last_stamp
    for decision in session.definitions.decisions():
        stream = f"labels/{decision}"
        entry = catalog.last_entry(stream)
        marks = {} if entry is None else msgspec.json.decode(entry.body, type=dict[str, Watermark])
        judges = list(_judges(session, decision, marks, as_of))
        if not judges:
            continue
        found = [_changed(session, decision, judge, as_of) for judge in judges]
        pairs = pa.concat_tables([each.attribution for each in found])
        for table, changed in (
            (ATTRIBUTION, pa.concat_tables([pairs, _orphans(session, decision, pairs, marks, as_of, seen)])),
            (LABELS, pa.concat_tables([each.labels for each in found])),
        ):
            if changed.num_rows:
                # What was appended before a crash is compared with, so it is not appended again.
                writer = f"labels/{decision}"
                lake.append(table, changed, writer=writer, sequence=lake.committed(table, writer) + 1)
        for judge in judges:
            mark = Watermark(_definition(judge.label), as_of, seen)
            marks |= {f"{judge.label.name}/{bundle}": mark for bundle in judge.bundles}
        catalog.append(stream, [msgspec.json.encode(marks)], at=as_of)
        n_rows += sum(each.labels.num_rows for each in found)
    return n_rows


def _orphans(
    session: Session,
    decision: str,
    pairs: pa.Table,
    marks: dict[str, Watermark],
    as_of: Instant,
    seen: Instant,
) -> pa.Table:
    """Rows of observations whose decision has not come, for the label in force; sets its mark."""
    label = _label_of(session.applied.project, decision)
    if label is None or names_decisions(label) is None:
        return ATTRIBUTION_SCHEMA.empty_table()
    within_us, key = session.stores.config.parent_within_us, f"{label.name}/orphans"
    definition = content_hash([_definition(label), within_us])[:16]
    mark = marks.get(key)
    if mark is not None and mark.definition != definition:
        mark = None
    if mark is not None and as_of <= mark.as_of:
        return ATTRIBUTION_SCHEMA.empty_table()
    since = BEGINNING if mark is None else mark.since
    waiting_since = max(since - within_us, BEGINNING)
    reach = _reach(session.stores.lake, session.facts, label.source, waiting_since, as_of)
    marks[key] = Watermark(definition, as_of, seen)
    return orphans(
        session, decision, label, pairs, since=since, reach=reach, as_of=as_of, written_in=ATTRIBUTION
    )


def _judges(
    session: Session, decision: str, marks: Mapping[str, Watermark], as_of: Instant
) -> Iterator[_Judge]:
    """Every label that decisions of a name are due for, with the bundles that are at one instant."""
    due: dict[tuple[str, str, Instant], list[str]] = {}
    beside: dict[tuple[str, str], list[str]] = {}
    labels: dict[str, CompiledLabel] = {}
    applied = session.applied.bundle
    in_force = _label_of(session.applied.project, decision)
    for bundle in session.definitions.bundles:
        project = session.definitions.get(bundle)
        own = _label_of(project, decision)
        judging = {}
        if own is not None:
            judging[own.name] = (own, bundle)
        if in_force is not None and can_judge(in_force, project, decision):
            judging[in_force.name] = (in_force, applied)
        for label, declared_in in judging.values():
            definition = _definition(label)
            beside.setdefault((definition, declared_in), []).append(bundle)
            mark = marks.get(f"{label.name}/{bundle}")
            if mark is not None and mark.definition != definition:
                mark = None
            if mark is None or as_of > mark.as_of:
                labels[definition] = label
                since = BEGINNING if mark is None else mark.since
                due.setdefault((definition, declared_in, since), []).append(bundle)
    for (definition, declared_in, since), bundles in due.items():
        shared = tuple(beside[definition, declared_in])
        yield _Judge(labels[definition], declared_in, tuple(bundles), since, shared)


def _label_of(project: CompiledProject, decision: str) -> CompiledLabel | None:
    declared = project.decisions.get(decision)
    name = "" if declared is None else project.model(declared.model).label
    return project.labels[name] if name else None


def _definition(label: CompiledLabel) -> str:
    """Hash of all that changes a label; not of its owner."""
    return content_hash([msgspec.structs.replace(label, owner=""), _RULES])[:16]


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


def _changed(session: Session, decision: str, judge: _Judge, as_of: Instant) -> Derived:
    """The rows of one label that are new or changed."""
    label, since, lake = judge.label, judge.since, session.stores.lake
    project = session.definitions.get(judge.declared_in)
    facts_of = session.definitions.facts(judge.declared_in)
    sources = [label.source, *label.censored_by, *([EXPOSURE.name] if label.exposed else [])]
    reach = min(
        _first_decided(lake, decision, since, as_of),
        *(_reach(lake, facts_of, source, since, as_of) for source in sources),
    )
    affected_from = reach - label.horizon_us
    decisions = _decisions(lake, decision, label, judge.beside, affected_from - label.horizon_us, as_of)
    decided_at = decisions["decided_at"].cast(pa.int64())
    oldest = pc.min(decided_at.filter(pc.greater_equal(decided_at, max(affected_from, BEGINNING)))).as_py()
    if oldest is None:
        return NOTHING
    facts = {
        source: facts_of.rows(
            source,
            since=oldest,
            until=as_of + 1,
            columns=evidence_columns(project, label, source),
            moved=True,
        )
        for source in (label.source, *label.censored_by)
    }
    evidence = Evidence(
        facts[label.source],
        {source: facts[source] for source in label.censored_by},
        _exposures(facts_of, label, pc.min(decided_at).as_py(), as_of),
        project.sources[label.source].order_by,
    )
    own = pc.is_in(decisions["bundle"], value_set=pa.array(judge.bundles, pa.string()))
    judged = may_change(label, decisions, evidence, decision=decision, since=since, as_of=as_of)
    judged &= (
        as_micros(decisions["decided_at"]) >= oldest
    )  # older ones are there to share; their evidence is not read
    window = {"decided_at": (oldest, as_of + 1)}
    return attribute(
        label,
        decisions,
        evidence,
        decision=decision,
        as_of=as_of,
        sql=session.stores.sql,
        written=Derived(
            lake.read(LABELS, columns=LABEL_SCHEMA.names, where=window),
            lake.read(ATTRIBUTION, columns=ATTRIBUTION_SCHEMA.names, where=window),
        ),
        judged=judged & own.to_numpy(zero_copy_only=False),
    )


def _decisions(
    lake: LakeReader,
    decision: str,
    label: CompiledLabel,
    bundles: tuple[str, ...],
    since: Instant,
    as_of: Instant,
) -> pa.Table:
    """The first answers of some bundles, made from an instant on, with what the label joins on."""
    asked = [name for name in label.asked if name != DECISION_ID]
    rows = lake.read(
        decision_table(decision),
        columns=["decision_id", "decided_at", "applied_at", "attempt", "bundle", *asked],
        where={"decided_at": (max(since, BEGINNING), as_of + 1)},
    )
    own = pc.is_in(rows["bundle"], value_set=pa.array(bundles, pa.string()))
    return rows.filter(pc.and_(pc.equal(rows["attempt"], 0), own))


def _exposures(facts: Facts, label: CompiledLabel, oldest: Instant, as_of: Instant) -> pa.Table | None:
    """What was shown of decisions made from an instant on; None for a label that does not ask."""
    if not label.exposed:
        return None
    since = oldest - label.horizon_us
    return facts.rows(EXPOSURE.name, since=since, until=as_of + 1, columns=("decision", "decision_id"))


def _first_decided(lake: LakeReader, decision: str, since: Instant, as_of: Instant) -> Instant:
    """The oldest decision that became known in `(since, as_of]`: one may come long after it was made."""
    if since <= BEGINNING:
        return since
    known = lake.read(
        decision_table(decision), columns=["decided_at"], where={"applied_at": (since + 1, as_of + 1)}
    )
    oldest = pc.min(known["decided_at"].cast(pa.int64())).as_py()
    return since if oldest is None else min(since, oldest)


def _reach(lake: LakeReader, facts: Facts, source: str, since: Instant, as_of: Instant) -> Instant:
    """The oldest event_time that facts which became known in `(since, as_of]` state or replace."""
    table = fact_table(source)
    if since <= BEGINNING or lake.version(table) is None:
        return since
    columns = ["event_id", "revision", "event_time"]
    known = lake.read(table, columns=columns, where={"applied_at": (since + 1, as_of + 1)})
    changed = pc.unique(known.filter(pc.greater(known["revision"], 0))["event_id"])
    if len(changed):
        known = pa.concat_tables([known, _earlier(facts, source, changed)])
    times = known["event_time"].cast(pa.int64())
    if times.null_count:
        return BEGINNING  # a retraction without an event time: it may concern any decision
    oldest = pc.min(times).as_py()
    return since if oldest is None else min(since, oldest)


def _earlier(facts: Facts, source: str, event_ids: pa.Array) -> pa.Table:
    """Every revision of some events: a correction may have moved an event away from an old decision."""
    rows = facts.rows(source, columns=())
    found = rows.filter(pc.is_in(rows["event_id"], value_set=event_ids))
    return found.select(["event_id", "revision", "event_time"])
