"""The online store is a cache: lost, half filled or mixed up, it is rebuilt and answers the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.project.conftest import HALF
from tests.project.world import DECISION, World, differences, items
from volano.runtime.applied import get_applied
from volano.runtime.config import read_config
from volano.runtime.stores import Stores

FURTHER = 120


def go_on(folder: Path) -> Path:
    """Some more items; returns the folder."""
    with World(folder, items()) as world:
        world.run(HALF + FURTHER)
        world.project.drain(commit=True)
    return folder


@pytest.fixture(scope="module")
def undisturbed(ground, unfinished):
    folder = ground / "undisturbed"
    shutil.copytree(unfinished, folder)
    return go_on(folder)


def assert_same(folder: Path, other: Path) -> None:
    with World(folder, items()) as one, World(other, items()) as another:
        assert differences(one, another) == []


def test_a_deleted_store_is_rebuilt_and_answers_the_same_bits(copy, unfinished, undisturbed):
    folder = copy(unfinished)
    shutil.rmtree(folder / ".volano" / "online")
    assert_same(go_on(folder), undisturbed)


def test_a_store_lost_with_events_waiting_in_the_journal_is_rebuilt_before_they_are_applied(
    copy, unfinished, undisturbed
):
    folder = copy(unfinished)
    with World(folder, items()) as world:
        world.resume()
        world.push(HALF)  # journaled, not applied
    shutil.rmtree(folder / ".volano" / "online")
    assert_same(go_on(folder), undisturbed)


def test_a_store_lost_with_batches_not_committed_is_rebuilt(copy, unfinished, undisturbed):
    folder = copy(unfinished)
    with World(folder, items()) as world:
        world.run(HALF + 7)  # applied; the next commit would come later
    shutil.rmtree(folder / ".volano" / "online")
    assert_same(go_on(folder), undisturbed)


class CutShort(Stores):
    """Stores whose online store fails after so many writes, as if the process had been killed there."""

    def __init__(self, folder, n_writes: int) -> None:
        super().__init__(folder, read_config(folder))
        self._left = n_writes

    def online(self, state):
        store = super().online(state)
        write = type(store).write

        def until_cut(*arguments: Any, **named: Any) -> None:
            if self._left == 0:
                raise KeyboardInterrupt
            self._left -= 1
            write(store, *arguments, **named)

        store.write = until_cut
        return store


@pytest.mark.parametrize("n_writes", [1, 5, 20, 40])
def test_a_rebuild_that_was_cut_short_is_repeated(copy, unfinished, undisturbed, n_writes):
    folder = copy(unfinished)
    shutil.rmtree(folder / ".volano" / "online")
    with (
        World(folder, items(), stores=lambda where: CutShort(where, n_writes)) as world,
        pytest.raises(KeyboardInterrupt),
    ):
        world.resume()
    assert_same(go_on(folder), undisturbed)


def test_a_store_that_a_loss_of_power_may_have_mixed_up_is_rebuilt_once(copy, unfinished, undisturbed):
    folder = copy(unfinished)
    (state,) = (folder / ".volano" / "online").iterdir()
    (state / "unsynced").write_text("another boot")
    assert_same(go_on(folder), undisturbed)
    with World(folder, items()) as world:
        online = world.work.stores.online(get_applied(world.work.stores.catalog).state)
        assert not online.needs_rebuild


def test_rebuilt_features_are_those_of_the_store_that_saw_every_event(copy, unfinished):
    one, other = copy(unfinished), copy(unfinished)
    shutil.rmtree(other / ".volano" / "online")
    answers = []
    for folder in (one, other):
        with World(folder, items()) as world:
            world.clock.advance_to(world.script[HALF].at)
            made = [
                world.project.decide(DECISION, {**item.body, "tailnum": f"N{n:02}"})
                for n, item in enumerate(item for item in world.script[:100] if item.target == DECISION)
            ]
            answers.append([(each.features, each.score, each.action, each.features_as_of) for each in made])
    assert answers[0] == answers[1]
