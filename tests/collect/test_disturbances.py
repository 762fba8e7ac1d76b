"""Power that fails, clocks that step, disks that are full: nothing accepted is lost, nothing is stamped twice."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.collect.world import START, World, sale
from volano.collect.door import Door
from volano.collect.receipts import reconcile
from volano.errors import StoreFullError, VolanoError
from volano.records.journal import decode_record
from volano.records.receipt import Applied
from volano.testing.disk import PowerLoss, SimulatedDisk
from volano.values.instants import HOUR_US, MINUTE_US


def fates(world: World) -> list[Applied]:
    return [applied for batch in world.apply_log.read(0, limit=100_000) for applied in batch.applied]


def accepted(world: World) -> list[str]:
    records = (decode_record(entry.record) for entry in world.reader.read({}, limit=100_000))
    return [record.receipt_id for record in records]  # type: ignore[union-attr]


def run_until_power_fails(
    folder: Path, disk: SimulatedDisk, random: Random, answered: list[str]
) -> list[Applied]:
    """Accept, apply and commit; the fates that were in the apply log when the power failed."""
    seen: list[Applied] = []
    world = None
    try:
        world = World(folder, disk=disk, seed=random.randrange(2**32))
        world.clock.advance_to(START + len(answered) * MINUTE_US)
        world.applier.recover()
        for _ in range(60):
            world.clock.advance_to(world.clock.now() + MINUTE_US)
            events = [
                sale(f"s{random.randrange(200)}", world.clock.now()) for _ in range(random.randrange(1, 4))
            ]
            answered += [receipt.receipt_id for receipt in world.door.accept("sales", events)]
            if random.random() < 0.7:
                world.applier.step()
                seen = fates(world)
            if random.random() < 0.1:
                world.committer.step()
    except PowerLoss:
        pass
    finally:
        if world is not None:
            world.online.close()
    return seen


@pytest.mark.parametrize("seed", range(8))
def test_what_was_answered_survives_a_loss_of_power_and_keeps_its_stamp(tmp_path, seed):
    random = Random(seed)
    disk = SimulatedDisk(crash_at=random.randrange(20, 200))
    answered: list[str] = []
    for _ in range(4):
        seen = run_until_power_fails(tmp_path, disk, random, answered)
        disk = disk.power_loss(random)
        with World(tmp_path, disk=disk) as world:
            world.clock.advance_to(START + 500 * MINUTE_US)
            assert set(answered) <= set(accepted(world))
            world.applier.recover()
            assert fates(world)[: len(seen)] == seen
            while world.applier.step():
                pass
            stamps = [applied.applied_at for applied in fates(world)]
            assert stamps == sorted(set(stamps))
            world.committer.step()
            account = reconcile(world.reader, world.apply_log, world.lake)
            assert account.is_exact
            assert account.total.pending == 0


class SteppingClock:
    """A clock whose reading is set by hand, backwards too."""

    def __init__(self, at: int) -> None:
        self.at = at

    def now(self) -> int:
        return self.at


def test_stamps_go_on_when_the_clock_steps_back_and_catch_up_when_it_steps_forward(tmp_path):
    clock = SteppingClock(START)
    with World(tmp_path, clock=clock) as world:  # type: ignore[arg-type]
        for at in (START, START - HOUR_US, START - HOUR_US + 1, START + HOUR_US):
            clock.at = at
            world.door.accept("sales", [sale(f"s{at}", START - HOUR_US)])
            world.applier.step()
        assert [applied.applied_at for applied in fates(world)] == [
            START,
            START + 1,
            START + 2,
            START + HOUR_US,
        ]
    clock.at = START
    with World(tmp_path, clock=clock) as again:  # type: ignore[arg-type]
        again.door.accept("sales", [sale("later", START)])
        again.applier.step()
        assert fates(again)[-1].applied_at == START + HOUR_US + 1


class FullJournal:
    """A journal whose disk is full."""

    def append(self, records, *, sync):
        raise StoreFullError("No space left.", mend="free space and call again")

    def close(self):
        pass


def test_a_full_disk_accepts_nothing_and_says_so(tmp_path):
    with World(tmp_path) as world:
        world.door.accept("sales", [sale("a", START)])
        full = Door(world.project, FullJournal(), world.clock, Random(0).randbytes)
        with pytest.raises(StoreFullError) as raised:
            full.accept("sales", [sale("b", START)])
        assert raised.value.retryable
        assert len(accepted(world)) == 1


@pytest.mark.parametrize("capacity", [3_000, 10_000])
def test_a_disk_that_fills_up_loses_nothing_that_was_answered(tmp_path, capacity):
    disk = SimulatedDisk(capacity=capacity)
    answered = []
    with World(tmp_path, disk=disk) as world:
        world.applier.recover()
        with pytest.raises(VolanoError) as raised:
            for n in range(1_000):
                (receipt,) = world.door.accept("sales", [sale(f"s{n}", START)])
                answered.append(receipt.receipt_id)
                world.applier.step()
        assert isinstance(raised.value, StoreFullError)
        assert set(answered) <= set(accepted(world))
        disk.capacity = None
        while world.applier.step():
            pass
        world.committer.step()
        account = reconcile(world.reader, world.apply_log, world.lake)
        assert account.is_exact
        assert account.total.pending == 0
