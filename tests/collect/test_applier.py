"""The applier: every record gets one fate and one stamp; online state holds the rows that stand."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pyarrow as pa
import pytest

from tests.collect.world import CARD, DEAR, PRICES, SHOP, START, World, project, sale
from volano.collect import schemas
from volano.collect.applier import Applier
from volano.errors import StateMismatchError, StoreFullError
from volano.organize.backfill import Backfill
from volano.organize.facts import Facts
from volano.plan.definitions import CodeRef, Projection
from volano.plan.state_index import CURSOR_KEY, INDEX_PREFIX
from volano.records.journal import DecisionMade, Operation, ShadowScored
from volano.runtime.failing import failing_views
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.values.instants import DAY_US, HOUR_US
from volano.values.schema import DType

DECISION = DecisionMade(
    "d1",
    "shops",
    "get_risk",
    "b",
    "r",
    "risk",
    "v",
    "s",
    {},
    [],
    START,
    START,
    0.5,
    "yes",
    1.0,
    "deterministic",
)


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with World(tmp_path) as opened:
        yield opened


def fates(world: World) -> list[str]:
    return [applied.status for batch in world.apply_log.read(0, limit=10_000) for applied in batch.applied]


def stamps(world: World) -> list[int]:
    return [
        applied.applied_at for batch in world.apply_log.read(0, limit=10_000) for applied in batch.applied
    ]


def state(world: World) -> dict[bytes, bytes]:
    """Everything online but the position."""
    with world.online.snapshot() as snapshot:
        return {key: value for key, value in snapshot.scan(b"", b"\xff" * 40) if key != CURSOR_KEY}


def rows(world: World, entity: str = "shop") -> list[dict[str, object]]:
    """The rows that stand in the state of one entity."""
    found: list[dict[str, object]] = []
    for group in world.applier._groups:
        if group.group.entity == entity:
            for key, chunk in state(world).items():
                if key.startswith(group.prefix):
                    found += group.layout.decode(chunk).to_pylist()
    return found


def amounts(world: World, entity: str = "shop") -> list[object]:
    return sorted((row["amount"] for row in rows(world, entity)), key=repr)


def test_the_same_payload_is_a_duplicate_and_another_a_conflict_and_the_first_stays(world):
    for amount in (10.0, 10.0, 11.0):
        world.door.accept("sales", [sale("a", START, amount=amount)])
    world.applier.step(2)
    world.applier.step(2)
    assert fates(world) == ["stored", "duplicate", "conflict"]
    assert amounts(world) == [10.0]


def test_stamps_are_strictly_increasing_over_batches_and_a_clock_that_stands(world):
    world.door.accept("sales", [sale(str(n), START) for n in range(5)])
    while world.applier.step(2):
        pass
    assert stamps(world) == [START + n for n in range(5)]
    with world.online.snapshot() as snapshot:
        assert (snapshot.stamp, snapshot.sequence) == (START + 4, 3)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("at_once", [1, 10])
def test_the_highest_revision_stands_in_any_order_of_arrival(world, order, at_once):
    for revision in order:
        operation = Operation.CORRECT if revision else Operation.INSERT
        event = sale("a", START + revision * HOUR_US, amount=float(revision), shop=f"shop {revision}")
        world.clock.advance_to(START + 2 * HOUR_US)
        world.door.accept("sales", [event], operation=operation, revision=revision)
    while world.applier.step(at_once):
        pass
    assert fates(world) == ["stored"] * 3
    assert amounts(world) == [2.0]
    assert amounts(world, "card") == [2.0]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("at_once", [1, 10])
def test_a_retraction_takes_the_row_out_whenever_it_comes(world, first, at_once):
    pushes = [
        (sale("a", START), Operation.INSERT, 0),
        ({"sale_id": "a"}, Operation.RETRACT, 1),
    ]
    for event, operation, revision in (pushes[first], pushes[1 - first]):
        world.door.accept("sales", [event], operation=operation, revision=revision)
    while world.applier.step(at_once):
        pass
    assert rows(world) == rows(world, "card") == []


def test_a_row_that_came_too_late_is_stored_and_changes_no_feature(world):
    world.clock.advance_to(START + 10 * HOUR_US)
    world.door.accept("sales", [sale("late", START + 8 * HOUR_US - 1), sale("in time", START + 8 * HOUR_US)])
    world.applier.step(1)
    world.clock.advance_to(START + 10 * HOUR_US)
    assert fates(world) == ["stored"]
    assert rows(world) == []


def test_a_correction_that_came_too_late_leaves_the_row_as_it_stood(world):
    world.door.accept("sales", [sale("a", START)])
    world.applier.step()
    world.clock.advance_to(START + 3 * HOUR_US)
    world.door.accept("sales", [sale("a", START, amount=99.0)], operation=Operation.CORRECT, revision=1)
    world.applier.step()
    assert amounts(world) == [10.0]


def test_a_null_key_touches_no_state_of_that_entity(world):
    world.door.accept("sales", [sale("a", START, shop=None)])
    world.applier.step()
    assert rows(world) == []
    assert len(rows(world, "card")) == 1


@pytest.mark.parametrize("n_chars", [65_530, 65_531])
def test_a_log_with_a_key_that_is_too_long_goes_on_and_the_key_counts_as_none(tmp_path, monkeypatch, n_chars):
    """The door did not bound keys once; of 65,531 characters they have a byte too many."""
    monkeypatch.setitem(schemas._KEYS, DType.STRING, str)
    with World(tmp_path) as world:
        world.door.accept("sales", [sale("a", START, shop="x" * n_chars), sale("b", START)])
        world.applier.step()
        assert fates(world) == ["stored"] * 2
        assert len(rows(world)) == (2 if n_chars == 65_530 else 1)
        assert len(rows(world, "card")) == 2
        world.committer.step()
        facts = Facts(world.project, world.lake, world.sql, {})
        backfill = Backfill(world.project, world.groups, facts, world.sql, world.functions)
        built = {}
        for group in world.groups:
            for part in backfill.chunks(group):
                built |= part.puts
        prefixes = tuple(group.prefix for group in world.groups)
        assert built == {key: value for key, value in state(world).items() if key.startswith(prefixes)}
        world.door.accept("sales", [sale("a", START)], operation=Operation.CORRECT, revision=1)
        world.applier.step()
        assert len(rows(world)) == 2


def test_a_projection_that_raises_leaves_its_columns_null_and_is_reported(tmp_path):
    def prices(batch: pa.Table) -> pa.Table:
        if "poison" in batch["kind"].to_pylist():
            raise ValueError("poison")
        prices = [
            amount / pieces
            for amount, pieces in zip(batch["amount"].to_pylist(), batch["pieces"].to_pylist(), strict=True)
        ]
        return pa.table({"price": prices, "dear": [price > 50 for price in prices]})

    dear = msgspec.structs.replace(DEAR, projection=Projection(PRICES, code=CodeRef("shop", "prices", "")))
    with World(tmp_path, project(views=(SHOP, dear, CARD)), functions={"prices": prices}) as world:
        world.door.accept(
            "sales", [sale("a", START), sale("b", START, kind="poison"), sale("c", START, amount=99.0)]
        )
        world.applier.step()
        assert fates(world) == ["stored"] * 3
        assert sorted((row["kind"], row["Dear.price"]) for row in rows(world)) == [
            ("food", 10.0),
            ("food", 99.0),
            ("poison", None),
        ]
        (failing,) = world.applier.take_failing()
        assert (failing.view, failing.source, failing.n_rows, failing.event_id) == ("Dear", "sales", 1, "b")
        assert "poison" in failing.reason
        assert world.applier.take_failing() == ()
        assert failing_views(world.online, world.groups) == (failing,)


def test_a_projection_of_the_wrong_shape_does_not_stop_the_applier(tmp_path):
    dear = msgspec.structs.replace(DEAR, projection=Projection(PRICES, code=CodeRef("shop", "prices", "")))
    functions = {"prices": lambda batch: pa.table({"price": [1.0]})}
    with World(tmp_path, project(views=(SHOP, dear, CARD)), functions=functions) as world:
        world.door.accept("sales", [sale("a", START), sale("b", START)])
        world.applier.step()
        assert fates(world) == ["stored"] * 2
        (failing,) = failing_views(world.online, world.groups)
        assert (failing.view, failing.n_rows) == ("Dear", 2)
        assert len(rows(world, "card")) == 2


def test_a_failed_row_is_known_until_it_is_replaced_also_after_a_restart_and_a_lost_store(tmp_path):
    def prices(batch: pa.Table) -> pa.Table:
        if "poison" in batch["kind"].to_pylist():
            raise ValueError("poison")
        return pa.table({"price": batch["amount"], "dear": pa.array([False] * batch.num_rows)})

    dear = msgspec.structs.replace(DEAR, projection=Projection(PRICES, code=CodeRef("shop", "prices", "")))
    definition = project(views=(SHOP, dear, CARD))

    def known(world: World) -> list[tuple[int, str]]:
        return [(each.n_rows, each.event_id) for each in failing_views(world.online, world.groups)]

    with World(tmp_path, definition, functions={"prices": prices}) as world:
        world.door.accept("sales", [sale("a", START, kind="poison"), sale("b", START)])
        world.applier.step()
        world.committer.step()
        assert known(world) == [(1, "a")]
        filled = LmdbOnlineStore(tmp_path / "filled", map_size=1 << 28)
        facts = Facts(world.project, world.lake, world.sql, {})
        backfill = Backfill(world.project, world.groups, facts, world.sql, world.functions)
        for group in world.groups:
            for part in backfill.chunks(group):
                filled.write(part.puts, (), stamp=START, sequence=0)
        assert failing_views(filled, world.groups) == failing_views(world.online, world.groups)
        filled.close()
    with World(tmp_path, definition, functions={"prices": prices}) as world:
        assert known(world) == [(1, "a")]
        world.door.accept("sales", [sale("b", START, kind="poison")], operation=Operation.CORRECT, revision=1)
        world.applier.step()
        assert [n for n, _ in known(world)] == [2]
        world.door.accept("sales", [sale("a", START)], operation=Operation.CORRECT, revision=1)
        world.door.accept("sales", [{"sale_id": "b"}], operation=Operation.RETRACT, revision=2)
        world.applier.step()
        assert known(world) == []


def test_decisions_and_shadow_scores_are_stored_once(world):
    shadow = ShadowScored("d1", "get_risk", "risk", "v0", 0.25, START)
    world.door.log([DECISION, shadow, DECISION])
    world.applier.step()
    world.door.log([shadow])
    world.applier.step()
    assert fates(world) == ["stored", "stored", "duplicate", "duplicate"]


@pytest.mark.parametrize("at_once", [1, 10])
def test_another_answer_to_a_decision_id_is_kept_as_an_attempt_and_another_request_is_a_conflict(
    world, at_once
):
    """Two processes that did not know of each other: nothing that a caller was told is dropped."""
    again = msgspec.structs.replace(DECISION, decided_at=DECISION.decided_at + 1)
    other = msgspec.structs.replace(DECISION, request={**DECISION.request, "asked_for": -1.0})
    wider = msgspec.structs.replace(again, request={**DECISION.request, "new_field": None})
    elsewhere = msgspec.structs.replace(DECISION, decision="get_other_risk")
    world.door.log([DECISION, again, other, DECISION, again, wider, elsewhere])
    world.door.log([msgspec.structs.replace(DECISION, decided_at=DECISION.decided_at + 2, attempt=7)])
    while world.applier.step(at_once):
        pass
    expected = ["stored", "stored", "conflict", "duplicate", "duplicate", "duplicate", "stored", "stored"]
    assert fates(world) == expected
    given = [fate.attempt for batch in world.apply_log.read(0, limit=100) for fate in batch.applied]
    assert given == [None, 1, None, None, None, None, None, None]


def test_a_restart_between_two_attempts_counts_on(world, tmp_path):
    world.door.log([DECISION])
    world.applier.step()
    world.close()
    with World(tmp_path) as restarted:
        again = msgspec.structs.replace(DECISION, decided_at=DECISION.decided_at + 1)
        restarted.door.log([again])
        restarted.applier.step()
        before = state(restarted)
    (tmp_path / "online").rename(tmp_path / "lost")
    with World(tmp_path) as rebuilt:
        rebuilt.applier.recover()
        assert state(rebuilt) == before
        rebuilt.door.log([again, msgspec.structs.replace(again, action="no")])
        rebuilt.applier.step()
        assert fates(rebuilt) == ["stored", "stored", "duplicate", "stored"]


def test_restarting_changes_nothing_and_goes_on(world, tmp_path):
    world.door.accept("sales", [sale("a", START)])
    world.applier.step()
    before = state(world)
    world.close()
    with World(tmp_path) as again:
        assert again.applier.recover() == 0
        assert state(again) == before
        again.door.accept("sales", [sale("a", START), sale("b", START)])
        again.applier.step()
        assert fates(again) == ["stored", "duplicate", "stored"]
        assert stamps(again) == [START, START + 1, START + 2]


class Broken:
    """An online store whose next write fails."""

    def __init__(self, online):
        self._online = online
        self.is_broken = False

    def __getattr__(self, name):
        return getattr(self._online, name)

    def write(self, *arguments, **named):
        if self.is_broken:
            raise StoreFullError("full")
        self._online.write(*arguments, **named)


def applier_of(world: World, online) -> Applier:
    return Applier(
        world.project,
        world.groups,
        world.reader,
        world.apply_log,
        online,
        world.functions,
        world.sql,
        world.clock,
    )


def test_no_stamp_of_rest_passes_a_batch_that_was_logged_and_not_written(world):
    online = Broken(world.online)
    applier, follower = applier_of(world, online), applier_of(world, online)
    applier.recover()
    follower.recover()
    before = applier.beat()
    world.door.accept("sales", [sale("a", START)])
    online.is_broken = True
    with pytest.raises(StoreFullError):
        applier.step()
    for beat in (applier.beat, lambda: follower.beat(before + 1_000)):
        with pytest.raises(StoreFullError):
            beat()
        with world.online.snapshot() as snapshot:
            assert (snapshot.sequence, snapshot.stamp) == (0, before)
    online.is_broken = False
    now = follower.beat(before + 1_000)
    with world.online.snapshot() as snapshot:
        assert (snapshot.sequence, snapshot.stamp) == (1, now)
    assert stamps(world)[-1] < now


def test_a_batch_that_was_logged_and_not_written_keeps_its_stamps(world):
    online = Broken(world.online)
    applier = applier_of(world, online)
    applier.recover()
    online.is_broken = True
    world.door.accept("sales", [sale("a", START), sale("b", START)])
    with pytest.raises(StoreFullError):
        applier.step()
    logged = stamps(world)
    world.clock.advance_to(START + HOUR_US)
    world.door.accept("sales", [sale("c", START)])
    online.is_broken = False
    assert applier.step() == 1
    assert stamps(world)[:2] == logged
    assert stamps(world)[2] == START + HOUR_US
    assert sorted(row["applied_at"].timestamp() * 1e6 for row in rows(world)) == stamps(world)


def test_an_empty_online_store_is_rebuilt_from_the_journal_with_the_same_stamps(world, tmp_path):
    events = [sale(f"s{n}", START + n, shop=f"shop {n % 3}") for n in range(20)]
    world.door.accept("sales", events)
    world.applier.step(7)
    world.door.accept("sales", [sale("s3", START)], operation=Operation.CORRECT, revision=1)
    while world.applier.step(7):
        pass
    before, given = state(world), stamps(world)
    world.close()
    (tmp_path / "online").rename(tmp_path / "lost")
    with World(tmp_path) as again:
        again.applier.recover()
        assert state(again) == before
        assert stamps(again) == given


def test_online_state_of_another_project_is_refused(world, tmp_path):
    world.door.accept("sales", [sale("a", START)])
    world.applier.step()
    world.close()
    (tmp_path / "apply_log").rename(tmp_path / "lost")
    with World(tmp_path) as again, pytest.raises(StateMismatchError, match="apply log ends before"):
        again.applier.recover()


def test_pruning_removes_only_what_no_window_reaches(world):
    """Every view of the entity shop looks back two days and seven microseconds at most."""
    world.door.accept("sales", [sale("a", START)])
    world.applier.step()
    later = START + 2 * DAY_US + 7 + 2 * HOUR_US
    assert world.applier.prune(later) == 0
    assert world.applier.prune(later + DAY_US) == 1
    assert rows(world) == []
    assert len(rows(world, "card")) == 1
    assert any(key.startswith(INDEX_PREFIX) for key in state(world))
