"""Which code a released version runs with: the bundle in force where its inputs are the same, else the one it knows.

A version is bound to the way its inputs are computed, not to the policy, the actions or the deadline around it. So a
change that keeps the inputs takes effect at apply; one that changes them waits for the release of a version that was
trained on them, and until then yesterday's bundle serves.
"""

from __future__ import annotations

from collections.abc import Callable

from volano.errors import problem_of
from volano.learn.release import REFUSED, append, apply_bundle, champions, current, history, refuse
from volano.learn.train import get_version
from volano.plan.definitions import CompiledProject
from volano.protocols.catalog import CatalogReader, CatalogWriter
from volano.records.learning import ModelVersion, ReleaseEvent
from volano.runtime.applied import Applied, find_definitions
from volano.values.instants import Instant

ACTOR = "apply"


def reads_same_inputs(project: CompiledProject, decision: str, version: ModelVersion) -> bool:
    """Whether a project computes, for a decision, exactly the inputs that a version was trained on."""
    definition = project.decisions.get(decision)
    if definition is None or definition.model != version.model:
        return False
    return project.model(definition.model).service.version == version.service_version


def rebind_releases(
    catalog: CatalogWriter, applied: Applied, *, at: Instant, verify: Callable[[str, ReleaseEvent], object]
) -> None:
    """Let every champion whose inputs are unchanged run with the bundle in force; one ledger entry each.

    What cannot be served so is refused, and goes on with the bundle that it has. Doing it again adds nothing.

    Args:
        verify: prepares a decision under a release; raises when it cannot be served.
    """
    for decision in applied.project.decisions:
        before = current(catalog, decision)
        if before is None or before.bundle == applied.bundle:
            continue
        if reads_same_inputs(applied.project, decision, get_version(catalog, before.champion)):
            event = apply_bundle(before, applied.bundle, at=at, actor=ACTOR)
            try:
                verify(decision, event)
            except (
                Exception
            ) as error:  # whatever stands in the way, it must not become the head of the ledger
                reason = f"Bundle {applied.bundle[:12]} cannot serve it: {problem_of(error)}"
                if (before.outcome, before.reason) == (REFUSED, reason):
                    continue
                event = refuse(before, before.champion, at=at, actor=ACTOR, reason=reason)
            append(catalog, event, after=before)


def serving_projects(catalog: CatalogReader, applied: Applied) -> list[tuple[str, CompiledProject]]:
    """(bundle, definitions) of what each decision serves with, or may go back to.

    A bundle whose definitions are lost is left out: what it served falls back, and says so.
    """
    bundles: dict[str, None] = {}
    for decision in applied.project.decisions:
        standing = champions(history(catalog, decision))[-2:]
        bundles |= dict.fromkeys(event.bundle for event in reversed(standing))
    found = [
        (bundle, applied.project if bundle == applied.bundle else find_definitions(catalog, bundle))
        for bundle in bundles
    ]
    return [(bundle, project) for bundle, project in found if project is not None]


def needed_projects(catalog: CatalogReader, applied: Applied) -> list[tuple[str, CompiledProject]]:
    """(bundle, definitions) of the applied project first, then of what serves or may serve again."""
    others = [each for each in serving_projects(catalog, applied) if each[0] != applied.bundle]
    return [(applied.bundle, applied.project), *others]
