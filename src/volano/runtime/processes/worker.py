"""What an HTTP worker works with: a door and a decider of its own, releases that follow the ledger, the lag.

Reads online state beside the applier and appends to journal segments of its own, so workers share nothing but files.
Observations and decisions go to different segments: a decision does not wait for an observation's fsync.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

from volano.collect.door import Door
from volano.decide.decider import Decider
from volano.decide.elsewhere import ElsewhereReader
from volano.errors import problem_of
from volano.kernels.compiled import warm
from volano.protocols.clock import Clock
from volano.protocols.journal import JournalWriter
from volano.records.journal import DecisionMade, encode_record
from volano.records.receipt import Receipt
from volano.runtime.answers import Answers
from volano.runtime.applied import get_applied
from volano.runtime.bundle_shelf import BundleShelf
from volano.runtime.config import read_config
from volano.runtime.definitions import Definitions
from volano.runtime.logged import find_logged
from volano.runtime.processes.beats import Beats
from volano.runtime.processes.fates import Fates
from volano.runtime.receipts import find_receipt
from volano.runtime.serving import ServingLoader, find_release
from volano.runtime.stores import Stores

_LOOK_EVERY_S: Final = 0.2


class Worker:
    """One worker process's share of a project.

    Args:
        name: of its journal segments; no two workers share one.
        entropy: so many random bytes, for ids.
    """

    def __init__(self, folder: Path, name: str, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self.name = name
        self._clock = clock
        self._entropy = entropy
        self.stores = Stores(folder, read_config(folder), reads_online=True)
        self.applied = get_applied(self.stores.catalog)
        self.observed: JournalWriter = self.stores.journal_writer(f"{name}_observed")
        self.decided: JournalWriter = self.stores.journal_writer(f"{name}_decided")
        self.beats = Beats(self.stores.data)
        self._definitions = Definitions(self.stores, self.applied)
        self._loader = ServingLoader(
            self.stores, self.applied, BundleShelf(self.stores.artifacts), self._definitions
        )
        self._served = {name: self._release_id(name) for name in self.applied.project.decisions}
        self._behind_bytes = 0
        self._accepted_since = 0
        self._asking = Lock()
        self._elsewhere: dict[str, ElsewhereReader] = {}

    @cached_property
    def door(self) -> Door:
        return Door(
            self.applied.project,
            self.observed,
            self._clock,
            self._entropy,
            future_tolerance_us=self.stores.config.future_tolerance_us,
        )

    @cached_property
    def _log(self) -> Door:
        return Door(self.applied.project, self.decided, self._clock, self._entropy)

    @cached_property
    def decider(self) -> Decider:
        answers = Answers(
            self.applied.project.namespace,
            self.stores.online(self.applied.state),
            self.stores.journal_reader,
            lambda decision, decision_id: find_logged(
                self.stores.lake, self._definitions, decision, decision_id
            ),
        )

        def log(made: DecisionMade) -> None:
            answers.remember(made, self._log.log([made])[0])

        return Decider(
            [self._loader.load(name) for name in self.applied.project.decisions],
            clock=self._clock,
            stopwatch=self._clock.elapsed_ns,
            entropy=lambda: self._entropy(8),
            log=log,
            find=answers.find,
        )

    def warm_up(self) -> None:
        """Load and verify everything that a request needs."""
        warm()
        self.decider  # noqa: B018 - loads and verifies the models
        self.door  # noqa: B018 - compiles the schemas

    def decide(
        self, name: str, request: Mapping[str, Any] | bytes, *, decision_id: str | None = None
    ) -> DecisionMade:
        """Decide now, logged; see `Decider.decide`."""
        return self.decider.decide(name, request, decision_id=decision_id)

    def log_elsewhere(self, name: str, logged: bytes) -> tuple[str, bytes]:
        """The id of a decision made elsewhere, and the record to journal; see `ElsewhereReader.read`."""
        reader = self._elsewhere.get(name)
        if reader is None:
            reader = self._elsewhere[name] = ElsewhereReader(
                self.applied.project,
                name,
                bundle=self.applied.bundle,
                future_tolerance_us=self.stores.config.future_tolerance_us,
            )
        made = reader.read(logged, now=self._clock.now())
        return made.decision_id, encode_record(made)

    @cached_property
    def fates(self) -> Fates:
        """For the one thread that follows how records end."""
        return Fates(self.stores.journal_reader, self.stores.new_apply_log_reader())

    def receipt(self, receipt_id: str) -> Receipt:
        """How an accepted event ended, as far as it has. Reads the lake: not for the hot path."""
        with self._asking:  # the log's reader belongs to one thread at a time
            return find_receipt(self.stores, self.stores.apply_log_reader, self._clock, receipt_id)

    def accepted(self, n_bytes: int) -> None:
        """Note what was added to the journal since the applier's last beat."""
        self._accepted_since += n_bytes

    @property
    def behind_bytes(self) -> int:
        """How much of the journal waits for the applier, about: its last word and what was accepted here since."""
        return self._behind_bytes + self._accepted_since

    def watch(self, stop: Event, say: Callable[[str], None], also: Callable[[], None]) -> None:
        """Follow the ledger and the applier until `stop` is set; runs in a thread of its own.

        A release is in force within a fraction of a second, for the requests that begin after it. One that cannot
        be loaded leaves in force what was; `say` hears why, once.

        Args:
            also: called at every look.
        """
        beaten_at = 0
        said: set[str] = set()
        while not stop.wait(_LOOK_EVERY_S):
            try:
                beat = self.beats.read("applier")
                if beat is not None and beat.at != beaten_at:
                    beaten_at, self._behind_bytes, self._accepted_since = beat.at, beat.behind_bytes, 0
                also()
                problems = self.follow_releases()
            except Exception as error:  # whatever went wrong, the next look may find it mended
                problems = [str(error)]
            for problem in problems:
                if problem not in said:
                    say(f"what changed could not be put in force: {problem}")
            said = set(problems)

    def follow_releases(self) -> list[str]:
        """Put in force what the ledger says since the last look; what cannot be loaded changes nothing.

        Returns:
            Why, a line for each decision that goes on with what it had.
        """
        problems = []
        for decision, served in self._served.items():
            release = find_release(self.stores.catalog, decision)
            if release is None or release.release_id == served:
                continue
            try:
                serving = self._loader.prepare(decision, release)
            except Exception as error:  # whatever it is, what serves goes on, and the other decisions too
                problems.append(
                    f"release {release.release_id} of {decision}, "
                    f"which goes on with {served or 'its fallback'}: {problem_of(error)}"
                )
                continue
            self.decider.serve(serving)
            self._served[decision] = release.release_id
        return problems

    def close(self) -> None:
        """Sync and release everything."""
        self.stores.close()

    def _release_id(self, decision: str) -> str:
        release = find_release(self.stores.catalog, decision)
        return "" if release is None else release.release_id


def random_bytes(n: int) -> bytes:
    """So many bytes of the system's entropy."""
    return os.urandom(n)
