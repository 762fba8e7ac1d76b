"""Opened bundles by digest: the code of yesterday beside the code of today."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from volano.plan.definitions import CodeRef, CompiledProject
from volano.protocols.artifact_store import ArtifactReader
from volano.runtime.bundles import LoadedBundle, open_bundle


class BundleShelf:
    """Opens each bundle once.

    Args:
        artifacts: where bundles lie, by digest.
    """

    def __init__(self, artifacts: ArtifactReader) -> None:
        self._artifacts = artifacts
        self._opened: dict[str, LoadedBundle] = {}

    def get(self, digest: str) -> LoadedBundle:
        """The bundle of a digest; satisfies `protocols.functions.Functions`.

        Raises:
            UnknownNameError: it was never applied here.
            CorruptionError: its bytes do not match.
        """
        if digest not in self._opened:
            self._opened[digest] = open_bundle(self._artifacts.get(digest))
        return self._opened[digest]


class BundleFunctions:
    """The functions of several bundles as one; satisfies `protocols.functions.Functions`.

    A reference names its function's content, so the first bundle that declares the same reference is the right one.

    Args:
        shelf: opens the bundles.
        projects: pairs (bundle, its definitions), the newest first.
    """

    def __init__(self, shelf: BundleShelf, projects: Iterable[tuple[str, CompiledProject]]) -> None:
        self._shelf = shelf
        self._bundle_of: dict[CodeRef, str] = {}
        for bundle, project in projects:
            for code in _code_of(project):
                self._bundle_of.setdefault(code, bundle)
        self._newest = next(iter(self._bundle_of.values()), "")

    def get(self, code: CodeRef) -> Callable[..., Any]:
        """The function of a reference; UnknownNameError when no bundle has it."""
        return self._shelf.get(self._bundle_of.get(code, self._newest)).get(code)


def _code_of(project: CompiledProject) -> list[CodeRef]:
    """Every reference to author code in a project."""
    projections = [view.projection.code for view in project.views.values() if view.projection is not None]
    on_demand = [function.code for function in project.on_demand.values()]
    trainers = [
        code for model in project.models.values() for code in (model.trainer.code, model.trainer.predict)
    ]
    return [code for code in [*projections, *on_demand, *trainers] if code is not None]
