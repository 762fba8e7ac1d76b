"""The applier as a process: applies the journal until it is told to stop, then what is left of it.

When other definitions are put in force it takes their state over: it follows the apply log to its end there, then
applies by the new definitions. The state before goes on following until every worker has left it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event, Thread
from typing import Final

from volano.collect.applier import Applier
from volano.errors import StoreBusyError
from volano.kernels.compiled import warm
from volano.runtime.applied import Applied, applied_revision, find_applied
from volano.runtime.processes.beats import Beat, Beats
from volano.runtime.processes.collector import settle
from volano.runtime.processes.disk import DiskTrouble
from volano.runtime.session import Session
from volano.values.instants import SECOND_US, Instant

_REST_S: Final = 0.003
"""How long it rests when nothing waits."""
_LONGEST_REST_S: Final = 0.01
"""How long it rests at most when little waits: the most that a fact waits for its turn."""
_FULL_TURN: Final = 1_000
"""So many records make a turn worth its fsyncs. After fewer it rests twice as long as they took: what comes meanwhile
shares the next turn, and those who accept have the machine."""
_BEAT_US: Final = 200_000
_PATIENCE_S: Final = 90.0
"""How long it waits at its start for another process to let go: a worker sees that it is wanted within a second, and
ends the job under way first."""
_LOOK_EVERY_S: Final = 0.1
_PRUNED_AT_ONCE: Final = 20
"""Chunks looked at between two batches: some ten milliseconds."""
_GONE_US: Final = 3 * SECOND_US
"""A worker that says nothing for so long is down; when it is back it begins with what is in force."""
_LEAVING_US: Final = 60 * SECOND_US
"""So long a state is kept up for workers that go on with it: what they could not load they may never load."""

Open = Callable[[Applied], Session]


def run_applier(
    session: Session,
    open_session: Open,
    stop: Event,
    ready: Callable[[], None],
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Apply until `stop` is set and the journal is empty.

    Args:
        session: over what was in force; holds the apply log's lock and the online store's from here on.
        open_session: a session over what is in force later, with the same stores.
        ready: called once online state is whole.
        say: hears of a disk that takes nothing, once, and when that is over.
    """
    warm()  # the first event must not wait for a compiler
    work = _Work(session, open_session, stop)
    work.beat()
    settle()
    work.committer_may_start()
    ready()
    disk = DiskTrouble("applier", stop, say)
    while True:
        began_ns = session.clock.elapsed_ns()
        if not disk.tried(work.turn) or work.n_applied >= _FULL_TURN:
            continue
        if stop.is_set() and not work.n_applied:
            work.session.note_failing()
            work.beat()
            return
        took_s = (session.clock.elapsed_ns() - began_ns) / 1e9
        stop.wait(min(max(2 * took_s, _REST_S), _LONGEST_REST_S))


