"""What a worker works with under one set of definitions: a door, a decider, releases that follow the ledger.

Never changes its definitions: when others are put in force, another desk is made and takes its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from volano.collect.door import Door
from volano.decide.decider import Decider
from volano.decide.elsewhere import ElsewhereReader
from volano.errors import problem_of
from volano.protocols.clock import Clock
from volano.protocols.journal import JournalWriter
from volano.records.journal import DecisionMade
from volano.records.learning import ReleaseEvent
from volano.runtime.answers import Answers
from volano.runtime.applied import Applied
from volano.runtime.bundle_shelf import BundleShelf
from volano.runtime.definitions import Definitions
from volano.runtime.logged import find_logged
from volano.runtime.serving import ServingLoader, find_release
from volano.runtime.stores import Stores

FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0
"""What cannot be loaded is tried again after a second, two, four, at most a minute."""


class Trouble:
    """A release that cannot be loaded: why, and when it is tried again."""

    def __init__(self, release_id: str, problem: str, pause_s: float) -> None:
        self.release_id = release_id
        self.problem = problem
        self.pause_s = pause_s
        self._again_at = time.monotonic() + pause_s

    def is_over(self) -> bool:
        """Whether it is time to try again."""
        return time.monotonic() >= self._again_at


class Desk:
    """Everything that requests need under one set of definitions.

    Args:
        stores: open online state for reading.
        applied: what is in force, and its `revision`.
        observed, decided: the journal segments of the worker.
        answers: of the desk before, so that what was answered just now is known; a new one when None.
        shelf, loader: of the desk before: models and code that are loaded already are not loaded again.
    """

    def __init__(
        self,
        stores: Stores,
        applied: Applied,
        revision: int,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        observed: JournalWriter,
        decided: JournalWriter,
        before: Desk | None = None,
    ) -> None:
        self.applied = applied
        self.revision = revision
        self._stores = stores
        self._clock = clock
        self._entropy = entropy
        online = stores.online(applied.state)  # first: from here on it may go, and is still read
        self._definitions = Definitions(stores, applied)
        self._shelf: BundleShelf = BundleShelf(stores.artifacts) if before is None else before._shelf
        self._loader = ServingLoader(stores, applied, self._shelf, self._definitions)
        if before is not None:
            self._loader.take_models(before._loader)
        project = applied.project
        self.door = Door(
            project, observed, clock, entropy, future_tolerance_us=stores.config.future_tolerance_us
        )
        self._log = Door(project, decided, clock, entropy)
        find_in_lake = self._find_in_lake
        if before is None:
            self.answers = Answers(
                project.namespace, online, stores.journal_reader, find_in_lake, waits_for_lake=False
            )
        else:
            self.answers = before.answers
            self.answers.read_from(online, find_in_lake)
        self._elsewhere: dict[str, ElsewhereReader] = {}
        self._served: dict[str, str] = {}
        self._troubles: dict[str, Trouble] = {}
        self.decider = Decider(
            [],
            clock=clock,
            stopwatch=clock.elapsed_ns,
            entropy=lambda: entropy(8),
            log=self._remember,
            find=self.answers.find,
        )
        for name in project.decisions:
            self._begin(name, find_release(stores.catalog, name))

    def reader_of(self, name: str) -> ElsewhereReader:
        """What reads decisions of a name that were made elsewhere."""
        reader = self._elsewhere.get(name)
        if reader is None:
            reader = self._elsewhere[name] = ElsewhereReader(
                self.applied.project,
                name,
                bundle=self.applied.bundle,
                future_tolerance_us=self._stores.config.future_tolerance_us,
            )
        return reader

    def heads(self) -> dict[str, ReleaseEvent | None]:
        """What the ledger says of every decision now."""
        return {name: find_release(self._stores.catalog, name) for name in self.applied.project.decisions}

    def follow(self, heads: dict[str, ReleaseEvent | None]) -> list[str]:
        """Put in force what is new; what cannot be loaded changes nothing, and is tried again after a pause.

        Returns:
            Why, a line for each decision that goes on with what it had.
        """
        for name, release in heads.items():
            trouble = self._troubles.get(name)
            wanted = "" if release is None else release.release_id
            if trouble is not None and trouble.release_id == wanted and not trouble.is_over():
                continue
            if trouble is None and wanted == self._served[name]:
                continue
            try:
                serving = self._loader.prepare(name, release)
            except Exception as error:  # whatever it is, what serves goes on, and the other decisions too
                pause_s = FIRST_RETRY_S
                if trouble is not None and trouble.release_id == wanted:
                    pause_s = min(trouble.pause_s * 2, LAST_RETRY_S)
                self._troubles[name] = Trouble(wanted, self._say(name, wanted, error), pause_s)
                continue
            self.decider.serve(serving)
            self._served[name] = wanted
            self._troubles.pop(name, None)
        return list(self.problems().values())

    def problems(self) -> dict[str, str]:
        """Why decisions go on with what they had, by decision."""
        return {name: trouble.problem for name, trouble in self._troubles.items()}

    def _begin(self, name: str, release: ReleaseEvent | None) -> None:
        """Serve a decision from the beginning: by its release, or by its fallback until that can be loaded."""
        self._served[name] = ""
        wanted = "" if release is None else release.release_id
        try:
            serving = self._loader.prepare(name, release)
            self._served[name] = wanted
        except Exception as error:  # one decision that cannot be served must not take the others down
            serving = self._loader.fall_back(name, release, problem_of(error))
            self._troubles[name] = Trouble(wanted, self._say(name, wanted, error), FIRST_RETRY_S)
        self.decider.serve(serving)

    def _say(self, name: str, wanted: str, error: Exception) -> str:
        what = f"release {wanted} of {name}" if wanted else f"decision {name}"
        return f"{what}, which goes on with {self._served[name] or 'its fallback'}: {problem_of(error)}"

    def _find_in_lake(self, decision: str, decision_id: str) -> DecisionMade | None:
        return find_logged(self._stores.lake, self._definitions, decision, decision_id)

    def _remember(self, made: DecisionMade) -> None:
        self.answers.remember(made, self._log.log([made])[0])
