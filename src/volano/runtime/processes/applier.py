"""The applier as a process: applies the journal until it is told to stop, then what is left of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Event
from typing import Final

from volano.collect.applier import Applier
from volano.errors import StoreBusyError
from volano.kernels.compiled import warm
from volano.runtime.processes.beats import Beat, Beats
from volano.runtime.processes.collector import settle
from volano.runtime.session import Session

_REST_S: Final = 0.003
"""How long it rests when the journal is empty: the most that a fact waits to be seen."""
_BEAT_US: Final = 200_000
_PATIENCE_S: Final = 90.0
"""How long it waits at its start for another process to let go: a worker sees that it is wanted within a second, and
ends the job under way first."""
_LOOK_EVERY_S: Final = 0.1


def run_applier(session: Session, stop: Event, ready: Callable[[], None]) -> None:
    """Apply until `stop` is set and the journal is empty.

    Args:
        session: holds the apply log's lock and the online store's from here on.
        ready: called once online state is whole.
    """
    warm()  # the first event must not wait for a compiler
    applier = _open(session, stop)
    beats = Beats(session.stores.data)
    clock = session.clock
    beaten_at = noted_at = 0
    noted_every_us = session.stores.config.commit_every_us
    applied = True

    def beat() -> None:
        last = session.stores.apply_log.last()
        beats.write(
            Beat(
                "applier",
                os.getpid(),
                clock.now(),
                behind_bytes=applier.behind(),
                stamp=applier.last_stamp,
                sequence=0 if last is None else last.sequence,
            )
        )

    beat()
    settle()
    ready()
    while True:
        now = clock.elapsed_ns() // 1_000
        if now - beaten_at >= _BEAT_US:
            if not applied:
                applier.beat()
            beat()
            beaten_at = now
            asked = beats.take_prune_request()
            if asked is not None:
                beats.answer_prune(asked, applier.prune(asked))
        if now - noted_at >= noted_every_us:
            session.note_failing()
            noted_at = now
        applied = applier.step() > 0
        if applied:
            continue
        if stop.is_set():
            session.note_failing()
            beat()
            return
        stop.wait(_REST_S)


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
