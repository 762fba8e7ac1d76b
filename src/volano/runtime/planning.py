"""From the author's files and what is in force to a plan. Reads; changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from volano.compile.planner import author_columns, plan
from volano.compile.project import compile_project
from volano.compile.state import state_groups
from volano.decide.newer_requests import lacking_fields
from volano.learn.train import get_version
from volano.plan.definitions import CompiledProject
from volano.plan.plan import Plan, PlanState
from volano.runtime.applied import Applied, find_applied
from volano.runtime.binding import reads_same_inputs, serving_projects
from volano.runtime.definitions import Definitions
from volano.runtime.loader import load_project, pack
from volano.runtime.serving import find_release
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
        warnings=(
            *(str(caution) for caution in compiled.warnings),
            *(() if applied is None else _unanswered(stores, applied, compiled.project)),
        ),
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


def _unanswered(stores: Stores, applied: Applied, project: CompiledProject) -> list[str]:
    """Requests of the new definitions that the release in force could not answer, and the mend."""
    definitions, found = Definitions(stores, applied), []
    for name, decision in project.decisions.items():
        release = find_release(stores.catalog, name)
        if release is None:
            continue
        served = definitions.get(release.bundle)
        if name not in served.decisions or reads_same_inputs(
            project, name, get_version(stores.catalog, release.champion)
        ):
            continue  # it will serve by the new definitions
        asked = served.requests[served.decisions[name].request]
        lacking = lacking_fields(asked, project.requests[decision.request])
        if lacking:
            names = ", ".join(repr(field) for field in lacking)
            found.append(
                f"Decision {name}: {release.champion}, which serves, asks for the request field {names}, and these "
                f"definitions do not. The fallback will answer requests without it, and no version of the new fields "
                f"can be compared with it, so none can be released.\nMend: keep it beside the new field, which may be "
                f"null, until a version that reads the new one is released; then remove it."
            )
    return found


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
