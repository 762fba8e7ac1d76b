"""Feature views: key columns, projection, features, and the hash of all that changes a value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from volano.compile.aggregates import RULES
from volano.compile.annotations import ALLOWED, NAMES, read_annotation
from volano.compile.code import code_ref
from volano.compile.context import Context, column_names
from volano.compile.expressions import (
    Problem,
    cast,
    compute,
    identifier,
    read_expression,
    read_select,
)
from volano.compile.lower.joins import lower_joins
from volano.compile.report import nearest
from volano.compile.resolve import Definition
from volano.kernels.aggregates import AGGREGATES
from volano.plan.definitions import (
    CodeRef,
    CompiledEntity,
    CompiledFeature,
    CompiledSource,
    CompiledView,
    Projection,
)
from volano.spec.aggregates import Aggregate
from volano.spec.fields import FieldRef
from volano.spec.projection import Projection as Function
from volano.spec.sql import Sql
from volano.values.identities import content_hash
from volano.values.schema import DType, Field, Schema

_FRAMES = ("arrow", "pandas", "polars", "narwhals")
_OPTIONS = ("entity", "source", "key", "select", "join", "staleness", "owner")


@dataclass
class _Columns:
    """The columns that a view's features may read, and how each comes about."""

    fields: dict[str, Field]
    relation: str = "source"
    code: CodeRef | None = None
    frame: str = "arrow"
    computed: dict[str, str] = field(default_factory=dict)
    read: dict[str, None] = field(default_factory=dict)
    """What the features read."""
    is_known: bool = True
    """Whether the projection could be read; if not, an unknown column may be one of its."""
    of_source: set[str] = field(default_factory=set)
    """The source's columns that SQL or features read."""

    @property
    def types(self) -> dict[str, DType]:
        return {name: column.dtype for name, column in self.fields.items()}

    def projection(self) -> Projection | None:
        """The projection that gives the columns that were read; None when the source's own suffice."""
        columns = Schema(tuple(self.fields[name] for name in self.read if name in self.fields))
        if self.code is not None:
            return Projection(columns, code=self.code, frame=self.frame)
        if not self.computed:
            return Projection(columns, sql=self.relation[1:-1]) if self.relation != "source" else None
        return Projection(columns, sql=compute(self.relation, list(self.computed.items())))


def lower_views(ctx: Context) -> None:
    """Resolve every view whose entity and source stand."""
    for at in ctx.of_kind("view"):
        ctx.name_is_valid(at)
        options = at.value.options
        for name in options.unknown:
            ctx.mistake(at, f"{ctx.title(at)}: unknown keyword {name!r}.", nearest(name, _OPTIONS), name)
        entity_at = ctx.refer(at, options.entity, "entity", "entity")
        source_at = ctx.refer(at, options.source, "source", "source")
        staleness_us = ctx.duration(at, options.staleness, "staleness")
        entity, source = ctx.entities.get(id(options.entity)), ctx.sources.get(id(options.source))
        _check_attributes(at, ctx)
        if entity_at is None or source_at is None or entity is None or source is None:
            continue
        joins = lower_joins(at, source, ctx)
        columns = _columns(
            at, [*source.schema.fields, *(field for join in joins for field in join.fields)], ctx
        )
        written = at.value.options.join
        if written is not None and len(joins) < (len(written) if isinstance(written, list | tuple) else 1):
            columns.is_known = False
        key_columns = _key_columns(at, entity, columns, ctx)
        features = [
            _feature(at, name, aggregate, columns, staleness_us, ctx)
            for name, aggregate in at.value.aggregates.items()
        ]
        view = CompiledView(
            name=at.name,
            entity=entity.name,
            source=source.name,
            key_columns=key_columns,
            features=tuple(feature for feature in features if feature is not None),
            owner=ctx.owner(at, fallback=source.owner),
            projection=columns.projection(),
            joins=joins,
        )
        hash_ = definition_hash(view, entity, source, read=columns.of_source)
        ctx.views[id(at.value)] = msgspec.structs.replace(
            view,
            definition_hash=hash_,
            features=tuple(
                _with_definition(feature, view, entity, source, columns.of_source)
                for feature in view.features
            ),
        )


