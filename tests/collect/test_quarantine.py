"""What was set aside: listed as soon as it is applied, sent in again once, noted and never erased."""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.collect.world import START, World, sale
from volano.collect.quarantine import Quarantine, edited, still_open
from volano.collect.receipts import reconcile
from volano.errors import RequestError, UnknownNameError
from volano.organize.logged import logged_entries
from volano.records.journal import Operation
from volano.records.quarantine import Fate, Resolution
from volano.values.instants import DAY_US


def quarantine(world: World) -> Quarantine:
    return Quarantine(world.reader, world.apply_log, world.lake)


def resolution(receipt_id: str, fate: Fate = Fate.REPLAYED, actor: str = "ann") -> Resolution:
    return Resolution(receipt_id, "shops", "sales", fate, actor, START)


def send_again(world: World, receipt_id: str, **edits: object) -> None:
    (row,) = quarantine(world).get([receipt_id])
    receipt = world.door.replay(
        "sales", edited(row, edits), operation=Operation(row.operation), revision=row.revision,
        received_at=row.received_at, resolution=resolution(receipt_id),
    )  # fmt: skip
    assert receipt.problem is None


def settle(world: World, commit: bool) -> None:
    while world.applier.step():
        pass
    if commit:
        world.committer.step()


@pytest.fixture
def world(tmp_path: Path):
    with World(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("commit", [False, True])
def test_a_row_is_listed_shown_mended_and_stored_once(world: World, commit: bool) -> None:
    bad = msgspec.json.encode({**sale("s1", START), "pieces": "two"})
    (receipt,) = world.door.accept("sales", [bad])
    world.door.accept("sales", [sale("s2", START)])
    settle(world, commit)
    (row,) = quarantine(world).rows(source="sales", reason="wrong_type", fate=Fate.OPEN)
    assert (row.receipt_id, row.field, row.payload) == (receipt.receipt_id, "pieces", None)
    assert quarantine(world).rows(since=START + 1) == quarantine(world).rows(reason="other") == []
    assert quarantine(world).get([row.receipt_id])[0].payload == bad
    world.clock.advance_to(START + DAY_US)
    for _ in range(3):  # whoever tries again
        send_again(world, row.receipt_id, pieces=2)
    settle(world, commit)
    (again,) = quarantine(world).rows(fate=Fate.REPLAYED)
    assert (again.actor, again.receipt_id) == ("ann", row.receipt_id)
    settle(world, True)
    facts = world.lake.read("fact_sales", where={"event_id": ("s1", "s1\x00")})
    assert facts["pieces"].to_pylist() == [2]
    assert facts["received_at"].to_pylist()[0] < facts["applied_at"].to_pylist()[0]
    assert facts["receipt_id"].to_pylist() == [again.replayed_as]
    account = reconcile(world.reader, world.apply_log, world.lake)
    assert account.is_exact
    assert (account.events.stored, account.events.quarantined, account.events.duplicate) == (2, 1, 2)
    assert (account.resolutions.stored, account.resolutions.duplicate) == (1, 2)
    with pytest.raises(RequestError, match="was replayed before by ann"):
        still_open(quarantine(world).get([row.receipt_id]))


def test_a_row_is_not_stored_under_two_ids_nor_after_it_was_discarded(world: World) -> None:
    (lost,) = world.door.accept("sales", [b"{no json"])
    (unwanted,) = world.door.accept("sales", [{"sale_id": "s9"}])
    settle(world, True)
    world.door.resolve([resolution(unwanted.receipt_id, Fate.DISCARDED)])
    for receipt, name in ((lost, "a"), (lost, "b"), (unwanted, "s9")):
        world.door.replay(
            "sales", msgspec.json.encode(sale(name, START)), operation=Operation.INSERT, revision=0,
            received_at=START, resolution=resolution(receipt.receipt_id),
        )  # fmt: skip
    settle(world, True)
    assert world.lake.read("fact_sales")["event_id"].to_pylist() == ["a"]
    assert {row.receipt_id: row.fate for row in quarantine(world).rows()}.items() >= {
        lost.receipt_id: Fate.REPLAYED,
        unwanted.receipt_id: Fate.DISCARDED,
    }.items()
    refused = quarantine(world).rows(reason="resolved")
    assert {row.event_id for row in refused} == {"b", "s9"}
    assert reconcile(world.reader, world.apply_log, world.lake).is_exact


def test_what_still_does_not_fit_is_not_journaled(world: World) -> None:
    (receipt,) = world.door.accept("sales", [{"sale_id": "s1"}])
    settle(world, True)
    before = reconcile(world.reader, world.apply_log, world.lake)
    told = world.door.replay(
        "sales", b"{}", operation=Operation.INSERT, revision=0, received_at=START,
        resolution=resolution(receipt.receipt_id),
    )  # fmt: skip
    assert told.problem is not None
    assert world.applier.step() == 0
    assert reconcile(world.reader, world.apply_log, world.lake) == before
    with pytest.raises(UnknownNameError):
        quarantine(world).get(["nothing"])


def test_the_index_that_is_filled_from_the_lake_knows_what_was_resolved(world: World) -> None:
    (receipt,) = world.door.accept("sales", [{"sale_id": "s1"}])
    settle(world, True)
    world.door.resolve([resolution(receipt.receipt_id, Fate.DISCARDED)])
    settle(world, True)
    filled = [
        key
        for entries in logged_entries(world.project, world.lake, stamp=world.applier.last_stamp)
        for key in entries
    ]
    with world.online.snapshot() as snapshot:
        assert filled and all(value is not None for value in snapshot.get_many(filled))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_whoever_resolves_a_row_and_however_often_it_is_resolved_once(tmp_path_factory, seed):
    random = Random(seed)
    with World(tmp_path_factory.mktemp("races")) as world:
        receipts = world.door.accept("sales", [{"sale_id": f"s{n}"} for n in range(4)])
        settle(world, random.random() < 0.5)
        for _ in range(12):
            receipt = random.choice(receipts)
            if random.random() < 0.3:
                world.door.resolve([resolution(receipt.receipt_id, Fate.DISCARDED, actor="bob")])
            else:
                name = random.choice([f"x{random.randrange(3)}", f"s{receipts.index(receipt)}"])
                event = msgspec.json.encode(sale(name, START, pieces=random.randrange(2)))
                world.door.replay(
                    "sales", event, operation=Operation.INSERT, revision=0, received_at=START,
                    resolution=resolution(receipt.receipt_id),
                )  # fmt: skip
            if random.random() < 0.4:
                world.applier.step(random.randrange(1, 4))
            if random.random() < 0.2:
                world.committer.step()
        settle(world, True)
        account = reconcile(world.reader, world.apply_log, world.lake)
        assert account.is_exact
        assert account.resolutions.stored == len(
            {row.receipt_id for row in quarantine(world).rows() if row.fate is not Fate.OPEN}
        )
        assert account.events.stored <= account.resolutions.stored
