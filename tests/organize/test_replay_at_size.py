"""Promise 3 at size: many events, some late, some corrected, through the online engine; sampled reads recomputed offline.

100,000 events by default; VOLANO_REPLAY_EVENTS=1000000 is the proof of record.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest

from tests.collect.world import ASK, SERVICE, START, World, sale
from tests.organize.histories import decide, online_features, point_in_time
from tests.organize.test_backfill import backfill_of, rebuild_into
from volano.organize.audit import audit
from volano.records.journal import Operation
from volano.runtime.scratch import FileScratch
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.values.instants import HOUR_US, MINUTE_US, SECOND_US

N_EVENTS = int(os.environ.get("VOLANO_REPLAY_EVENTS", "100000"))
N_SHOPS, N_CARDS = 300, 3_000
BATCH, LATE, CORRECTED, RETRACTED, REPEATED = 500, 0.05, 0.01, 0.002, 0.005
EVERY_EVENT_US = 10 * SECOND_US


def values(random: Random) -> dict[str, Any]:
    """A sale of any shop, half of them of a tenth of the shops; some columns null."""
    shop = random.randrange(N_SHOPS if random.random() < 0.5 else N_SHOPS // 10)
    return {
        "shop": f"shop {shop}" if random.random() < 0.99 else None,
        "card": random.randrange(N_CARDS) if random.random() < 0.98 else None,
        "amount": round(random.lognormvariate(3, 2), 2) if random.random() < 0.97 else None,
        "pieces": random.randrange(1, 9),
        "kind": random.choice((None, "food", "tools", "ünï")),
        "till": random.randrange(3),
    }


def push(world: World, random: Random, first: int, n: int) -> dict[str, int]:
    """A batch of the stream; says how many were late, corrected, retracted and repeated."""
    now = world.clock.now()
    counts = dict.fromkeys(("late", "corrected", "retracted", "repeated"), 0)
    events = []
    for number in range(first, first + n):
        at = now - random.randrange(BATCH * EVERY_EVENT_US)
        if random.random() < LATE:
            counts["late"] += 1
            # Most of them inside what the source accepts, some beyond.
            at -= random.randrange(MINUTE_US, 3 * HOUR_US)
        events.append(sale(f"s{number}", at // SECOND_US * SECOND_US, **values(random)))
    repeated = [event for event in events if random.random() < REPEATED]
    counts["repeated"] = len(repeated)
    world.door.accept("sales", events + repeated, sync=False)
    for name, share, operation in (
        ("corrected", CORRECTED, Operation.CORRECT),
        ("retracted", RETRACTED, Operation.RETRACT),
    ):
        ids = {
            random.randrange(max(0, first - 5_000), first + n) for _ in range(n) if random.random() < share
        }
        changed = [
            sale(f"s{number}", now - random.randrange(HOUR_US), **values(random)) for number in sorted(ids)
        ]
        counts[name] = len(changed)
        if changed:
            revision = random.randrange(1, 4)
            world.door.accept("sales", changed, operation=operation, revision=revision, sync=False)
    return counts


def draw_request(random: Random, i: int) -> dict[str, Any]:
    known = values(random)
    return {"sale_id": f"s{i}", "shop": known["shop"], "card": known["card"], "asked_for": random.random()}


@pytest.mark.slow
def test_sampled_reads_of_a_long_disturbed_stream_are_recomputed_to_the_bit(tmp_path):
    random = Random(20)
    counts = dict.fromkeys(("late", "corrected", "retracted", "repeated"), 0)
    with World(tmp_path) as world, FileScratch(tmp_path / "scratch") as scratch:
        online = online_features(world)
        for i, first in enumerate(range(0, N_EVENTS, BATCH)):
            world.clock.advance_to(START + (first + BATCH) * EVERY_EVENT_US)
            n = min(BATCH, N_EVENTS - first)
            for name, count in push(world, random, first, n).items():
                counts[name] += count
            for k in range(10):
                world.applier.step(random.choice((40, 60)))
                decide(world, online, SERVICE, draw_request(random, first), f"d{i}-{k}")
            while world.applier.step():
                pass
            if i % 50 == 0:
                world.committer.step()
                world.applier.prune(world.clock.now())
        while world.applier.step():
            pass
        world.committer.step()

        # Rows beyond a tenth of the stream are put aside by parts of keys: the engine's path for a large past.
        work = point_in_time(world, scratch=scratch, rows_at_once=max(N_EVENTS // 10, 1_000))
        report = audit(world.lake.read("decision_get_risk"), SERVICE, ASK, work)
        print(f"{N_EVENTS} events, {counts}: {report.checked} reads, {report.mismatched} differ")  # noqa: T201
        assert report.checked == 10 * -(-N_EVENTS // BATCH)
        assert report.differences == ()
        assert counts["late"] > 0.04 * N_EVENTS
        assert counts["corrected"] > 0.008 * N_EVENTS

        # The online store is a cache: one that is built again from the lake gives the same bits of answer.
        fresh = LmdbOnlineStore(tmp_path / "fresh", map_size=1 << 31)
        rebuild_into(
            fresh, world, backfill_of(world, rows_at_once=max(N_EVENTS // 5, 1_000), scratch=scratch)
        )
        rebuilt = online_features(world, online=fresh)
        now = world.clock.now()
        for i in range(2_000):
            asked = draw_request(random, i)
            (slots, _), (again, _) = online.read(asked, now), rebuilt.read(asked, now)
            assert repr(online.served(slots)) == repr(rebuilt.served(again))
        fresh.close()