def definition_hash(
    view: CompiledView, entity: CompiledEntity, source: CompiledSource, *, read: Iterable[str]
) -> str:
    """Hash of all that changes a value of the view; not of owners, the table's address, or columns not read.

    Args:
        read: the source's columns that its SQL or features read; a projection function may read any.
    """
    time_rules = {source.event_time, *source.id_columns, *source.order_by, source.known_at}
    joined_on = {name for join in view.joins for name in join.on}
    names = {*read, *view.key_columns, *time_rules, *joined_on}
    by_function = view.projection is not None and view.projection.code is not None
    fields = tuple(field for field in source.schema.fields if by_function or field.name in names)
    of_view = msgspec.structs.replace(view, owner="", definition_hash="")
    of_source = msgspec.structs.replace(source, owner="", table=None, stream=True, schema=Schema(fields))
    of_entity = msgspec.structs.replace(entity, owner="")
    return content_hash([of_view, of_source, of_entity])


def _with_definition(
    feature: CompiledFeature,
    view: CompiledView,
    entity: CompiledEntity,
    source: CompiledSource,
    read: Iterable[str],
) -> CompiledFeature:
    """A feature with its own hash: a new neighbour in the view must not make the logged values look old."""
    alone = msgspec.structs.replace(view, features=(feature,))
    own = [name for name in (feature.column, feature.over, feature.where) if name is not None]
    hash_ = definition_hash(alone, entity, source, read=own if view.projection is None else read)
    return msgspec.structs.replace(feature, definition=hash_)


def _check_attributes(at: Definition, ctx: Context) -> None:
    if not at.value.aggregates:
        mend = 'assign aggregates: `last_delay = vo.last("arr_delay", within="12h")`'
        ctx.mistake(at, f"{ctx.title(at)} has no features.", mend)
    for name in at.value.strangers:
        mend = 'assign an aggregate, such as vo.mean("arr_delay", within="7d"), or move it out of the class'
        ctx.mistake(at, f"{ctx.title(at)}: {name!r} is not a feature.", mend, name)
    for name, attribute in at.value.repeated.items():
        mend = f"rename {attribute!r}, or leave this window out of its within="
        ctx.mistake(at, f"{_of(at, name)} is declared twice.", mend, attribute)
    for name in at.value.aggregates:
        if "__" in name or name in ("on", "mro"):
            mend = "choose a name without a double underscore, and not 'on' or 'mro'"
            ctx.mistake(at, f"{ctx.title(at)}: a feature cannot be named {name!r}.", mend, name)


def _columns(at: Definition, of_events: Iterable[Field], ctx: Context) -> _Columns:
    fields = {column.name: column for column in of_events}
    select = at.value.options.select
    if select is None:
        return _Columns(fields)
    if isinstance(select, Sql):
        return _selected(at, select, fields, ctx)
    if isinstance(select, Function):
        return _by_function(at, select, fields, ctx)
    mend = 'give vo.sql("SELECT ...") or a function declared with @vo.projection(columns={...})'
    ctx.mistake(at, f"{ctx.title(at)}: select is {select!r}.", mend, "select")
    return _Columns(fields, is_known=False)


def _selected(at: Definition, select: Sql, fields: dict[str, Field], ctx: Context) -> _Columns:
    types = {name: column.dtype for name, column in fields.items()}
    selection, problems = read_select(select.text, types)
    for problem in problems:
        _mistake(at, problem, ctx, "select")
    if selection is None:
        return _Columns(fields, is_known=False)
    kept = dict(fields) if selection.keeps_all else {}
    computed, replaced = [], []
    read: set[str] = set()
    for name, expression in selection.outputs:
        if expression.sql == identifier(name) and name in fields:
            kept[name] = fields[name]
            continue
        if expression.dtype is None:
            mend = f"say it: CAST({expression.sql} AS DOUBLE) AS {name}"
            ctx.mistake(at, f"{ctx.title(at)}: the type of column {name!r} is not known.", mend, "select")
            continue
        kept[name] = Field(name, expression.dtype, nullable=True)
        read |= set(expression.columns)
        computed.append((name, cast(expression, expression.dtype)))
        if name in fields:
            replaced.append(name)
    relation = f"({compute('source', computed, replaced=replaced)})" if computed else "source"
    return _Columns(kept, relation, of_source=read)


def _by_function(at: Definition, function: Function, fields: dict[str, Field], ctx: Context) -> _Columns:
    where = ctx.refer(at, function, "projection", "select")
    if where is None:
        return _Columns(fields, is_known=False)
    kept = dict(fields)
    for name, annotation in function.columns.items():
        try:
            found = read_annotation(annotation, where.module.values)
        except ValueError as error:
            what = f"{ctx.title(where)}: the type of column {name!r} is not known: {error}."
            ctx.mistake(where, what, ALLOWED, "columns", name)
            continue
        kept[name] = Field(name, found.dtype, found.nullable)
    if function.frame not in _FRAMES:
        mend = nearest(function.frame, _FRAMES)
        ctx.mistake(where, f"{ctx.title(where)}: unknown frame {function.frame!r}.", mend, "frame")
    return _Columns(kept, code=code_ref(where, ctx), frame=function.frame)


