"""From the door to the lake on a disk that forgets what was not synced: acknowledged means stored, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import msgspec
import pytest

from tests.collect.world import START, World, sale
from volano.collect.door import Door
from volano.collect.receipts import reconcile
from volano.records.receipt import ReceiptStatus
from volano.server.group_commit import GroupCommit
from volano.server.problems import HttpError
from volano.stores.file_journal import FileJournalWriter
from volano.testing.disk import PowerLoss, SimulatedDisk
from volano.values.instants import MINUTE_US

N_SENDERS = 6


class Sender:
    """Sends batches of events, each until it is acknowledged, across restarts of what it sends to."""

    def __init__(self, name: int, random: Random) -> None:
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self._name = name
        self._random = random
        self._n = 0
        self._batch: list[str] = []

    async def send(self, door: Door, commit: GroupCommit) -> None:
        while True:
            if not self._batch:
                n = self._random.choice([1, 1, 2, 12])
                self._batch = [f"s{self._name}-{self._n + i}" for i in range(n)]
                self._n += n
                self.sent |= set(self._batch)
            events = [msgspec.json.encode(sale(each, START)) for each in self._batch]
            receipts, records = door.prepare("sales", events)
            assert {each.status for each in receipts} == {ReceiptStatus.PENDING}
            await commit.append(records)
            self.acknowledged |= set(self._batch)
            self._batch = []


async def serve_until_power_fails(
    world: World, disk: SimulatedDisk, senders: list[Sender], random: Random
) -> None:
    """Two workers with a group commit each, an applier and a committer; effects on the disk come one by one."""
    one_by_one = ThreadPoolExecutor(1)
    doors, commits = [], []
    for n in range(2):
        journal = FileJournalWriter(world.folder / "journal", f"worker_{n}", files=disk)
        doors.append(Door(world.project, journal, world.clock, Random(random.random()).randbytes))
        commits.append(GroupCommit(journal))
        commits[-1]._thread = one_by_one
    loop = asyncio.get_running_loop()

    async def apply() -> None:
        while True:
            world.clock.advance_to(world.clock.now() + MINUTE_US)
            await loop.run_in_executor(one_by_one, world.applier.step)
            if random.random() < 0.2:
                await loop.run_in_executor(one_by_one, world.committer.step)
            await asyncio.sleep(0)

    work = [apply(), *(sender.send(doors[n % 2], commits[n % 2]) for n, sender in enumerate(senders))]
    tasks = [asyncio.ensure_future(each) for each in work]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert done and all(isinstance(each, PowerLoss | asyncio.CancelledError) for each in found), found
    one_by_one.shutdown()


def restart(folder: Path, disk: SimulatedDisk) -> World:
    world = World(folder, disk=disk)
    world.clock.advance_to(START + 10_000 * MINUTE_US)
    world.applier.recover()
    return world


@pytest.mark.parametrize("seed", range(6))
def test_what_was_acknowledged_is_in_the_lake_once_however_often_the_power_fails(
    tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    senders = [Sender(n, Random(f"{seed} {n}")) for n in range(N_SENDERS)]
    disk = SimulatedDisk()
    for _ in range(5):
        disk.crash_at = random.randrange(15, 160)
        world = None
        try:
            world = restart(tmp_path, disk)
            asyncio.run(serve_until_power_fails(world, disk, senders, random))
        except PowerLoss:  # while it started
            pass
        finally:
            if world is not None:
                world.online.close()
        disk = disk.power_loss(random)
    with restart(tmp_path, disk) as world:
        while world.applier.step():
            pass
        world.committer.step()
        account = reconcile(world.reader, world.apply_log, world.lake)
        assert account.is_exact and account.total.pending == account.total.conflict == 0
        stored = Counter(world.lake.read("fact_sales", columns=["sale_id"])["sale_id"].to_pylist())
    acknowledged = set().union(*(sender.acknowledged for sender in senders))
    assert set(stored.values()) == {1}
    assert acknowledged <= set(stored) <= set().union(*(sender.sent for sender in senders))
    assert len(acknowledged) > 50


def test_what_does_not_fit_the_group_is_refused_and_nothing_of_it_kept(tmp_path: Path) -> None:
    async def work() -> None:
        commit = GroupCommit(world.journal, most_waiting_bytes=1_000)
        first = asyncio.ensure_future(commit.append([b"a" * 900]))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(commit.append([b"b" * 900]))
        third = asyncio.ensure_future(commit.append([b"c" * 900]))
        found = await asyncio.gather(first, second, third, return_exceptions=True)
        refused = [each for each in found if isinstance(each, HttpError)]
        assert refused and {(each.status, each.retry_after_s) for each in refused} == {(429, 1)}
        await commit.close()
        kept = [entry.record[:1] for entry in world.reader.read({}, limit=10)]
        assert len(kept) == 3 - len(refused)

    with World(tmp_path) as world:
        asyncio.run(work())
