"""Adapters by entry point. Built-in ones are not special; a third party's are found the same way."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from volano.errors import MissingExtraError, UnknownNameError

GROUPS = ("volano.stores", "volano.engines", "volano.trainers")
_EXTRAS = {"lightgbm": "lightgbm", "sklearn": "sklearn", "onnxruntime": "sklearn", "skl2onnx": "sklearn"}
_WRITTEN_IN = {"volano.stores": "volano.toml, [stores]", "volano.trainers": "trainer= of a model"}


@cache
def _found(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def names(group: str) -> list[str]:
    """The names that can be loaded from a group, sorted."""
    return sorted(_found(group))


def find(group: str, name: str) -> EntryPoint:
    """An entry point, not loaded yet.

    Raises:
        UnknownNameError: no installed package offers this name.
    """
    point = _found(group).get(name)
    if point is None:
        near = difflib.get_close_matches(name, names(group), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownNameError(
            f"No adapter {name!r} in {group}.",
            where=_WRITTEN_IN.get(group, group),
            mend=f"{hint}installed: {', '.join(names(group)) or 'none (is the package installed?)'}",
        )
    return point


def load(group: str, name: str) -> Any:
    """What an entry point names: an adapter's class.

    Raises:
        UnknownNameError: no installed package offers this name.
        MissingExtraError: it is offered, but a library it needs is not installed; the mend is the pip line.
    """
    point = find(group, name)
    try:
        return point.load()
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "", error.name or name)
        raise MissingExtraError(
            f"{name!r} needs the package {error.name!r}.", where=group, mend=f"pip install 'volano[{extra}]'"
        ) from error
