"""Compiled definitions: what a project declares, resolved and checked, as plain data.

Everything here can be written as JSON and read back for ever. Author code is named by a `CodeRef` and lives
in the bundle; nothing here holds a function. Names inside one project are unique a kind and unqualified; the
namespace stands once, in `CompiledProject`.

A field with its default is left out of the JSON, and so of every hash: a new optional field changes no hash of what was
compiled before it. (msgspec compares defaults by identity; a default text other than "" would break that, hence
`Projection`.)
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from volano.errors import UnknownNameError
from volano.values.identities import content_hash
from volano.values.schema import DType, Field, Scalar, Schema

T = TypeVar("T")


class CodeRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """An author's function: where it lives in the bundle, and the digest of its module's source.

    Args:
        module: dotted name relative to the project's root, such as `flights`.
        qualname: the module-level name.
        source_hash: digest of the function's source and of all that it refers to in the project.
    """

    module: str
    qualname: str
    source_hash: str


class CompiledOwner(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    contact: str


class CompiledEntity(msgspec.Struct, frozen=True, omit_defaults=True):
    """What features describe. `keys` are the typed key parts, in order."""

    name: str
    keys: tuple[Field, ...]
    owner: str


class Projection(msgspec.Struct, frozen=True):
    """A stateless map from source rows to view rows: as many rows, in the same order, with more columns.

    Exactly one of `sql` and `code` is set. `sql` is a SELECT over a relation named `source`; it keeps every
    column of that relation, also those that the author does not know (event_id, applied_at). `code` takes
    and gives a batch; it need not keep columns. `columns` are the output columns that the features read,
    computed or passed through.
    """

    columns: Schema
    sql: str | None = None
    code: CodeRef | None = None
    frame: str = "arrow"
    """What the author's function takes and gives: arrow, pandas, polars, narwhals."""


