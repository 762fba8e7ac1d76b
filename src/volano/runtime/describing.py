"""What there is in the lake, for whoever asks it: tables and views, their grain, columns, size, and how they join."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from volano.compile.comments import Comments, comments_of
from volano.errors import UnknownNameError
from volano.organize.view_sql import HISTORY, LAKE, MAIN, SOURCE, LakeView
from volano.plan.definitions import CompiledFeature, CompiledProject
from volano.runtime.querying import LakeSnapshot, ask_snapshot, pin, views_of
from volano.runtime.session import Session
from volano.runtime.upkeep import order_of
from volano.values.instants import Instant, format_duration

_COLUMNS: Final = """
    SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns()
    ORDER BY schema_name, table_name, column_index
"""
_ORDER: Final = (MAIN, HISTORY, LAKE, SOURCE)
_SYSTEM: Final = {
    "event_id": "the values of the id columns, joined",
    "revision": "-1: from a table; 0: first stated; higher: what replaces it",
    "operation": "insert, correct, retract or end",
    "event_time": "when it happened",
    "received_at": "when it was first held",
    "applied_at": "when it became visible: strictly increasing",
    "known_at": "when production could first use it",
    "superseded_at": "when a higher revision became visible; null while it stands",
    "receipt_id": "what its sender was answered",
    "payload_hash": "of the content",
    "too_late": "it came later than its source accepted: it changes no feature",
    "valid_from": "valid after this instant",
    "valid_to": "valid up to this instant; null while it is",
    "first_seen_at": "event time of the first fact that names it",
    "last_seen_at": "event time of the last fact that names it",
    "n_facts": "facts that name it",
    "decision_id": "of the decision",
    "attempt": "0 is the answer that counts",
    "decided_at": "end of its windows",
    "features_as_of": "newest stamp that it saw",
    "score": "what the model said",
    "action": "what was chosen",
    "propensity": "probability of that action",
    "fallback": "why the fallback answered; empty when the policy did",
    "latency_us": "microseconds, by part",
    "deadline_us": "microseconds",
    "subject": "whom it is about",
    "purpose": "what it was made for",
    "state": "pending, provisional, mature, censored or retracted",
    "matures_at": "decided_at plus the horizon",
    "computed_at": "as of when the state was derived",
    "evidence": "id of the event that decided it",
    "label_state": "state of the label that stands; pending without one",
    "label_value": "its value; an outcome only where mature",
    "label_evidence": "id of the event that decided it",
    "label_matures_at": "decided_at plus the horizon",
}


class ColumnDescription(msgspec.Struct, frozen=True):
    """One column.

    Args:
        type: as DuckDB names it.
        comment: what its author, or the system, says of it.
        entity: whose key it holds; empty for none.
    """

    name: str
    type: str
    comment: str = ""
    entity: str = ""


class Relation(msgspec.Struct, frozen=True):
    """How a view joins another: these columns equal those."""

    columns: tuple[str, ...]
    to: str
    to_columns: tuple[str, ...]


class TableDescription(msgspec.Struct, frozen=True):
    """One table or view.

    Args:
        name: under which `volano sql` knows it.
        kind: fact, dimension, decision, label, outcome, table or source.
        grain: what a row is.
        key: the columns that identify a row.
        comment: what its author says of it.
        derived_from: the views and tables that it reads.
        n_rows, n_files, n_bytes, version: of a table of the lake, at the newest version; None for a view.
        partitioned_by: columns whose values have files of their own.
        ordered_by: the column in whose order merged files are; `from_at` and `until_at` are its bounds.
        folder: where a Delta client finds it.
        sql: of a view, as DuckDB reads it.
    """

    name: str
    kind: str
    grain: str
    key: tuple[str, ...] = ()
    about: str = ""
    owner: str = ""
    comment: str = ""
    columns: tuple[ColumnDescription, ...] = ()
    relations: tuple[Relation, ...] = ()
    derived_from: tuple[str, ...] = ()
    n_rows: int | None = None
    n_files: int | None = None
    n_bytes: int | None = None
    version: int | None = None
    partitioned_by: tuple[str, ...] = ()
    ordered_by: str = ""
    from_at: Instant | None = None
    until_at: Instant | None = None
    folder: str = ""
    sql: str = ""


def describe(session: Session, table: str | None, *, whole: bool) -> list[TableDescription]:
    """Every table and view, or the one of a name.

    Raises:
        UnknownNameError: there is none of that name; says which there are.
    """
    snapshot = pin(session, whole=whole)
    views = views_of(session, snapshot)
    listed = sorted(views, key=lambda view: (_ORDER.index(view.schema), view.name))
    chosen = [view for view in listed if table is None or table in (view.shown, ".".join(view.qualified))]
    if not chosen:
        raise UnknownNameError(
            f"There is no table named {table!r}.",
            where="volano lake describe",
            mend=f"there are: {', '.join(sorted(view.shown for view in views)) or 'none yet'}",
        )
    types = _types(session, snapshot, views, chosen)
    comments = comments_of(session.bundles.get(session.applied.bundle).bundle.sources.values())
    known = {view.qualified: view for view in views}
    return [_described(session, view, known, types, comments) for view in chosen]


def _types(
    session: Session, snapshot: LakeSnapshot, views: list[LakeView], chosen: list[LakeView]
) -> Mapping[tuple[str, str], list[tuple[str, str]]]:
    """Name and type of the columns of views."""
    types: dict[tuple[str, str], list[tuple[str, str]]] = {}
    if len(chosen) == 1:
        view, name = chosen[0], chosen[0].name.replace('"', '""')
        rows = ask_snapshot(session, snapshot, views, f'DESCRIBE SELECT * FROM "{view.schema}"."{name}"')
        columns = zip(rows["column_name"].to_pylist(), rows["column_type"].to_pylist(), strict=True)
        return {view.qualified: list(columns)}
    rows = ask_snapshot(session, snapshot, views, _COLUMNS)
    for schema, name, column, dtype in zip(*(each.to_pylist() for each in rows.columns), strict=True):
        types.setdefault((schema, name), []).append((column, dtype))
    return types


def _described(
    session: Session,
    view: LakeView,
    known: Mapping[tuple[str, str], LakeView],
    types: Mapping[tuple[str, str], list[tuple[str, str]]],
    comments: Comments,
) -> TableDescription:
    project, lake = session.applied.project, session.stores.lake
    about = _about(view)
    told = TableDescription(
        name=view.shown,
        kind=view.kind,
        grain=view.grain,
        key=view.key,
        about=about,
        owner=view.owner or _owner_of(about, project),
        comment=_comment_of(view.kind, about, project, comments),
        columns=tuple(
            ColumnDescription(name, dtype, *_column_of(view, name, project, comments))
            for name, dtype in types.get(view.qualified, ())
        ),
        relations=tuple(_relations(view, project, known)),
        derived_from=tuple(known[each].shown for each in view.reads if each in known),
        sql="" if view.schema in (LAKE, SOURCE) else view.sql,
    )
    if view.schema != LAKE:
        return told
    contents, order = lake.contents(view.name), order_of(session.stores, view.name) or ""
    low, high = contents.bounds.get(order, (None, None))
    return msgspec.structs.replace(
        told,
        n_rows=contents.n_rows,
        n_files=contents.n_files,
        n_bytes=contents.n_bytes,
        version=contents.version,
        partitioned_by=contents.partition_by,
        ordered_by=order,
        from_at=low,
        until_at=high,
        folder=str(session.stores.data / "lake" / view.name),
    )


def _about(view: LakeView) -> str:
    """The definition that a view shows, or that a table of the lake is written for."""
    if view.kind != "table":
        return view.about
    kind, _, of = view.name.partition("_")
    return of if kind in ("fact", "decision") else ""


def _owner_of(about: str, project: CompiledProject) -> str:
    declared = project.sources.get(about) or project.decisions.get(about)
    return "" if declared is None else declared.owner


def _comment_of(kind: str, about: str, project: CompiledProject, comments: Comments) -> str:
    """What the author says of the definition, and of the event or request behind it."""
    source, decision = project.sources.get(about), project.decisions.get(about)
    match kind:
        case "fact" | "source" | "table" if source is not None:
            said = [comments.definitions.get(("Source", source.name)), comments.classes.get(source.event)]
        case "dimension":
            said = [comments.definitions.get(("Entity", about))]
        case "label":
            said = [comments.definitions.get(("Label", about))]
        case "decision" | "outcome" | "table" if decision is not None:
            said = [
                comments.definitions.get(("Decision", decision.name)),
                comments.classes.get(decision.request),
            ]
        case _:
            said = []
    return " ".join(each for each in said if each)


def _column_of(view: LakeView, column: str, project: CompiledProject, comments: Comments) -> tuple[str, str]:
    """What is said of a column, and whose key it holds."""
    about = _about(view)
    source, decision = project.sources.get(about), project.decisions.get(about)
    name, event = column, "" if source is None else source.event
    field = None if source is None else source.schema.find(column)
    if decision is not None:
        head, _, rest = column.partition("__")
        if head == "request":
            name, event = rest, decision.request
            field = project.requests[decision.request].schema.find(rest)
        elif head == "feature":
            return _feature(rest, project), ""
        elif head == "event" and project.model(decision.model).label:
            behind = project.sources[project.labels[project.model(decision.model).label].source]
            name, event, field = rest, behind.event, behind.schema.find(rest)
    if view.kind == "dimension":
        for each in project.sources.values():
            own = column.removeprefix(f"{each.name}__")
            if each.change and each.schema.find(own) and (each.event, own) in comments.fields:
                return comments.fields[each.event, own], ""
    said = comments.fields.get((event, name)) or _SYSTEM.get(column, "")
    return said, "" if field is None or field.entity is None else field.entity


def _feature(name: str, project: CompiledProject) -> str:
    view, _, rest = name.partition("__")
    declared = project.views.get(view)
    feature = None
    if declared is not None:
        feature = next((each for each in declared.features if each.name == rest.partition("__")[0]), None)
    return "" if declared is None or feature is None else f"{_words(feature)} of {declared.source}"


def _words(feature: CompiledFeature) -> str:
    """An aggregate as people say it.

    >>> from volano.values.schema import DType
    >>> _words(CompiledFeature("m", "mean", DType.FLOAT64, column="amount", window_us=86_400_000_000))
    'mean(amount) within 1d'
    """
    within = "" if feature.window_us is None else f" within {format_duration(feature.window_us)}"
    return f"{feature.aggregate}({feature.column or ''}){within}"


def _relations(
    view: LakeView, project: CompiledProject, known: Mapping[tuple[str, str], LakeView]
) -> Iterator[Relation]:
    """What the columns of a view join."""
    if view.schema != MAIN:
        return
    if view.kind == "fact" and view.about in project.sources:
        for field in project.sources[view.about].schema.fields:
            yield from _to_dimension((field.name,), field.entity, project, known)
    elif view.kind == "fact":
        for name in project.decisions:
            if (MAIN, f"decision_{name}") in known:
                yield Relation(("decision_id",), f"decision_{name}", ("decision_id",))
    elif view.kind in ("decision", "outcome") and view.about in project.decisions:
        decision = project.decisions[view.about]
        for field in project.requests[decision.request].schema.fields:
            yield from _to_dimension((f"request__{field.name}",), field.entity, project, known)
        label = project.labels.get(project.model(decision.model).label)
        if label is not None and (MAIN, f"label_{label.name}") in known:
            yield Relation(("decision_id",), f"label_{label.name}", ("decision_id",))
        if label is not None and (MAIN, f"fact_{label.source}") in known:
            on = tuple(f"request__{asked}" for asked, _ in label.on)
            yield Relation(on, f"fact_{label.source}", tuple(column for _, column in label.on))
    elif view.kind == "label":
        for decision in project.decisions.values():
            if (
                project.model(decision.model).label == view.about
                and (MAIN, f"decision_{decision.name}") in known
            ):
                yield Relation(("decision_id",), f"decision_{decision.name}", ("decision_id",))


def _to_dimension(
    columns: tuple[str, ...],
    entity: str | None,
    project: CompiledProject,
    known: Mapping[tuple[str, str], LakeView],
) -> Iterator[Relation]:
    dimension = known.get((MAIN, f"dim_{entity}"))
    if entity is not None and dimension is not None and len(dimension.key) == len(columns):
        yield Relation(columns, dimension.shown, dimension.key)
