"""Pruning and compaction of online state change no answer."""

from __future__ import annotations

from random import Random

import pytest

from tests.collect.world import SERVICE, START, World, sale
from tests.organize.histories import draw_request, live, online_features
from volano.plan.definitions import CompiledService
from volano.records.journal import Operation
from volano.values.instants import DAY_US, HOUR_US


def answers(
    world: World, asked: list[dict[str, object]], at: int, service: CompiledService = SERVICE
) -> list[list[object]]:
    online = online_features(world, service)
    found = []
    for request in asked:
        slots, _ = online.read(request, at)
        found.append([repr(value) for value in slots])
    return found


@pytest.mark.parametrize("seed", range(3))
def test_pruning_changes_no_answer(tmp_path, monkeypatch, seed):
    with World(tmp_path) as world:
        monkeypatch.setattr(world.applier, "prune", lambda now: 0)
        live(world, Random(seed), 120)
        monkeypatch.undo()
        now = world.clock.now()
        asked = [draw_request(Random(n), f"s{n}") for n in range(40)]
        for later in (now, now + HOUR_US, now + 2 * DAY_US, now + 5 * DAY_US):
            before = answers(world, asked, later), answers(world, asked, later + DAY_US)
            world.applier.prune(later, chunks_at_once=1)
            assert (answers(world, asked, later), answers(world, asked, later + DAY_US)) == before
        far = now + 400 * DAY_US
        monkeypatch.setattr("volano.kernels.sealed.FEWEST_ROWS", 1)
        before = answers(world, asked, far)
        assert world.applier.prune(far) > 0
        assert answers(world, asked, far) == before, "what a lifetime window needs is sealed, not gone"


def test_a_pruned_event_is_still_known_and_can_be_corrected(tmp_path):
    with World(tmp_path) as world:
        world.door.accept("sales", [sale("a", START)])
        world.applier.step()
        world.applier.prune(START + 10 * DAY_US)
        world.door.accept("sales", [sale("a", START)])
        world.door.accept("sales", [sale("a", START, amount=7.0)], operation=Operation.CORRECT, revision=1)
        world.applier.step()
        fates = [applied.status for batch in world.apply_log.read(1, limit=9) for applied in batch.applied]
        assert fates == ["duplicate", "stored"]
        slots, _ = online_features(world).read(draw_request(Random(0), "b") | {"card": 1}, START + HOUR_US)
        assert 7.0 in slots
