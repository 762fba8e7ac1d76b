"""What an HTTP worker works with: a door and a decider of its own, releases that follow the ledger, the lag.

Reads online state beside the applier and appends to journal segments of its own, so workers share nothing but files.
Observations and decisions go to different segments: a decision does not wait for an observation's fsync.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

from volano.collect.door import Door
from volano.decide.decider import Decider
from volano.errors import problem_of
from volano.kernels.compiled import warm
from volano.protocols.clock import Clock
from volano.protocols.journal import JournalWriter
from volano.records.journal import DecisionMade, encode_record
from volano.records.receipt import Receipt
from volano.runtime.applied import Applied, applied_revision, find_applied, get_applied
from volano.runtime.config import read_config
from volano.runtime.processes.beats import Beat, Beats
from volano.runtime.processes.desk import FIRST_RETRY_S, LAST_RETRY_S, Desk
from volano.runtime.processes.fates import Fates
from volano.runtime.receipts import find_receipt
from volano.runtime.stores import Stores

_LOOK_EVERY_S: Final = 0.2
_LEAVING_S: Final = 30.0


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
        get_applied(self.stores.catalog)
        self.observed: JournalWriter = self.stores.journal_writer(f"{name}_observed")
        self.decided: JournalWriter = self.stores.journal_writer(f"{name}_decided")
        self.beats = Beats(self.stores.data)
        self._behind_bytes = 0
        self._accepted_since = 0
        self._asking = Lock()
        self._left: list[tuple[str, float]] = []
        self._take_over_at = self._pause_s = 0.0
        self._problem = ""

    @cached_property
    def _desk(self) -> Desk:
        return self._make_desk(None)

    @property
    def applied(self) -> Applied:
        """What is in force here."""
        return self._desk.applied

    @property
    def door(self) -> Door:
        return self._desk.door

    @property
    def decider(self) -> Decider:
        return self._desk.decider

    def warm_up(self) -> None:
        """Load and verify everything that a request needs."""
        warm()
        self._beat(self._desk)  # loads and verifies the models, compiles the schemas

    def decide(
        self, name: str, request: Mapping[str, Any] | bytes, *, decision_id: str | None = None
    ) -> DecisionMade:
        """Decide now, logged; see `Decider.decide`."""
        return self.decider.decide(name, request, decision_id=decision_id)

    def log_elsewhere(self, name: str, logged: bytes) -> tuple[str, bytes]:
        """The id of a decision made elsewhere, and the record to journal; see `ElsewhereReader.read`."""
        made = self._desk.reader_of(name).read(logged, now=self._clock.now())
        return made.decision_id, encode_record(made)

    @cached_property
    def fates(self) -> Fates:
        """For the one thread that follows how records end."""
        return Fates(self.stores.journal_reader, self.stores.new_apply_log_reader(), self._visible)

    def _visible(self) -> int:
        with self.stores.online(self.applied.state).snapshot() as snapshot:
            return snapshot.sequence

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

    def recall(self, name: str, decision_id: str) -> None:
        """Read the answer to an id that `decide` could not wait for (`InLakeError`); then decide again."""
        self._desk.answers.fetch(name, decision_id)

    def watch(self, stop: Event, say: Callable[[str], None], also: Callable[[], None]) -> None:
        """Follow the ledger and the applier until `stop` is set; runs in a thread of its own.

        A release, or other definitions, are in force within a fraction of a second, for the requests that begin after
        it. What cannot be loaded leaves in force what was; `say` hears why, once.

        Args:
            also: called at every look.
        """
        beaten_at = 0
        said: set[str] = set()
        while not stop.wait(_LOOK_EVERY_S):
            applier = self.beats.read("applier")
            if applier is not None and applier.at != beaten_at:
                beaten_at, self._behind_bytes, self._accepted_since = applier.at, applier.behind_bytes, 0
            try:
                also()
                problems = self.follow(applier)
            except Exception as error:  # whatever went wrong, the next look may find it mended
                problems = [problem_of(error)]
            for problem in problems:
                if problem not in said:
                    say(f"what changed could not be put in force: {problem}")
            said = set(problems)

    def follow(self, applier: Beat | None) -> list[str]:
        """Put in force what is new since the last look; what cannot be loaded changes nothing.

        Args:
            applier: its newest beat. Definitions are followed once it applies by them: what comes in under new ones
                must not be applied by old ones.

        Returns:
            Why, a line for each decision that goes on with what it had.
        """
        desk = self._desk
        # First the releases: one that needs other definitions is written after those are in force.
        heads = desk.heads()
        if applied_revision(self.stores.catalog) == desk.revision:
            problems = desk.follow(heads)
        elif applier is not None and applier.revision > desk.revision:
            desk, problems = self._take_over(desk)
        else:
            problems = []
        self._beat(desk)
        self._let_go()
        return problems

    def _take_over(self, before: Desk) -> tuple[Desk, list[str]]:
        """Put the definitions in force here; where that fails, go on, and try again after a pause."""
        now = time.monotonic()
        if now < self._take_over_at:
            return before, [self._problem]
        try:
            desk = self._make_desk(before)
            problems = desk.follow(desk.heads())
        except Exception as error:
            self._pause_s = min(max(self._pause_s * 2, FIRST_RETRY_S), LAST_RETRY_S)
            self._take_over_at = now + self._pause_s
            self._problem = f"the definitions in force: {problem_of(error)}"
            return before, [self._problem]
        self._left.append((before.applied.state, now))
        self.__dict__["_desk"] = desk
        self._pause_s = 0.0
        return desk, problems

    def _make_desk(self, before: Desk | None) -> Desk:
        """A desk over what is in force, all of it loaded."""
        while True:
            applied, revision = find_applied(self.stores.catalog)
            assert applied is not None
            desk = Desk(
                self.stores,
                applied,
                revision,
                self._clock,
                self._entropy,
                observed=self.observed,
                decided=self.decided,
                before=before,
            )
            # What was in force when it was opened may be removed by now, and its place be empty.
            if before is not None or applied_revision(self.stores.catalog) == revision:
                return desk

    def _beat(self, desk: Desk) -> None:
        self.beats.write(
            Beat(self.name, os.getpid(), self._clock.now(), revision=desk.revision, problems=desk.problems())
        )

    def _let_go(self) -> None:
        """Close the state that was left; a moment later, for requests that began before read it still."""
        while self._left and time.monotonic() - self._left[0][1] > _LEAVING_S:
            state, _ = self._left.pop(0)
            if state != self.applied.state and state not in [left for left, _ in self._left]:
                self.stores.take_online(state).close()

    def close(self) -> None:
        """Sync and release everything."""
        self.stores.close()


def random_bytes(n: int) -> bytes:
    """So many bytes of the system's entropy."""
    return os.urandom(n)
