"""A job that fails stops nothing else, is shown wherever one looks, and is forgotten once it succeeds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.project.conftest import HALF
from tests.project.world import MODEL, World, assert_sound, differences, items, learnt, tables
from volano.cli.main import app
from volano.errors import CorruptionError
from volano.runtime.labelling import update_labels
from volano.values.instants import DAY_US, HOUR_US, floor_to

RULE = "the newest run of every job did not fail"


@pytest.fixture
def world(copy, unfinished) -> Iterator[World]:
    with World(copy(unfinished), items()) as opened:
        opened.resume()
        yield opened


def statuses(world: World) -> dict[str, tuple[str, int]]:
    return {each.job: (each.outcome, each.attempts) for each in world.project.jobs()}


def test_a_retraining_that_fails_stops_neither_labels_nor_decisions_and_is_shown(world, monkeypatch):
    def fails(*arguments: object, **named: object) -> None:
        raise CorruptionError("The disk forgot.", where="artifacts/12", mend="restore it")

    labels_before = len(tables(world)["label"])
    n_sets = len(learnt(world)["sets"])
    with monkeypatch.context() as patch:
        patch.setattr(type(world.work.learner), "train", fails)
        number = HALF
        while statuses(world)[f"retrain/{MODEL}"][0] != "failed":
            world.push(number)
            world.settle(number)
            number += 1
        world.run(number + 150, start=number)
        number += 150
        outcome, attempts = statuses(world)[f"retrain/{MODEL}"]
        assert outcome == "failed"
        assert attempts > 3
        assert statuses(world)["labels"] == ("done", 1)
        assert len(tables(world)["label"]) > labels_before
        assert world.project.status().jobs == tuple(world.project.jobs())
        broken = {each.rule: each.detail for each in world.project.check() if not each.sound}
        assert set(broken) == {RULE}
        assert f"retrain/{MODEL} failed {attempts} times, [corruption] The disk forgot." in broken[RULE]
        assert "mend:  restore it" in broken[RULE]
        world.project.drain(commit=True)

        beside = [
            CliRunner().invoke(app, [verb, "-C", str(world.folder), *more])
            for verb, *more in (["jobs"], ["status"], ["jobs", "--json"])
        ]
        assert [each.exit_code for each in beside] == [0, 0, 0], [each.output for each in beside]
        for shown in (beside[0].stdout, beside[1].stdout):
            assert "corruption: The disk forgot. (artifacts/12)" in shown
            assert "restore it" in shown
        found = {each["job"]: each for each in json.loads(beside[2].stdout)}
        assert found[f"retrain/{MODEL}"]["outcome"] == "failed"
        assert found["labels"]["outcome"] == "done"

    assert len(learnt(world)["sets"]) == n_sets
    world.clock.advance_to(world.clock.now() + HOUR_US)
    assert [(run.job, run.outcome) for run in world.project.run_due() if "retrain" in run.job] == [
        (f"retrain/{MODEL}", "done")
    ]
    assert len(learnt(world)["sets"]) == n_sets + 2
    assert_sound(world)


class EverySecondTime:
    """Labels whose every other update fails."""

    def __init__(self) -> None:
        self.n_calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> int:
        self.n_calls += 1
        if self.n_calls % 2:
            raise CorruptionError("The disk forgot.", where="lake", mend="restore it")
        return update_labels(*arguments, **named)


def test_labels_that_failed_and_were_repeated_are_those_that_did_not_fail(copy, unfinished):
    folders = [copy(unfinished), copy(unfinished)]
    for folder, update in zip(folders, (EverySecondTime(), update_labels), strict=True):
        with World(folder, items()) as world, pytest.MonkeyPatch.context() as patch:
            patch.setattr("volano.runtime.recurring.update_labels", update)
            world.run(HALF + 100)
            world.clock.advance_to(world.clock.now() + HOUR_US)
            world.project.run_due()
            world.project.drain(commit=True)
            assert_sound(world)
            assert not isinstance(update, EverySecondTime) or update.n_calls >= 2
    with World(folders[0], items()) as one, World(folders[1], items()) as other:
        assert differences(one, other) == []


def forgets(*arguments: object, **named: object) -> int:
    raise CorruptionError("The disk forgot.", where="lake", mend="restore it")


@pytest.mark.parametrize("fails_first", [False, True], ids=["due", "failed and due again"])
def test_a_training_by_hand_takes_no_row_from_the_retraining_that_is_due(copy, unfinished, fails_first):
    frozen = []
    for by_hand in (False, True):
        with World(copy(unfinished), items()) as world:
            number = world.resume()
            cutoff = floor_to(world.clock.now(), 7 * DAY_US) + 7 * DAY_US
            while world.script[number].at < cutoff + 10 * HOUR_US:
                world.push(number)
                number += 1
            if by_hand and fails_first:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("volano.runtime.recurring.update_labels", forgets)
                    failed = [run.job for run in world.project.run_due() if run.outcome == "failed"]
                assert f"retrain/{MODEL}" in failed
            if by_hand:
                world.project.train(MODEL)
            world.clock.advance_to(world.clock.now() + HOUR_US)
            runs = [run for run in world.project.run_due() if run.job == f"retrain/{MODEL}"]
            assert [(run.outcome, run.scheduled_at) for run in runs] == [("done", cutoff)]
            sets = learnt(world)["sets"].values()
            frozen.append({made.name: made for made in sets if made.label_cutoff == cutoff})
            assert_sound(world)
    assert frozen[0] == frozen[1]
    assert [made.n_rows > 40 for made in frozen[0].values()] == [True, True]
