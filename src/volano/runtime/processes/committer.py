"""The committer as a process: writes the lake every so often, when it is asked, and once more at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Event
from typing import Final

from volano.runtime.processes.beats import Beat, Beats
from volano.runtime.processes.collector import settle
from volano.runtime.processes.disk import DiskTrouble
from volano.runtime.session import Session

_REST_S: Final = 0.05


def run_committer(
    session: Session,
    stop: Event,
    ready: Callable[[], None],
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Commit until `stop` is set, then what is left.

    Args:
        session: its apply log is read, never written.
        ready: called before the first commit.
        say: hears of a disk that takes nothing, once, and when that is over.
    """
    committer = session.committer
    beats = Beats(session.stores.data)
    clock = session.clock
    every_us = session.stores.config.commit_every_us

    def commit() -> None:
        last = session.stores.apply_log_reader.last()
        committer.step()
        beats.write(
            Beat("committer", os.getpid(), clock.now(), sequence=0 if last is None else last.sequence)
        )

    settle()
    ready()
    disk = DiskTrouble("committer", stop, say)
    while not disk.tried(commit):
        pass
    committed_at = clock.elapsed_ns() // 1_000
    while True:
        stopping = stop.is_set()
        now = clock.elapsed_ns() // 1_000
        if stopping or beats.take_commit_request() or now - committed_at >= every_us:
            while not disk.tried(commit):
                pass
            committed_at = now
        if stopping:
            return
        stop.wait(_REST_S)
