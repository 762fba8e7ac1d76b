"""The applier's process: it prunes between batches, and waits for the process that commits."""

from __future__ import annotations

import os
from threading import Event, Thread
from types import SimpleNamespace

import pytest

from volano.errors import StoreBusyError
from volano.runtime.processes import applier as process
from volano.runtime.processes.beats import Beat, Beats


class Committer:
    """A committer in this process that counts its steps."""

    def __init__(self) -> None:
        self.n_steps = 0

    def step(self) -> int:
        self.n_steps += 1
        return 0


def waiting(tmp_path, *, may_be_starting: bool):
    committer, beats = Committer(), Beats(tmp_path)
    found = process._Committer(SimpleNamespace(committer=committer), beats)  # type: ignore[arg-type]
    found.may_be_starting = may_be_starting
    return found, committer, beats


def test_what_is_in_the_lake_is_not_waited_for(tmp_path):
    found, committer, beats = waiting(tmp_path, may_be_starting=True)
    beats.write(Beat("committer", os.getpid(), 0, sequence=7))
    found.wait_for(7)
    assert committer.n_steps == 0


def test_where_nobody_commits_yet_the_applier_does(tmp_path):
    """At a start after a kill: the committer comes up only when the applier is ready."""
    found, committer, beats = waiting(tmp_path, may_be_starting=False)
    found.wait_for(7)
    beats.write(Beat("committer", 2**22 + 5, 0, sequence=3))
    found.wait_for(7)
    assert committer.n_steps == 2


def test_a_committer_that_works_is_asked_and_waited_for(tmp_path):
    found, committer, beats = waiting(tmp_path, may_be_starting=True)
    stop = Event()

    def commit() -> None:
        while not stop.is_set():
            if beats.take_commit_request():
                beats.write(Beat("committer", os.getpid(), 0, sequence=9))
            stop.wait(0.01)

    thread = Thread(target=commit)
    thread.start()
    found.wait_for(8)
    stop.set()
    thread.join()
    assert committer.n_steps == 0


def test_a_committer_that_hangs_is_an_error_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_PATIENCE_S", 0.0)
    found, committer, _ = waiting(tmp_path, may_be_starting=True)
    with pytest.raises(StoreBusyError, match="sequence 8"):
        found.wait_for(8)
    assert committer.n_steps == 0


def test_a_prune_goes_on_where_it_was_until_it_is_answered(tmp_path, monkeypatch):
    """It is asked for until then, several times a second."""
    monkeypatch.setattr(process, "applied_revision", lambda _catalog: 0)
    beats = Beats(tmp_path)
    begun = []

    class Applier:
        def pruning(self, now, *, chunks_at_once):
            begun.append(now)
            return iter([2, 0, 3])

    work = object.__new__(process._Work)
    work._catalog, work._revision = None, 0  # type: ignore[assignment]
    work._left, work._beats, work._pruning, work._applier = None, beats, None, Applier()  # type: ignore[assignment]
    beats.ask_prune(5)
    for _ in range(4):
        work._look()
        assert work._pruning is not None
        work._prune_on(work._pruning)
    assert beats.pruned(5) == 5
    assert begun == [5]
    work._look()
    assert work._pruning is None