class CompiledSource(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the events of one schema come from: a table, a stream, or both with a hand-over.

    Args:
        schema: every column of the event, in order.
        id_columns: the columns that identify the event; their values joined are its idempotency key.
        event_time: the column that says when it happened.
        order_by: columns that order events of one instant, before the id does.
        table: address of the table (`x.parquet`, `x.csv`, `delta:path`, `duckdb:SELECT ...`), or None.
        stream: events are pushed.
        available_after_us: how late a table row normally is: its known_at is event_time plus this.
        known_at: a column of the table that holds known_at, instead of `available_after_us`.
        accept_late_us: a pushed event that arrives later than this after its event_time changes no feature.
        change: how the table changes: empty (append), slowly_changing or snapshots. The id columns of snapshots end
            with the event time.
        valid_to: the column until which a row of a slowly changing table holds.
        widened: columns that held whole numbers once, noted by the plan: an event that is sent again is known by them.
    """

    name: str
    event: str
    schema: Schema
    id_columns: tuple[str, ...]
    event_time: str
    owner: str
    order_by: tuple[str, ...] = ()
    table: str | None = None
    stream: bool = False
    available_after_us: int | None = None
    known_at: str | None = None
    accept_late_us: int | None = None
    change: str = ""
    valid_to: str | None = None
    widened: tuple[str, ...] = ()


class CompiledJoin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Columns of a dimension as of an event, for the rows of a view.

    Args:
        source: the dimension.
        entity: whose key joins the two.
        keys: the columns of the dimension that hold that key, a column a part.
        on: the columns of the view's source that hold it.
        columns: pairs of the name in the view and the dimension's column.
        fields: the same columns as fields of the view, in the same order; all may be null.
        dimension_hash: over all of the dimension's definition that changes a joined value.
    """

    source: str
    entity: str
    keys: tuple[str, ...]
    on: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    fields: tuple[Field, ...]
    dimension_hash: str


class CompiledFeature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One windowed aggregate of a view; the fields mean what they mean in `kernels.features.WindowFeature`."""

    name: str
    aggregate: str
    dtype: DType
    column: str | None = None
    window_us: int | None = None
    offset_us: int = 0
    where: str | None = None
    every_us: int | None = None
    publish_delay_us: int = 0
    n: int | None = None
    params: tuple[float, ...] = ()
    include_request: bool = False
    staleness_us: int | None = None
    """How old the value may be when a decision reads it; for sources without a stream."""
    over: str | None = None
    """The second column: the denominator of `ratio`."""
    definition: str = ""
    """Hash of all that changes this feature's value: of the view, with this feature alone."""


class CompiledView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Timestamped features of an entity, computed from one source.

    `key_columns` are columns of the source (after joins and projection), one a key part of the entity.
    """

    name: str
    entity: str
    source: str
    key_columns: tuple[str, ...]
    features: tuple[CompiledFeature, ...]
    owner: str
    projection: Projection | None = None
    definition_hash: str = ""
    """Hash of all that changes a value: view, source schema and time rules, projection code. Not of the owner."""
    joins: tuple[CompiledJoin, ...] = ()

    @property
    def joined(self) -> tuple[Field, ...]:
        """The columns that its joins add to the source's."""
        return tuple(field for join in self.joins for field in join.fields)


class FeatureInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input of a model or an on-demand function.

    Exactly one of `view`, `on_demand`, `request_field` says where it comes from. `keys` are the request's
    fields that hold the entity key of a view feature. `name` is unique in its service and is the column name
    everywhere: `PlaneHistory__mean_delay_7d`, `PlaneHistory__mean_delay_7d__dest`, `tired_long_haul`,
        `distance`.
    """

    name: str
    dtype: DType
    view: str | None = None
    feature: str | None = None
    keys: tuple[str, ...] = ()
    on_demand: str | None = None
    request_field: str | None = None
    definition: str = ""
    """Hash of what computes it; empty for a request field. So a service's version says which values are alike."""


class CompiledOnDemand(msgspec.Struct, frozen=True, omit_defaults=True):
    """A feature computed inside the request. `arguments` pairs a parameter with what it reads."""

    name: str
    code: CodeRef
    arguments: tuple[tuple[str, FeatureInput], ...]
    dtype: DType


class CompiledRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a decision is asked with. `id_columns` names the source id when the request is an event of its own."""

    name: str
    schema: Schema
    id_columns: tuple[str, ...] = ()


class CompiledHistory(msgspec.Struct, frozen=True, omit_defaults=True):
    """Requests of the past, from a table: what would have been asked, and when."""

    name: str
    request: str
    table: str
    at_sql: str


class CompiledService(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ordered features that a model reads. Its hash is its version: equal versions, equal values as served."""

    name: str
    request: str
    inputs: tuple[FeatureInput, ...]

    @property
    def version(self) -> str:
        return content_hash(self)[:16]


DECISION_ID = "decision_id"
"""In place of a request field: the decision's own id. No request has a field of this name."""


class CompiledLabel(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a decision gets its label from later events.

    Args:
        on: pairs (request field, source column) that join a decision to its evidence; `DECISION_ID` in place of a field
            is the decision's own id.
        value_sql: the label's value, an SQL expression over the source's columns.
        horizon_us: evidence later than this after decided_at does not count; the label matures then.
        censored_by: sources whose event for the same `on` columns censors the label.
        default: the value at maturity when no evidence came; without one the label is censored.
        combine: what several outcomes make: last, any, sum; empty: the first.
        credit: how an outcome is divided among decisions: first, last, position, decay; empty: linear.
        ends: of position: the share of the first and of the last.
        half_life_us: of decay.
        exposed: only decisions that were shown count.
    """

    name: str
    request: str
    source: str
    on: tuple[tuple[str, str], ...]
    value_sql: str
    dtype: DType
    horizon_us: int
    owner: str
    censored_by: tuple[str, ...] = ()
    default: Scalar = None
    has_default: bool = False
    combine: str = ""
    credit: str = ""
    ends: float | None = None
    half_life_us: int = 0
    exposed: bool = False

    @property
    def asked(self) -> tuple[str, ...]:
        """The columns of the decision's table that join it to its evidence, in the order of `on`."""
        return tuple(field if field == DECISION_ID else f"request__{field}" for field, _ in self.on)


class CompiledTrainer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A trainer by its entry-point name (`lightgbm`, `sklearn`, `python`), with its parameters.

    The author's own (`python`) is two functions: `code` trains, `predict` scores.
    """

    kind: str
    params: dict[str, Any] = {}
    code: CodeRef | None = None
    predict: CodeRef | None = None


class CompiledModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model: its service, label and trainer. `label` is empty when none is declared: it can score, not learn."""

    name: str
    service: CompiledService
    label: str
    trainer: CompiledTrainer
    owner: str
    history: str | None = None
    retrain_us: int | None = None
    seed: int = 0


class CompiledPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """A policy by name (`threshold`, `greedy`, `epsilon_greedy`, `softmax`), with its parameters."""

    kind: str
    params: dict[str, Any] = {}


class CompiledDecision(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision API: request schema, model, policy, actions, deadline, fallback."""

    name: str
    request: str
    model: str
    actions: tuple[str, ...]
    policy: CompiledPolicy
    deadline_us: int
    fallback: str
    owner: str
    unit: tuple[str, ...] = ()
    """Request fields that identify the randomisation unit; empty means the decision itself."""
    max_staleness_us: int | None = None


class CompiledGate(msgspec.Struct, frozen=True, omit_defaults=True):
    """The test a challenger must pass: `metric` better than the champion's by more than `margin`, at `confidence`."""

    metric: str
    margin: float
    confidence: float
    min_labels: int


class CompiledRelease(msgspec.Struct, frozen=True, omit_defaults=True):
    """How versions of a decision's model are released. `keep_first`: the first released version shadows for ever."""

    name: str
    decision: str
    gate: CompiledGate
    keep_first: bool = False


class CompiledProject(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything a project declares. `by_name` fields are dictionaries in declaration order."""

    namespace: str
    owners: dict[str, CompiledOwner] = {}
    entities: dict[str, CompiledEntity] = {}
    sources: dict[str, CompiledSource] = {}
    views: dict[str, CompiledView] = {}
    on_demand: dict[str, CompiledOnDemand] = {}
    requests: dict[str, CompiledRequest] = {}
    histories: dict[str, CompiledHistory] = {}
    labels: dict[str, CompiledLabel] = {}
    models: dict[str, CompiledModel] = {}
    decisions: dict[str, CompiledDecision] = {}
    releases: dict[str, CompiledRelease] = {}

    @property
    def definitions_hash(self) -> str:
        """Hash of every definition; equal projects, equal hash."""
        return content_hash(self)

    def decision(self, name: str) -> CompiledDecision:
        """The decision of this name.

        Raises:
            UnknownNameError: there is none; the mend lists those that exist.
        """
        return _get(self.decisions, "decision", name)

    def source(self, name: str) -> CompiledSource:
        """The source of this name, or UnknownNameError."""
        return _get(self.sources, "source", name)

    def model(self, name: str) -> CompiledModel:
        """The model of this name, or UnknownNameError."""
        return _get(self.models, "model", name)

    def release_of(self, decision: str) -> CompiledRelease | None:
        """The release declared for a decision, if any."""
        return next((release for release in self.releases.values() if release.decision == decision), None)

    def staleness_us(self, source: str) -> int | None:
        """How old a source without a stream may be: the least staleness of the features that read or join it."""
        views = [
            view
            for view in self.views.values()
            if view.source == source or any(join.source == source for join in view.joins)
        ]
        known = [
            each.staleness_us for view in views for each in view.features if each.staleness_us is not None
        ]
        return min(known, default=None)

    def views_of(self, source: str) -> tuple[CompiledView, ...]:
        """Every view that reads a source."""
        return tuple(view for view in self.views.values() if view.source == source)

    def key_columns(self, source: str) -> frozenset[str]:
        """The columns of a source that views and joins take keys of entities from; not those that are projected."""
        found: set[str] = set()
        for view in self.views.values():
            if view.source == source:
                found.update(name for join in view.joins for name in join.on)
                found.update(view.key_columns if view.projection is None else ())
            found.update(name for join in view.joins if join.source == source for name in join.keys)
        return frozenset(found)

    def key_fields(self, request: str) -> frozenset[str]:
        """The fields of a request that its models take keys of entities from."""
        inputs = [
            given
            for model in self.models.values()
            if model.service.request == request
            for given in model.service.inputs
        ]
        found: set[str] = set()
        while inputs:
            given = inputs.pop()
            found.update(given.keys)
            if given.on_demand is not None and given.on_demand in self.on_demand:
                inputs += [argument for _, argument in self.on_demand[given.on_demand].arguments]
        return frozenset(found)


def _get(known: dict[str, T], kind: str, name: str) -> T:
    found = known.get(name)
    if found is None:
        names = ", ".join(sorted(known)) or "none"
        raise UnknownNameError(
            f"There is no {kind} named {name!r}.",
            where=f"{kind}s of the definitions in force",
            mend=f"known names: {names}",
        )
    return found
