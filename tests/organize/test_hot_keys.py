"""Hot chunks change no answer of a whole world: pushed, corrected, retracted, pruned, rebuilt."""

from __future__ import annotations

from random import Random

import pytest

from tests.collect.world import World
from tests.organize.histories import draw_request, live
from tests.organize.test_retention import answers
from volano.kernels import tiles
from volano.kernels.tiles import is_head
from volano.values.instants import DAY_US, HOUR_US


@pytest.mark.parametrize("seed", range(3))
def test_hot_chunks_answer_as_plain_ones(tmp_path, monkeypatch, seed):
    found = []
    for hot_rows, block_rows in ((10**6, 512), (4, 2), (1, 1)):
        monkeypatch.setattr(tiles, "HOT_ROWS", hot_rows)
        monkeypatch.setattr(tiles, "BLOCK_ROWS", block_rows)
        with World(tmp_path / str(hot_rows)) as world:
            live(world, Random(seed), 120)
            now = world.clock.now()
            asked = [draw_request(Random(n), f"s{n}") for n in range(40)]
            found.append([answers(world, asked, now + late) for late in (0, HOUR_US, 2 * DAY_US)])
            with world.online.snapshot() as snapshot:
                heads = sum(
                    is_head(value)
                    for group in world.applier._groups
                    for _, value in snapshot.scan(group.prefix, group.prefix + b"\xff" * 3)
                )
            assert (heads > 0) == (hot_rows < 10**6)
    assert found[0] == found[1] == found[2]