def _key_columns(at: Definition, entity: CompiledEntity, columns: _Columns, ctx: Context) -> tuple[str, ...]:
    names = column_names(at.value.options.key)
    if not names:
        names = tuple(name for name, column in columns.fields.items() if column.entity == entity.name)
        if len(names) != len(entity.keys):
            _unclear_key(at, entity, names, ctx)
            return names
    if len(names) != len(entity.keys):
        mend = f"name one column for each of: {', '.join(part.name for part in entity.keys)}"
        ctx.mistake(at, f"{ctx.title(at)}: key has {len(names)} columns.", mend, "key")
        return names
    for name, part in zip(names, entity.keys, strict=True):
        column = columns.fields.get(name)
        if column is None:
            ctx.mistake(
                at, f"{ctx.title(at)}: key={name!r} is not a column.", nearest(name, columns.fields), "key"
            )
        elif column.dtype is not part.dtype:
            types = f"{_shown(column.dtype)}, the entity's is {_shown(part.dtype)}"
            what = f"{ctx.title(at)}: its key {name!r} is {types}."
            ctx.mistake(at, what, "give both the same type", "key")
    return names


def _unclear_key(at: Definition, entity: CompiledEntity, names: tuple[str, ...], ctx: Context) -> None:
    if names:
        what = f"{len(names)} columns hold a key of entity {entity.name!r} ({', '.join(names)})"
        mend = f'choose: key="{names[0]}"'
    else:
        what = f"no column of its source holds a key of entity {entity.name!r}"
        mend = f"mark the one that does: `Annotated[{NAMES[entity.keys[0].dtype]}, {entity.name}]`"
    ctx.mistake(at, f"{ctx.title(at)}: {what}.", mend)


def _feature(
    at: Definition,
    name: str,
    aggregate: Aggregate,
    columns: _Columns,
    staleness_us: int | None,
    ctx: Context,
) -> CompiledFeature | None:
    window_us = ctx.duration(at, aggregate.within, name, "within", least_us=1)
    offset_us = ctx.duration(at, aggregate.offset, name, "offset") or 0
    every_us = ctx.duration(at, aggregate.every, name, "every", least_us=1)
    publish_delay_us = ctx.duration(at, aggregate.publish_delay, name, "publish_delay") or 0
    own_staleness_us = ctx.duration(at, aggregate.staleness, name, "staleness")
    _check_window(at, name, aggregate, ctx)
    n = _n(at, name, aggregate, ctx)
    column = _column(at, name, aggregate.column, columns, ctx)
    over = _column(at, name, aggregate.over, columns, ctx)
    where = _column(at, name, aggregate.where, columns, ctx, condition=True)
    if aggregate.kind == "rate" and len(aggregate.params) == 1:
        mend = "give both: prior=0.2 (what is believed) and weight=10 (how many rows that is worth)"
        ctx.mistake(at, f"{_of(at, name)} has a prior without a weight, or the reverse.", mend, name)
    dtype = _output(at, name, aggregate, column, over, columns, ctx)
    if dtype is None:
        return None
    return CompiledFeature(
        name=name,
        aggregate=aggregate.kind,
        dtype=dtype,
        column=column,
        window_us=window_us,
        offset_us=offset_us,
        where=where,
        every_us=every_us,
        publish_delay_us=publish_delay_us,
        n=n,
        params=aggregate.params,
        include_request=aggregate.include_request,
        staleness_us=own_staleness_us if own_staleness_us is not None else staleness_us,
        over=over,
    )


def _check_window(at: Definition, name: str, aggregate: Aggregate, ctx: Context) -> None:
    if aggregate.publish_delay is not None and aggregate.every is None:
        mend = "give every=, or remove publish_delay"
        ctx.mistake(at, f"{_of(at, name)} has publish_delay without every.", mend, name, "publish_delay")
    if aggregate.include_request and (aggregate.every is not None or aggregate.offset is not None):
        mend = "remove include_request, or every and offset"
        what = f"{_of(at, name)} includes the request, but its window does not end at the request."
        ctx.mistake(at, what, mend, name, "include_request")


def _n(at: Definition, name: str, aggregate: Aggregate, ctx: Context) -> int | None:
    if aggregate.kind not in ("first_n", "last_n"):
        return None
    n: Any = aggregate.n
    if isinstance(n, int) and not isinstance(n, bool) and n > 0:
        return n
    ctx.mistake(at, f"{_of(at, name)}: n={n!r} is not a number of rows.", "give a positive integer", name)
    return None


