"""How records ended is told to whoever waits once decisions see it, not before."""

from __future__ import annotations

from pathlib import Path

from tests.collect.world import World, sale
from volano.runtime.processes.fates import Fates


def test_a_fate_is_told_when_online_state_holds_it(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        visible = 0
        fates = Fates(world.reader, world.apply_log, lambda: visible)
        fates.skip()
        receipt = world.door.accept("sales", [sale("s-1", world.clock.now())])[0]
        world.applier.step()
        wanted = {receipt.receipt_id}
        assert fates.look(wanted) == {}  # logged, and online state not written yet
        visible = 1
        assert set(fates.look(wanted)) == wanted
        assert fates.look(wanted) == {}
