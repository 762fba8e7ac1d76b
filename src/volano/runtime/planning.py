"""From the author's files and what is in force to a plan. Reads; changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from volano.compile.planner import author_columns, plan
from volano.compile.project import compile_project
from volano.compile.state import state_groups
from volano.learn.release import champions, history
from volano.plan.plan import Plan, PlanState
from volano.runtime.applied import Applied, find_applied, get_definitions
from volano.runtime.loader import load_project, pack
from volano.runtime.stores import Stores


class Planned(NamedTuple):
    """A plan and the bytes of the bundle that it names."""

    plan: Plan
    bundle: bytes


def make_plan(folder: Path, stores: Stores) -> Planned:
    """Load and compile the project of a folder and plan what puts it in force.

    Raises:
        ProjectError: every mistake of the author.
        PlanRefused: applying it would break a promise.
    """
    loaded = load_project(folder)
    compiled = compile_project(loaded, namespace=stores.config.namespace)
    applied, _ = find_applied(stores.catalog)
    planned = plan(
        compiled.project,
        None if applied is None else applied.project,
        _state(stores, applied),
        bundle=loaded.bundle,
        applied_bundle="" if applied is None else applied.bundle,
        warnings=tuple(str(caution) for caution in compiled.warnings),
    )
    return Planned(planned, pack(folder))


def _state(stores: Stores, applied: Applied | None) -> PlanState:
    if applied is None:
        return PlanState()
    return PlanState(
        groups=tuple(group.hash for group in applied.groups),
        needed_groups=_needed_groups(stores, applied),
        handed_over=tuple(applied.handovers),
        # Not what lies in the lake: the plan must be the same after a crash between two of its tables.
        tables=tuple(author_columns(applied.project)),
    )


def _needed_groups(stores: Stores, applied: Applied) -> tuple[str, ...]:
    """Groups that the serving release of each decision, or the one it may be rolled back to, reads."""
    bundles = {
        event.bundle
        for decision in applied.project.decisions
        for event in champions(history(stores.catalog, decision))[-2:]
    }
    hashes = [
        group.hash
        for bundle in sorted(bundles)
        for group in state_groups(
            applied.project if bundle == applied.bundle else get_definitions(stores.catalog, bundle)
        )
    ]
    return tuple(dict.fromkeys(hashes))
