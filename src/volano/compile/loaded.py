"""What compile takes: the author's modules, imported, with their sources. The runtime loads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LoadedModule:
    """One module of a project.

    Args:
        name: dotted name relative to the project's root, such as `flights`.
        file: path relative to the project's root, with forward slashes, such as `flights.py`.
        source: its text.
        values: its global names after import.
    """

    name: str
    file: str
    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class LoadedProject:
    """Every module of a project, the author's entry files first, then those that they import.

    Args:
        bundle: digest of the bundle that holds the sources; empty when there is none.
    """

    modules: tuple[LoadedModule, ...]
    bundle: str = ""
