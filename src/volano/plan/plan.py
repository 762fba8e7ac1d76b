"""A plan: what changes, what follows, and the steps that carry it out, in order."""

from __future__ import annotations

import msgspec

from volano.plan.definitions import CompiledProject
from volano.plan.diff import Change
from volano.plan.evolution import Evolution, SchemaChange
from volano.plan.impact import Impact
from volano.plan.state import StateGroup
from volano.plan.steps import Step
from volano.values.identities import content_hash


class PlanState(msgspec.Struct, frozen=True):
    """What the planner must know of the world beside the applied definitions.

    Args:
        groups: hashes of the state groups that are built and receive events.
        needed_groups: of those, the ones that a serving release, or the one it may be rolled back to, reads.
        needed: the definitions of those releases.
        handed_over: sources whose hand-over is pinned.
        tables: lake tables that exist.
        events_per_key_day: measured events a key and day, by source.
    """

    groups: tuple[str, ...] = ()
    needed_groups: tuple[str, ...] = ()
    needed: tuple[CompiledProject, ...] = ()
    handed_over: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    events_per_key_day: dict[str, float] = {}


class Plan(msgspec.Struct, frozen=True):
    """Compiled work as data, complete in itself.

    Args:
        project: what will be in force.
        bundle: digest of its sources.
        based_on: hash of the definitions it was made against; empty before the first apply. Apply refuses
            when others are in force.
        groups: the state groups of `project`, and those that it builds for a release of another bundle.
        changes: against the applied definitions.
        steps: in the order of execution.
        warnings: what the author should think about.
        evolution: what changes for producers of events.
    """

    project: CompiledProject
    bundle: str
    based_on: str
    groups: tuple[StateGroup, ...]
    changes: tuple[Change, ...]
    impact: Impact
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    evolution: tuple[SchemaChange, ...] = ()

    @property
    def id(self) -> str:
        """The same for the same plan, in every process: under it apply notes which steps are done."""
        return content_hash([self.project, self.bundle, self.based_on, self.steps])[:16]

    @property
    def breaks(self) -> tuple[SchemaChange, ...]:
        """The changes by which events that producers send today would be set aside."""
        return tuple(change for change in self.evolution if change.evolution is Evolution.BREAKING)

    @property
    def is_empty(self) -> bool:
        """Whether what is in force is already what is declared."""
        return not self.steps
