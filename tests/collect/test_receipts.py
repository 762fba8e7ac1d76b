"""Receipts: every accepted event is accounted for, at every moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.collect.world import START, World, sale
from volano.collect.receipts import Receipts, reconcile
from volano.errors import UnknownNameError
from volano.records.receipt import Reconciliation


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with World(tmp_path) as opened:
        yield opened


def account(world: World) -> Reconciliation:
    return reconcile(world.reader, world.apply_log, world.lake)


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
    assert (found.accepted, found.stored) == (2, 1)


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
