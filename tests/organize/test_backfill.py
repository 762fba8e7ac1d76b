"""Promise 6: online state rebuilt from the lake is the state that the applier wrote."""

from __future__ import annotations

from random import Random

import pytest

from tests.collect.world import START, World, sale
from tests.organize.histories import live
from volano.organize.backfill import Backfill, rebuild
from volano.organize.facts import Facts
from volano.plan.state_index import INDEX_PREFIX, decode_known
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.values.instants import DAY_US, HOUR_US


def backfill_of(world: World) -> Backfill:
    facts = Facts(world.project, world.lake, world.sql, {})
    return Backfill(world.project, world.groups, facts, world.sql, world.functions)


def state(online: LmdbOnlineStore) -> dict[bytes, object]:
    """Every key with its value; of index entries the meaning, since the order inside them does not matter."""
    found: dict[bytes, object] = {}
    with online.snapshot() as snapshot:
        found[b"position"] = (snapshot.stamp, snapshot.sequence)
        for key, value in snapshot.scan(b"", b"\xff" * 40):
            if key.startswith(INDEX_PREFIX):
                known = decode_known(value)
                found[key] = (known.hashes, known.standing, known.event_time, sorted(known.places))
            else:
                found[key] = value
    return found


@pytest.mark.parametrize("seed", range(4))
def test_rebuilt_state_is_the_applied_state_byte_for_byte(tmp_path, monkeypatch, seed):
    with World(tmp_path) as world:
        monkeypatch.setattr(world.applier, "prune", lambda now: 0)
        live(world, Random(seed), 200)
        before = state(world.online)
        fresh = LmdbOnlineStore(tmp_path / "fresh", map_size=1 << 28)
        with world.online.snapshot() as snapshot:
            stamp, sequence = snapshot.stamp, snapshot.sequence
        last = world.apply_log.last()
        assert last is not None
        rebuild(
            fresh,
            backfill_of(world),
            world.project,
            world.groups,
            world.lake,
            stamp=stamp,
            sequence=sequence,
            cursor={segment: end for segment, _, end in last.ranges},
        )
        assert state(fresh) == before
        fresh.close()


def test_the_applier_goes_on_after_a_rebuild_as_if_nothing_had_happened(tmp_path):
    with World(tmp_path) as world:
        live(world, Random(8), 80)
        last = world.apply_log.last()
        assert last is not None
        backfill, project, groups, lake = backfill_of(world), world.project, world.groups, world.lake
        cursor = {segment: end for segment, _, end in last.ranges}
        world.close()
        (tmp_path / "online").rename(tmp_path / "lost")
        fresh = LmdbOnlineStore(tmp_path / "online", map_size=1 << 28)
        rebuild(
            fresh,
            backfill,
            project,
            groups,
            lake,
            stamp=last.last_stamp,
            sequence=last.sequence,
            cursor=cursor,
        )
        fresh.close()
    with World(tmp_path, clock=world.clock) as again:
        assert again.applier.recover() == 0
        again.door.accept("sales", [sale("s0", START, amount=-1.0), sale("new", again.clock.now())])
        again.applier.step()
        newest = again.apply_log.last()
        assert newest is not None
        assert [applied.status for applied in newest.applied] == ["conflict", "stored"]


def test_a_backfill_resumes_after_the_parts_that_were_written(tmp_path):
    with World(tmp_path) as world:
        live(world, Random(9), 120)
        backfill = backfill_of(world)
        for group in world.groups:
            whole = list(backfill.chunks(group, n_parts=5))
            assert [(part.done, part.total) for part in whole] == [(n, 5) for n in range(1, 6)]
            assert list(backfill.chunks(group, n_parts=5, after=3)) == whole[3:]
            keys = [key for part in whole for key in part.puts]
            assert len(keys) == len(set(keys))


def test_rows_that_no_window_reaches_are_left_out(tmp_path):
    with World(tmp_path) as world:
        world.door.accept("sales", [sale("old", START)])
        world.applier.step()
        world.clock.advance_to(START + 4 * DAY_US)
        world.door.accept("sales", [sale("new", START + 4 * DAY_US)])
        world.applier.step()
        world.committer.step()
        shop = next(group for group in world.groups if group.entity == "shop")
        rows = [
            sum(part.n_rows for part in backfill_of(world).chunks(shop, now=now))
            for now in (None, world.clock.now())
        ]
        assert rows == [2, 1]
        late = sum(part.n_rows for part in backfill_of(world).chunks(shop, now=START + 2 * DAY_US + HOUR_US))
        assert late == 2
