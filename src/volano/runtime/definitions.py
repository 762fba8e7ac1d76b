"""The definitions of every bundle that was applied here, and the facts as each of them reads.

A decision is committed, audited, explained and labelled with the definitions that made it, whatever was applied since
(`docs/decisions/0032-old-bundles.md`).
"""

from __future__ import annotations

from functools import cached_property

from volano.collect.tables import decision_table
from volano.compile.state import reading_also
from volano.organize.facts import Facts
from volano.plan.definitions import CompiledProject
from volano.runtime.applied import Applied, all_bundles, get_definitions
from volano.runtime.binding import needed_projects
from volano.runtime.stores import Stores


class Definitions:
    """Definitions by bundle, each decoded once.

    Args:
        applied: what is in force.
    """

    def __init__(self, stores: Stores, applied: Applied) -> None:
        self._stores = stores
        self._applied = applied
        self._projects = {applied.bundle: applied.project}
        self._facts: dict[str, Facts] = {}

    def get(self, bundle: str) -> CompiledProject:
        """The definitions of a bundle.

        Raises:
            UnknownNameError: it was never applied here.
        """
        if bundle not in self._projects:
            self._projects[bundle] = get_definitions(self._stores.catalog, bundle)
        return self._projects[bundle]

    def facts(self, bundle: str) -> Facts:
        """The facts as the definitions of a bundle read them: its sources, columns and rules of time."""
        if bundle not in self._facts:
            project, applied = self.get(bundle), self._applied
            if bundle != applied.bundle and project.sources == applied.project.sources:
                return self.facts(applied.bundle)
            self._facts[bundle] = Facts(project, self._stores.lake, self._stores.sql, applied.handovers)
        return self._facts[bundle]

    def needed(self) -> list[tuple[str, CompiledProject]]:
        """(bundle, definitions) of every bundle that serves or may serve again; the applied one first."""
        return needed_projects(self._stores.catalog, self._applied)

    @cached_property
    def of_state(self) -> CompiledProject:
        """What online state is kept by: the applied definitions, reading also what `needed` ones read."""
        return reading_also(self._applied.project, [project for _, project in self.needed()])

    def of_events(self, bundle: str) -> CompiledProject:
        """What events were applied by while a bundle was in force: its definitions, reading also what is needed now."""
        return (
            self.of_state
            if bundle == self._applied.bundle
            else reading_also(self.get(bundle), [self.of_state])
        )

    def decisions(self) -> list[str]:
        """Every decision with a table in the lake: those declared first, then those that are declared no more."""
        lake = self._stores.lake
        return [name for name in self._declared if lake.version(decision_table(name)) is not None]

    @cached_property
    def bundles(self) -> tuple[str, ...]:
        """Every bundle that was ever applied here, the one in force included."""
        return tuple(all_bundles(self._stores.catalog))

    @cached_property
    def _declared(self) -> tuple[str, ...]:
        names = dict.fromkeys(self._applied.project.decisions)
        for bundle in self.bundles:
            names |= dict.fromkeys(self.get(bundle).decisions)
        return tuple(names)
