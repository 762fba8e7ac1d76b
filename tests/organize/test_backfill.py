"""Promise 6: online state rebuilt from the lake is the state that the applier wrote."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.collect.world import SALE, START, World, project, sale
from tests.organize.histories import live
from volano.organize.backfill import Backfill, rebuild, write_parts
from volano.organize.facts import Facts
from volano.plan.state_index import DECISION_PREFIX, INDEX_PREFIX, decode_known, decode_known_decision
from volano.records.handover import HandOver
from volano.runtime.scratch import FileScratch
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.values.arrow import ARROW_TYPES
from volano.values.instants import DAY_US, HOUR_US


def backfill_of(world: World, scratch: FileScratch | None = None, rows_at_once: int = 7) -> Backfill:
    """With scratch space the rows are read so many at a time."""
    facts = Facts(world.project, world.lake, world.sql, {})
    return Backfill(
        world.project,
        world.groups,
        facts,
        world.sql,
        world.functions,
        scratch=scratch,
        rows_at_once=rows_at_once,
    )


def rebuild_into(online: LmdbOnlineStore, world: World, backfill: Backfill) -> None:
    """Fill a store with all that the world has applied."""
    last = world.apply_log.last()
    assert last is not None
    rebuild(
        online,
        backfill,
        world.project,
        world.groups,
        world.lake,
        stamp=last.last_stamp,
        sequence=last.sequence,
        cursor={segment: end for segment, _, end in last.ranges},
    )


def state(online: LmdbOnlineStore) -> dict[bytes, object]:
    """Every key with its value; of index entries the meaning, since the order inside them does not matter."""
    found: dict[bytes, object] = {}
    with online.snapshot() as snapshot:
        found[b"position"] = (snapshot.stamp, snapshot.sequence)
        for key, value in snapshot.scan(b"", b"\xff" * 40):
            if key.startswith(INDEX_PREFIX):
                known = decode_known(value)
                found[key] = (known.hashes, known.standing, known.event_time, sorted(known.places))
            elif key.startswith(DECISION_PREFIX):
                asked = decode_known_decision(
                    value
                )  # what is filled from the lake has no place in the journal
                found[key] = (asked.request, asked.answers, asked.next_attempt)
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


@pytest.mark.parametrize("seed", range(3))
def test_rows_read_in_ranges_and_put_aside_give_the_same_state(tmp_path, monkeypatch, seed):
    with World(tmp_path) as world, FileScratch(tmp_path / "scratch") as scratch:
        monkeypatch.setattr(world.applier, "prune", lambda now: 0)
        live(world, Random(seed), 150)
        fresh = LmdbOnlineStore(tmp_path / "fresh", map_size=1 << 28)
        rebuild_into(fresh, world, backfill_of(world, scratch))
        assert state(fresh) == state(world.online)
        assert not list((tmp_path / "scratch").glob("*/*.arrow"))
        fresh.close()


class Killed(Exception):
    """What ends a fill in the middle."""


class Mortal:
    """A store whose process dies after some writes."""

    def __init__(self, online: LmdbOnlineStore, n_writes: int) -> None:
        self._online = online
        self.n_writes = n_writes

    def __getattr__(self, name: str) -> object:
        return getattr(self._online, name)

    def write(self, *arguments, **named) -> None:
        if self.n_writes == 0:
            raise Killed
        self.n_writes -= 1
        self._online.write(*arguments, **named)


@pytest.mark.parametrize("n_writes", [0, 1, 5, 17, 40])
def test_a_fill_that_was_killed_goes_on_behind_its_last_part(tmp_path, monkeypatch, n_writes):
    with World(tmp_path) as world, FileScratch(tmp_path / "scratch") as scratch:
        monkeypatch.setattr(world.applier, "prune", lambda now: 0)
        live(world, Random(11), 120)
        fresh = LmdbOnlineStore(tmp_path / "fresh", map_size=1 << 28)
        with pytest.raises(Killed):
            rebuild_into(Mortal(fresh, n_writes), world, backfill_of(world, scratch))
        again = Mortal(fresh, 10_000)
        rebuild_into(again, world, backfill_of(world, scratch))
        whole = Mortal(LmdbOnlineStore(tmp_path / "whole", map_size=1 << 28), 10_000)
        rebuild_into(whole, world, backfill_of(world, scratch))
        assert 10_000 - again.n_writes == 10_000 - whole.n_writes - n_writes, "no part was written twice"
        assert state(fresh) == state(world.online)
        whole.close()
        fresh.close()


def test_a_fill_as_of_another_stamp_starts_anew(tmp_path):
    with World(tmp_path) as world:
        live(world, Random(12), 60)
        group, backfill = world.groups[0], backfill_of(world)
        fresh = LmdbOnlineStore(tmp_path / "fresh", map_size=1 << 28)

        def fill_as_of(stamp: int) -> int:
            def parts(after: int):
                return backfill.chunks(group, stamp=stamp, after=after)

            return write_parts(fresh, group.hash, parts, stamp=stamp, owned=group.prefix)

        last = world.online.snapshot()
        with last:
            stamp = last.stamp
        assert fill_as_of(START + HOUR_US) >= 0
        assert fill_as_of(stamp) > 0
        assert fill_as_of(stamp) == 0, "a finished fill is not repeated"
        wanted = {
            key: value for part in backfill.chunks(group, stamp=stamp) for key, value in part.puts.items()
        }
        with fresh.snapshot() as snapshot:
            assert dict(snapshot.scan(group.prefix, group.prefix + b"\xff" * 40)) == wanted
        fresh.close()


def test_a_large_table_is_read_range_by_range(tmp_path):
    """The ranges hold every row once; what a range gives is what the whole table gives."""
    times = [START + n // 3 for n in range(60)]
    rows = [sale(f"t{n}", at, shop=f"shop {n % 5}") for n, at in enumerate(times)]
    schema = pa.schema([(field.name, ARROW_TYPES[field.dtype]) for field in SALE.fields])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "sales.parquet")
    with World(tmp_path, project(table="sales.parquet")) as world, FileScratch(tmp_path / "s") as scratch:
        pinned = HandOver(
            "sales", START + DAY_US, world.sql.snapshot("sales.parquet"), START, "sales.parquet"
        )
        whole, ranged = (Facts(world.project, world.lake, world.sql, {"sales": pinned}) for _ in range(2))
        spans = ranged.spans("sales", 7)
        assert len(spans) > 3
        found = [ranged.rows("sales", since=since, until=until) for since, until in spans]
        assert max(part.num_rows for part in found) <= 10
        key = [("event_id", "ascending")]
        assert pa.concat_tables(found).sort_by(key) == whole.rows("sales").sort_by(key)
        for group in world.groups:
            one, many = (
                Backfill(
                    world.project,
                    world.groups,
                    facts,
                    world.sql,
                    world.functions,
                    scratch=space,
                    rows_at_once=7,
                )
                for facts, space in ((whole, None), (ranged, scratch))
            )
            puts = [
                {key: value for part in work.chunks(group) for key, value in part.puts.items()}
                for work in (one, many)
            ]
            assert puts[0] == puts[1]