def _column(
    at: Definition, name: str, written: object, columns: _Columns, ctx: Context, *, condition: bool = False
) -> str | None:
    """The name of the column that an aggregate reads; SQL becomes a computed column of the view."""
    step = (name, "where") if condition else (name,)
    if written is None:
        return None
    if isinstance(written, Sql):
        return _computed(at, name, written, columns, ctx, condition=condition)
    if isinstance(written, FieldRef):
        written = written.name
    if not isinstance(written, str):
        mend = 'name a column, "arr_delay", or write vo.sql("arr_delay > 30")'
        ctx.mistake(at, f"{_of(at, name)} cannot read {written!r}.", mend, *step)
        return None
    if written not in columns.fields:
        if not columns.is_known:
            return None
        mend = nearest(written, columns.fields)
        if condition and not written.isidentifier():
            mend = f"an expression is written vo.sql({written!r})"
        ctx.mistake(at, f"{_of(at, name)} reads the unknown column {written!r}.", mend, *step)
        return None
    if condition and columns.fields[written].dtype is not DType.BOOL:
        what = f"{_of(at, name)}: where={written!r} is {_shown(columns.fields[written].dtype)}, not bool."
        ctx.mistake(at, what, f'write a condition: where=vo.sql("{written} > 0")', *step)
        return None
    columns.read[written] = None
    columns.of_source.add(written)
    return written


def _computed(
    at: Definition, name: str, sql: Sql, columns: _Columns, ctx: Context, *, condition: bool
) -> str | None:
    step = (name, "where") if condition else (name,)
    if columns.code is not None:
        mend = "compute the column in the projection function, and name it here"
        ctx.mistake(at, f"{_of(at, name)}: SQL after a projection function.", mend, *step)
        return None
    expression, problems = read_expression(sql.text, columns.types)
    if not columns.is_known:
        problems = [problem for problem in problems if "unknown column" not in problem[0]]
    for problem in problems:
        _mistake(at, problem, ctx, *step)
    if expression is None:
        return None
    if condition and expression.dtype is not DType.BOOL:
        what = f"{_of(at, name)}: where={sql.text!r} is not a condition."
        ctx.mistake(at, what, "write a comparison that is true or false", *step)
        return None
    if expression.dtype is None:
        mend = f'say it: vo.sql("CAST({expression.sql} AS DOUBLE)")'
        ctx.mistake(at, f"{_of(at, name)}: the type of {sql.text!r} is not known.", mend, *step)
        return None
    prefix = "where" if condition else "value"
    column = f"_{prefix}_{content_hash(expression.sql)[:8]}"
    columns.computed[column] = cast(expression, expression.dtype)
    columns.fields[column] = Field(column, expression.dtype, nullable=True)
    columns.read[column] = None
    columns.of_source |= set(expression.columns)
    return column


def _output(
    at: Definition,
    name: str,
    aggregate: Aggregate,
    column: str | None,
    over: str | None,
    columns: _Columns,
    ctx: Context,
) -> DType | None:
    rule = RULES[aggregate.kind]
    if aggregate.kind not in AGGREGATES:
        mend = f"this version computes: {', '.join(sorted(set(AGGREGATES) & set(RULES)))}"
        ctx.mistake(at, f"{_of(at, name)}: vo.{aggregate.kind} cannot be computed yet.", mend, name)
        return None
    for read, written in ((column, aggregate.column), (over, aggregate.over)):
        if written is not None and read is None:
            return None
        if read is not None and columns.fields[read].dtype not in rule.takes:
            takes = ", ".join(sorted(_shown(dtype) for dtype in rule.takes))
            is_ = _shown(columns.fields[read].dtype)
            what = f"{_of(at, name)}: {aggregate.kind} cannot read {read!r}, which is {is_}."
            ctx.mistake(at, what, f"it takes {takes}", name)
            return None
    return rule.output(columns.fields[column].dtype if column is not None else None)


def _mistake(at: Definition, problem: Problem, ctx: Context, *path: str) -> None:
    what, mend = problem
    name = path[0] if path and path[0] in at.value.aggregates else ""
    ctx.mistake(at, f"{_of(at, name) if name else ctx.title(at)}: {what}.", mend, *path)


def _of(at: Definition, name: str) -> str:
    return f"Feature '{at.name}.{name}'"


def _shown(dtype: DType) -> str:
    return NAMES.get(dtype, str(dtype))
