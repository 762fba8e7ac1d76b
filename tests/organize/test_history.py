"""Promise 2: on history, nothing that was known after an instant changes what is computed at it."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest

from tests.collect.world import ASK, SERVICE, START, World, project, sale
from tests.organize.histories import draw_request, draw_values, live, point_in_time
from tests.organize.test_facts import handover, write
from volano.errors import RequestError
from volano.organize.features import Mode
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US


def spine_of(random: Random, at: list[int]) -> pa.Table:
    asked = [draw_request(random, f"s{n}") for n in range(len(at))]
    columns = {name: [each[name] for each in asked] for name in asked[0]}
    types = {"card": pa.int64(), "asked_for": pa.float64()}
    spine = {name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()}
    return pa.table({"decided_at": pa.array(at, pa.timestamp("us", "UTC")), **spine})


def bits(rows: pa.Table) -> list[str]:
    """Rows as text that tells every bit: floats written exactly, NaN equal to NaN."""
    return [repr(row) for row in rows.to_pylist()]


@pytest.mark.parametrize("seed", range(4))
def test_poison_after_an_instant_changes_nothing_computed_at_it(tmp_path, seed):
    """Two worlds share everything known by `cut`; what becomes known later is different in each."""
    cut = START + 2 * DAY_US
    results = []
    for poison in (0, 1):
        random = Random(seed)
        folder = tmp_path / str(poison)
        folder.mkdir()
        with World(folder, project(table="sales.parquet")) as world:
            before = [
                sale(
                    f"t{n}",
                    START + random.randrange(2 * DAY_US - 5 * MINUTE_US) - DAY_US,
                    **draw_values(random),
                )
                for n in range(80)
            ]
            venom = Random(f"{seed} {poison}")
            # Their event_time lies before the cut, but they are known five minutes later: after it.
            after = [
                sale(f"p{poison}{n}", cut - 5 * MINUTE_US + 1 + n, **draw_values(venom))
                for n in range(10 * poison + 5)
            ]
            write(world, before + after)
            world.clock.advance_to(cut)
            pinned = {"sales": handover(world, at=cut)}
            live(world, Random(f"{seed} live {poison}"), 40, prefix=f"l{poison}")
            at = [cut - random.randrange(DAY_US) for _ in range(50)] + [cut, cut]
            spine = spine_of(random, at)
            parts = point_in_time(world, pinned)
            results.append(parts.features(SERVICE.inputs, spine, mode=Mode.HISTORY, request=ASK))
    assert bits(results[0]) == bits(results[1])
    assert any(column.null_count < len(column) for column in results[0].columns)


def test_history_waits_for_slow_pipelines_and_replay_does_not(tmp_path):
    with World(tmp_path, project(table="sales.parquet")) as world:
        write(world, [sale("a", START - HOUR_US)])
        pinned = {"sales": handover(world)}
        at = [START - HOUR_US + 5 * MINUTE_US + delta for delta in (-1, 0)]
        spine = pa.table(
            {
                "decided_at": pa.array(at),
                "as_of": pa.array([START + DAY_US] * 2),
                "shop": ["corner"] * 2,
                "card": [1, 1],
                "asked_for": [1.0, 1.0],
            }
        )
        parts = point_in_time(world, pinned)
        n = "Shop__n"
        assert parts.features(SERVICE.inputs, spine, mode=Mode.HISTORY, only=[n])[n].to_pylist() == [0, 1]
        assert parts.features(SERVICE.inputs, spine, mode=Mode.REPLAY, only=[n])[n].to_pylist() == [1, 1]


def test_a_stamp_pins_what_exists_so_a_later_correction_changes_nothing(tmp_path):
    with World(tmp_path) as world:
        live(world, Random(2), 80)
        stamp = world.applier.last_stamp
        spine = spine_of(Random(3), [world.clock.now() - n * HOUR_US for n in range(30)])
        first = point_in_time(world).features(SERVICE.inputs, spine, mode=Mode.HISTORY, stamp=stamp)
        live(world, Random(4), 80)
        again = point_in_time(world).features(SERVICE.inputs, spine, mode=Mode.HISTORY, stamp=stamp)
        assert bits(again) == bits(first)


def test_thinning_the_spine_changes_no_bit(tmp_path):
    with World(tmp_path) as world:
        live(world, Random(6), 120)
        spine = spine_of(Random(7), [world.clock.now() - n * 17 * MINUTE_US for n in range(60)])
        parts = point_in_time(world)
        whole = parts.features(SERVICE.inputs, spine, mode=Mode.HISTORY)
        some = list(range(0, 60, 7))
        thin = parts.features(SERVICE.inputs, spine.take(some), mode=Mode.HISTORY)
        assert bits(thin) == bits(whole.take(some))


def test_the_result_is_typed_and_ordered_as_the_service_declares(tmp_path):
    with World(tmp_path) as world:
        spine = spine_of(Random(1), [START])
        found = point_in_time(world).features(SERVICE.inputs, spine, mode=Mode.HISTORY)
        assert found.column_names == [given.name for given in SERVICE.inputs]
        assert found.schema.field("Shop__newest_kind").type == pa.string()
        assert found["Shop__n"].to_pylist() == [0]
        empty = point_in_time(world).features(SERVICE.inputs, spine.slice(0, 0), mode=Mode.HISTORY)
        assert empty.schema == found.schema
        assert len(empty) == 0


def test_a_spine_without_a_needed_column_is_refused(tmp_path):
    with World(tmp_path) as world:
        spine = spine_of(Random(1), [START]).drop_columns(["card"])
        with pytest.raises(RequestError, match="no column 'card'"):
            point_in_time(world).features(SERVICE.inputs, spine, mode=Mode.HISTORY)
