"""Killed anywhere and started again, the loop ends where an undisturbed run ends: rows, hashes, artifacts, releases."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.project.fuse import Spot, live
from tests.project.world import World, assert_sound, differences, items, write_project

ROOT = Path(__file__).parents[2]
PHASES = {"apply", "train", "release", "decide", "observe", "drain", "labels", "shadows", "retrain"}


@pytest.fixture(scope="module")
def processes() -> Any:
    """Makes processes that have imported everything already, so that a restart costs little."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.project.fuse", "lightgbm"])
        yield context


@pytest.fixture(scope="module")
def trace(ground) -> list[str]:
    """The labels of all effects of an undisturbed run, in order."""
    return live(write_project(ground / "traced"), items())


def spots(trace: list[str], labels: set[str], random: Random) -> list[Spot]:
    """One spot a label, at any of its effects, in the order of the trace; counted from the spot before."""
    chosen = sorted(
        random.choice([n for n, each in enumerate(trace) if each == label]) for label in sorted(labels)
    )
    return [
        Spot(trace[at], max(trace[before + 1 : at + 1].count(trace[at]), 1), random.random() < 0.5)
        for before, at in zip([-1, *chosen], chosen, strict=False)
    ]


def run_killed(folder: Path, places: list[Spot], processes: Any) -> list[Spot]:
    """Run a world, each process to the first spot that is left, the last to its end; returns where they died."""
    died, left = [], list(places)
    while True:
        process = processes.Process(target=live, args=(folder, items(), left))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), f"it failed where it went on, after {died[-1:]}"
        if process.exitcode == 0:
            return died
        label = (folder.parent / "died").read_text()
        died += [spot for spot in left if spot.label == label]
        left = [spot for spot in left if spot.label != label]


def assert_as_undisturbed(folder: Path, finished: Path) -> None:
    with World(folder, items()) as one, World(finished, items()) as other:
        assert differences(one, other) == []
        one.clock.advance_to(one.script[-1].at)
        assert_sound(one)
        account = one.work.session.reconcile()
        assert account.is_exact
        assert account.total.pending == 0


def test_every_phase_has_effects_to_be_killed_at(trace):
    assert {label.partition("/")[0] for label in trace} >= PHASES
    assert len(set(trace)) >= 25


@pytest.mark.slow
def test_sixteen_kills_spread_over_the_loop_change_nothing_in_the_end(fresh, finished, trace, processes):
    random = Random(16)
    labels = {
        random.choice(sorted({each for each in trace if each.startswith(f"{phase}/")}))
        for phase in sorted(PHASES)
    }
    labels |= set(random.sample(sorted(set(trace) - labels), 16 - len(labels) + 3))
    died = run_killed(write_project(fresh / "killed"), spots(trace, labels, random), processes)
    assert len(died) >= 15
    assert len({spot.label.partition("/")[0] for spot in died}) >= 7
    assert_as_undisturbed(fresh / "killed", finished)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_every_kind_of_write_changes_nothing_in_the_end(fresh, finished, trace, processes, seed):
    folder = write_project(fresh / "killed")
    died = run_killed(folder, spots(trace, set(trace), Random(seed)), processes)
    assert len(died) >= 0.8 * len(set(trace))
    assert_as_undisturbed(folder, finished)


@pytest.mark.slow
def test_kills_in_the_middle_of_anything_change_nothing_in_the_end(fresh, finished, processes):
    folder, random = write_project(fresh / "killed"), Random(9)
    n_kills = 0
    while True:
        process = processes.Process(target=live, args=(folder, items()))
        process.start()
        # The longer it takes, the longer a process may live, so that a slow machine comes to an end too.
        process.join(0.4 + random.random() * (0.5 + 0.05 * n_kills))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        n_kills += 1
        time.sleep(0)
    assert process.exitcode == 0
    assert n_kills >= 5
    assert_as_undisturbed(folder, finished)
