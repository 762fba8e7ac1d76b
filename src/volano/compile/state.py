"""The layout of online state: which views share rows, and how wide a chunk is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from volano.compile.lower.joins import dimension_hash
from volano.kernels.chunk_grid import chunk_span_us
from volano.kernels.chunks import ChunkLayout
from volano.kernels.features import WindowFeature
from volano.kernels.sealed import horizon, tail_bytes
from volano.plan.definitions import (
    CompiledFeature,
    CompiledJoin,
    CompiledProject,
    CompiledSource,
    CompiledView,
)
from volano.plan.state import GroupJoin, StateGroup, stored_column, window_arguments
from volano.values.identities import content_hash
from volano.values.schema import Field, Schema

DIMENSION_US: Final = 2**60
"""Chunk width of a dimension: one chunk before 1970 and one since."""


def state_groups(project: CompiledProject) -> tuple[StateGroup, ...]:
    """One group for each dimension that some view joins, then one for each entity, source, key columns and joins that
    some view uses; in declaration order."""
    dimensions = _dimensions(project)
    views: defaultdict[tuple[object, ...], list[CompiledView]] = defaultdict(list)
    for view in project.views.values():
        views[view.entity, view.source, view.key_columns, view.joins].append(view)
    groups = (_group(tuple(found), project, dimensions) for found in views.values())
    return (*dimensions.values(), *groups)


def reading_also(project: CompiledProject, others: Iterable[CompiledProject]) -> CompiledProject:
    """A project whose sources and entities are also those that other definitions read: what state is kept by.

    A column that only the others declare may be null: events that come under the project's schema lack it. The rules of
    time are the project's; a plan that changes them under views that still serve is refused.
    """
    sources, entities = dict(project.sources), dict(project.entities)
    for other in others:
        for name, source in other.sources.items():
            standing = sources.setdefault(name, source)
            added = [field for field in source.schema.fields if standing.schema.find(field.name) is None]
            if added:
                nullable = [msgspec.structs.replace(field, nullable=True) for field in added]
                schema = Schema((*standing.schema.fields, *nullable))
                sources[name] = msgspec.structs.replace(standing, schema=schema)
        for name, entity in other.entities.items():
            entities.setdefault(name, entity)
    return msgspec.structs.replace(project, sources=sources, entities=entities)


def reach_us(view: CompiledView) -> int | None:
    """How far before q the oldest row lies that a view may read; None with a lifetime window."""
    reach = 0
    for feature in view.features:
        if feature.window_us is None:
            return None
        behind = feature.offset_us + feature.publish_delay_us + (feature.every_us or 0)
        reach = max(reach, feature.window_us + behind)
    return reach


def _dimensions(project: CompiledProject) -> dict[tuple[str, tuple[str, ...]], StateGroup]:
    """The group of every dimension, by its source and key columns; it holds the columns of all joins."""
    joins: defaultdict[tuple[str, tuple[str, ...]], list[CompiledJoin]] = defaultdict(list)
    for view in project.views.values():
        for join in view.joins:
            joins[join.source, join.keys].append(join)
    return {key: _dimension(found, project) for key, found in joins.items()}


def _dimension(joins: list[CompiledJoin], project: CompiledProject) -> StateGroup:
    first, source = joins[0], project.sources[joins[0].source]
    names = {column for join in joins for _, column in join.columns} | {source.valid_to}
    columns = tuple(field for field in source.schema.fields if field.name in names)
    view = CompiledView(
        f"{source.name} (dimension)",
        first.entity,
        source.name,
        first.keys,
        tuple(CompiledFeature(field.name, "last", field.dtype, field.name) for field in columns),
        source.owner,
        definition_hash=dimension_hash(
            source, project.entities[first.entity], [*first.keys, *(field.name for field in columns)]
        ),
    )
    schema = Schema(columns)
    return StateGroup(
        hash=content_hash([project.namespace, "dimension", first.keys, schema, view.definition_hash])[:16],
        entity=first.entity,
        source=source.name,
        key_columns=first.keys,
        views=(view,),
        columns=schema,
        span_us=DIMENSION_US,
        raw_us=None,
        accept_late_us=source.accept_late_us,
        is_dimension=True,
    )


def _group_join(
    join: CompiledJoin,
    project: CompiledProject,
    dimensions: Mapping[tuple[str, tuple[str, ...]], StateGroup],
) -> GroupJoin:
    group = dimensions[join.source, join.keys]
    return GroupJoin(group.hash, join.on, join.columns, join.fields, project.sources[join.source].valid_to)


def _group(
    views: tuple[CompiledView, ...],
    project: CompiledProject,
    dimensions: Mapping[tuple[str, tuple[str, ...]], StateGroup],
) -> StateGroup:
    first, source = views[0], project.sources[views[0].source]
    reaches = [reach_us(view) for view in views]
    known = [reach for reach in reaches if reach is not None]
    reach = max(known) if len(known) == len(reaches) else None
    columns, span = _columns(views, source), chunk_span_us(reach)
    shape = [project.namespace, first.key_columns, columns, span, [view.definition_hash for view in views]]
    raw = None if reach is None else reach + (source.accept_late_us or 0)
    sealing = horizon(_window_features(views), source.accept_late_us)
    if sealing is not None and raw is not None and 4 * (sealing.raw_us + sealing.align_us) > 3 * raw:
        sealing = None  # its rows go soon after
    if sealing is not None:
        shape.append(sealing)
    return StateGroup(
        hash=content_hash(shape)[:16],
        entity=first.entity,
        source=first.source,
        key_columns=first.key_columns,
        views=views,
        columns=columns,
        span_us=span,
        raw_us=raw,
        accept_late_us=source.accept_late_us,
        joins=tuple(_group_join(join, project, dimensions) for join in first.joins),
        sealed_us=None if sealing is None else sealing.raw_us,
        align_us=0 if sealing is None else sealing.align_us,
        tail_bytes=0 if sealing is None else tail_bytes(_window_features(views), _layout(columns)),
    )


def _layout(columns: Schema) -> ChunkLayout:
    return ChunkLayout(bytes(8), tuple((field.name, field.dtype.value) for field in columns.fields))


def _window_features(views: Iterable[CompiledView]) -> list[WindowFeature]:
    """The features of views as the kernels take them."""
    return [WindowFeature(**window_arguments(view, feature)) for view in views for feature in view.features]


def _columns(views: tuple[CompiledView, ...], source: CompiledSource) -> Schema:
    """Every column that some feature of the group reads, once."""
    columns: dict[str, Field] = {}
    for view in views:
        plain = Schema((*source.schema.fields, *view.joined))
        schema = plain if view.projection is None else view.projection.columns
        for feature in view.features:
            for name in (feature.column, feature.over, feature.where):
                field = schema.find(name) if name is not None else None
                if field is not None:
                    stored = stored_column(view, field.name)
                    columns.setdefault(stored, Field(stored, field.dtype, field.nullable))
    return Schema(tuple(columns.values()))
