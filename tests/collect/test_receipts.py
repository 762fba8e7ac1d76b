"""Receipts: every accepted event is accounted for, at every moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.collect.world import SERVICE, START, World, sale
from volano.collect.receipts import Receipts, reconcile, total
from volano.errors import UnknownNameError
from volano.records.journal import DecisionMade, ShadowScored
from volano.records.receipt import Account, Reconciliation
from volano.values.instants import HOUR_US


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with World(tmp_path) as opened:
        yield opened


def whole_account(world: World) -> Account:
    found = reconcile(world.reader, world.apply_log, world.lake)
    assert total(world.reader, world.apply_log, world.lake).account == found.total
    return found


def account(world: World) -> Reconciliation:
    """Of events; of the other kinds there is nothing."""
    found = whole_account(world)
    assert found.decisions == found.shadows == Reconciliation(0, 0, 0, 0, 0, 0)
    return found.events


def made(decision_id: str, *, at: int = START, asked_for: float = 1.0) -> DecisionMade:
    asked = {"sale_id": "a", "shop": "corner", "card": 1, "asked_for": asked_for}
    return DecisionMade(
        decision_id, "shops", "get_risk", "bundle", "release", "risk", "risk-1", SERVICE.version, asked, [],
        at, START, 0.5, "yes", 1.0, "deterministic", fallback="stale",
    )  # fmt: skip


def test_decisions_and_shadow_scores_are_in_the_account(world):
    def score(decision_id: str) -> ShadowScored:
        return ShadowScored(decision_id, "get_risk", "risk", "v0", 0.25, START)

    world.door.accept("sales", [sale("a", START), b"junk"])
    for n in range(3):
        world.door.log([made(f"d{n}"), made("d0"), made("d0", at=START + n), made("d1", asked_for=-1.0)])
        world.door.log([score("d0"), score(f"d{n}")])
        assert whole_account(world).is_exact
        world.applier.step(4)
        assert whole_account(world).is_exact
        if n == 1:
            world.committer.step()
            assert whole_account(world).is_exact
    while world.applier.step():
        pass
    uncommitted = whole_account(world)
    world.committer.step()
    assert whole_account(world) == uncommitted
    assert uncommitted == Account(
        events=Reconciliation(2, 1, 0, 0, 1, 0),
        decisions=Reconciliation(12, 5, 6, 1, 0, 0),
        shadows=Reconciliation(6, 3, 3, 0, 0, 0),
    )
    stored = world.lake.read("decision_get_risk", columns=["decision_id", "attempt"]).to_pylist()
    assert sorted((row["decision_id"], row["attempt"]) for row in stored) == [
        ("d0", 0), ("d0", 1), ("d0", 2), ("d1", 0), ("d2", 0),
    ]  # fmt: skip
    aside = world.lake.read("quarantine").to_pylist()
    assert [
        (row["source"], row["event_id"], row["reason"]) for row in aside if row["kind"] == "decision"
    ] == [("get_risk", "d1", "conflict")]


def test_a_decision_that_vanished_from_the_lake_is_missed(world):
    world.door.log([made("d0"), made("d1")])
    world.applier.step()
    world.committer.step()

    class Lost(Forgetful):
        def read(self, table, **options):
            rows = self._lake.read(table, **options)
            return rows.slice(1) if table.startswith("decision_") else rows

    found = reconcile(world.reader, world.apply_log, Lost(world.lake))
    assert found.events.is_exact and not found.decisions.is_exact and not found.is_exact
    assert not total(world.reader, world.apply_log, Lost(world.lake)).account.is_exact


def test_a_receipt_says_that_its_event_came_too_late_to_change_a_feature(world):
    late, in_time = world.door.accept("sales", [sale("a", START - 3 * HOUR_US), sale("b", START)])
    asked = Receipts(world.reader, world.apply_log, world.lake)
    world.applier.step()
    for _ in range(2):  # before and after the commit
        found = asked.status(late.receipt_id)
        assert (found.status, found.problem and found.problem[0]) == ("stored", "too_late")
        assert asked.status(in_time.receipt_id).problem is None
        assert total(world.reader, world.apply_log, world.lake).too_late == {"sales": 1}
        world.committer.step()


def test_the_account_is_exact_at_every_moment(world):
    assert account(world) == Reconciliation(0, 0, 0, 0, 0, 0)
    for n in range(6):
        world.door.accept("sales", [sale(f"a{n % 2}", START), sale("c", START, amount=float(n)), b"junk"])
        assert account(world).is_exact
        if n % 2:
            world.applier.step(4)
            assert account(world).is_exact
        if n % 3 == 2:
            world.committer.step()
            assert account(world).is_exact
    while world.applier.step():
        pass
    uncommitted = account(world)
    world.committer.step()
    assert account(world) == uncommitted == Reconciliation(18, 3, 4, 5, 6, 0)


class Forgetful:
    """A lake that lost the last row of its fact tables."""

    def __init__(self, lake):
        self._lake = lake

    def __getattr__(self, name):
        return getattr(self._lake, name)

    def read(self, table, **options):
        rows = self._lake.read(table, **options)
        return rows.slice(1) if table.startswith("fact_") else rows


def test_a_row_that_vanished_from_the_lake_is_missed(world):
    world.door.accept("sales", [sale("a", START), sale("b", START)])
    world.applier.step()
    world.committer.step()
    found = reconcile(world.reader, world.apply_log, Forgetful(world.lake))
    assert not found.is_exact
    assert (found.events.accepted, found.events.stored) == (2, 1)


def test_a_receipt_says_how_its_event_ended_before_and_after_the_commit(world):
    receipts = world.door.accept(
        "sales", [sale("a", START), sale("a", START), sale("a", START, amount=1.0), b"x"]
    )
    asked = Receipts(world.reader, world.apply_log, world.lake)

    def statuses() -> list[str]:
        return [asked.status(receipt.receipt_id).status.value for receipt in receipts]

    assert statuses() == ["pending"] * 4
    world.applier.step()
    applied = [asked.status(receipt.receipt_id) for receipt in receipts]
    assert [receipt.status for receipt in applied] == ["stored", "duplicate", "conflict", "quarantined"]
    world.committer.step()
    assert [asked.status(receipt.receipt_id) for receipt in receipts] == applied
    assert applied[3].problem is not None
    assert applied[3].problem[0] == "malformed"


def test_an_unknown_receipt_is_an_error(world):
    with pytest.raises(UnknownNameError, match="No accepted event"):
        Receipts(world.reader, world.apply_log, world.lake).status("nothing")
