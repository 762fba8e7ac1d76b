"""Annotations → logical types."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Union, get_args, get_origin

from volano.spec.entity import Entity
from volano.spec.event import EventTimeMark
from volano.values.schema import DType

TYPES: Final[dict[type, DType]] = {
    str: DType.STRING,
    int: DType.INT64,
    float: DType.FLOAT64,
    bool: DType.BOOL,
    datetime: DType.TIMESTAMP,
}
NAMES: Final = {dtype: python.__name__ for python, dtype in TYPES.items()}
ALLOWED: Final = "use str, int, float, bool, datetime, vo.EventTime, `T | None` or Annotated[T, entity]"


@dataclass(frozen=True)
class FieldType:
    """A field's type, and what its annotation marks it as."""

    dtype: DType
    nullable: bool = False
    entity: Entity | None = None
    is_event_time: bool = False


def annotations_of(value: type | Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a class or function as written; texts stay texts."""
    return inspect.get_annotations(value)


def read_annotation(annotation: Any, names: Mapping[str, Any]) -> FieldType:
    """The logical type of an annotation.

    Args:
        annotation: a type, or its text under `from __future__ import annotations`.
        names: the global names of the module it stands in.

    Raises:
        ValueError: it is none of the allowed forms, or its text cannot be evaluated.

    >>> read_annotation("str | None", {}).nullable
    True
    """
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, dict(names))
        except Exception as error:  # an author's annotation may raise anything; it is reported
            raise ValueError(f"{annotation} cannot be read: {error}") from error
    if get_origin(annotation) is Annotated:
        return _annotated(annotation, names)
    if get_origin(annotation) in (Union, types.UnionType):
        return _optional(annotation, names)
    if isinstance(annotation, type) and annotation in TYPES:
        return FieldType(TYPES[annotation])
    raise ValueError(_shown(annotation))


def _annotated(annotation: Any, names: Mapping[str, Any]) -> FieldType:
    inner, *marks = get_args(annotation)
    found = read_annotation(inner, names)
    entity, is_event_time = found.entity, found.is_event_time
    for mark in marks:
        if isinstance(mark, Entity):
            entity = mark
        elif mark is EventTimeMark:
            is_event_time = True
    return FieldType(found.dtype, found.nullable, entity, is_event_time)


def _optional(annotation: Any, names: Mapping[str, Any]) -> FieldType:
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if len(parts) != 1:
        raise ValueError(_shown(annotation))
    found = read_annotation(parts[0], names)
    return FieldType(found.dtype, True, found.entity, found.is_event_time)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
