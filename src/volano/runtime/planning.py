"""From the author's files and what is in force to a plan. Reads; changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from volano.compile.planner import author_columns, plan
from volano.compile.project import compile_project
from volano.compile.state import state_groups
from volano.plan.definitions import CompiledProject
from volano.plan.plan import Plan, PlanState
from volano.runtime.applied import Applied, find_applied
from volano.runtime.binding import serving_projects
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


def make_state_plan(stores: Stores, applied: Applied, target: CompiledProject) -> Plan:
    """What it takes to keep the state that other definitions read too, beside all that is kept; empty if it is."""
    state = _state(stores, applied)
    hashes = [group.hash for group in state_groups(target)]
    return plan(
        applied.project,
        applied.project,
        msgspec.structs.replace(
            state,
            needed=(*state.needed, target),
            needed_groups=tuple(dict.fromkeys([*state.needed_groups, *hashes])),
        ),
        bundle=applied.bundle,
        applied_bundle=applied.bundle,
    )


def _state(stores: Stores, applied: Applied | None) -> PlanState:
    if applied is None:
        return PlanState()
    needed = [project for _, project in serving_projects(stores.catalog, applied)]
    return PlanState(
        groups=tuple(group.hash for group in applied.groups),
        needed_groups=tuple(
            dict.fromkeys(group.hash for project in needed for group in state_groups(project))
        ),
        needed=tuple(needed),
        handed_over=tuple(applied.handovers),
        # Not what lies in the lake: the plan must be the same after a crash between two of its tables.
        tables=tuple(author_columns(applied.project)),
    )