class _Work:
    """What is applied to, and by which definitions: the ones in force, and those that some worker still serves by."""

    def __init__(self, session: Session, open_session: Open, stop: Event) -> None:
        self.session = session
        self._open_session = open_session
        self._catalog = session.stores.catalog
        self._beats = Beats(session.stores.data)
        self._committer = _Committer(session, self._beats)
        session.commit_through = self._committer.wait_for
        self._pruning: _Pruning | None = None
        self._revision = _revision_of(session)
        self._applier = _open(session, stop)
        self._left: Applier | None = None
        self._left_state = ""
        self._left_at = 0
        self._noted_every_us = session.stores.config.commit_every_us
        self._looked_at = self._noted_at = 0
        self.n_applied = 1
        """How many records the last turn found to apply."""

    def turn(self) -> None:
        """Apply what waits, and now and then see to the rest."""
        now = self.session.clock.elapsed_ns() // 1_000
        if now - self._looked_at >= _BEAT_US:
            self._look()
            if not self.n_applied:
                self._say_visible()
            self.beat()
            self._looked_at = now
        if now - self._noted_at >= self._noted_every_us:
            self.session.note_failing()
            self.session.stores.online(self.session.applied.state).check_readers()
            self._noted_at = now
        self.n_applied = 1  # a step that fails leaves the process not at rest
        self.n_applied = self._applier.step()
        if self.n_applied and self._left is not None:
            self._left.recover()
        if self._pruning is not None:
            self._prune_on(self._pruning)

    def committer_may_start(self) -> None:
        """From now on another process commits, even when it has said nothing yet."""
        self._committer.may_be_starting = True

    def _prune_on(self, pruning: _Pruning) -> None:
        """A little between batches: facts do not wait for it."""
        n_chunks = next(pruning.parts, None)
        if n_chunks is None:
            self._beats.answer_prune(pruning.at, pruning.n_chunks)
            self._pruning = None
            return
        pruning.n_chunks += n_chunks

    def _look(self) -> None:
        """Do what others ask for: put new definitions in force, leave old state, prune."""
        if applied_revision(self._catalog) != self._revision:
            self._take_over()
        if self._left is not None and self._is_left():
            self._drop()
        asked = self._beats.take_prune_request()
        if asked is not None and (self._pruning is None or self._pruning.at != asked):
            # It is asked for until it is answered.
            self._pruning = _Pruning(asked, self._applier.pruning(asked, chunks_at_once=_PRUNED_AT_ONCE))

    def _say_visible(self) -> None:
        """At rest: everything accepted is visible."""
        stamp = self._applier.beat()
        if self._left is not None:
            self._left.beat(stamp)

    def beat(self) -> None:
        """Say how far it is."""
        applier, stores = self._applier, self.session.stores
        last = stores.apply_log.last()
        self._beats.write(
            Beat(
                "applier",
                os.getpid(),
                self.session.clock.now(),
                behind_bytes=applier.behind(),
                stamp=applier.last_stamp,
                sequence=0 if last is None else last.sequence,
                revision=self._revision,
            )
        )

    def _take_over(self) -> None:
        """Go on with what is in force now: its state follows the log to the end, then this process applies by it."""
        applied, revision = find_applied(self._catalog)
        assert applied is not None
        self.session.note_failing()
        if self._left is not None:
            self._drop()
        before = self.session
        session = self._open_session(applied)
        session.commit_through = self._committer.wait_for
        applier = session.applier
        if self._pruning is not None:
            self._pruning = _Pruning(
                self._pruning.at, applier.pruning(self._pruning.at, chunks_at_once=_PRUNED_AT_ONCE)
            )
        # From here on this is done, whatever the disk refuses: it must not be done to what took over.
        left, self.session, self._applier, self._revision = self._applier, session, applier, revision
        if applied.state != before.applied.state:
            self._left, self._left_state = left, before.applied.state
            self._left_at = before.clock.elapsed_ns() // 1_000
            left.recover()

    def _is_left(self) -> bool:
        """Whether no worker that lives serves by the state before any more."""
        now = self.session.clock.now()
        waited_us = self.session.clock.elapsed_ns() // 1_000 - self._left_at
        behind = [
            beat
            for beat in self._beats.all()
            if beat.role.startswith("worker") and beat.revision < self._revision and now - beat.at < _GONE_US
        ]
        return waited_us > _LEAVING_US or (waited_us > _BEAT_US and not behind)

    def _drop(self) -> None:
        """Remove the state before. Aside: to close it writes what the disk has not seen, which may take a while."""
        stores, state = self.session.stores, self._left_state
        store = stores.take_online(state)

        def remove() -> None:
            store.close()
            shutil.rmtree(stores.data / "online" / state, ignore_errors=True)

        self._left = None
        Thread(target=remove, name="remove").start()


@dataclass(slots=True)
class _Pruning:
    """A prune under way: for which instant, what is left of it, and how many chunks it changed."""

    at: Instant
    parts: Iterator[int]
    n_chunks: int = 0


class _Committer:
    """The process that commits, to the one that has to wait for it: a row that changed is sealed, and the lake knows
    what else its key has."""

    def __init__(self, session: Session, beats: Beats) -> None:
        self._session = session
        self._beats = beats
        self.may_be_starting = False
        """Whether one may commit that has said nothing yet: it starts once the applier is ready."""

    def wait_for(self, sequence: int) -> None:
        """Return when what was applied up to a sequence is in the lake.

        Raises:
            StoreBusyError: nothing was committed for too long; the batch that waits is applied at the next start.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while (beat := self._beats.read("committer")) is None or beat.sequence < sequence:
            if not self.may_be_starting and (beat is None or not _is_alive(beat.pid)):
                self._session.committer.step()
                return
            if time.monotonic() > deadline:
                raise StoreBusyError(
                    f"The committer did not reach sequence {sequence} within {_PATIENCE_S:.0f} s.",
                    where="committer",
                    mend="see what it says in the server's log",
                )
            self._beats.ask_commit()
            time.sleep(_LOOK_EVERY_S)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _revision_of(session: Session) -> int:
    """The revision of what a session was opened over; 0 when it was replaced meanwhile: it is looked at again."""
    applied, revision = find_applied(session.stores.catalog)
    return revision if applied == session.applied else 0


def _open(session: Session, stop: Event) -> Applier:
    """The applier, once whoever works alone in the folder has let go of its locks."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return session.applier
        except StoreBusyError:
            if stop.is_set() or time.monotonic() > deadline:
                raise
            stop.wait(_LOOK_EVERY_S)
