"""Exposures and actions taken: stored whatever comes first, attached when their decision is there, expired when not."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.collect.world import START, World, content
from volano.collect.parents import Parents
from volano.collect.receipts import Receipts, reconcile
from volano.kernels.parents import STATES, parent_states
from volano.organize.facts import Facts
from volano.records.elsewhere import action_event, exposure_event
from volano.records.journal import DecisionMade, Operation
from volano.records.receipt import Receipt, ReceiptStatus
from volano.values.instants import DAY_US, HOUR_US, to_datetime

WITHIN = 2 * HOUR_US


def made(decision_id: str) -> DecisionMade:
    return DecisionMade(
        decision_id=decision_id, namespace="shops", decision="get_risk", bundle="", release_id="", model="risk",
        model_version="", service_version="", request={"sale_id": decision_id, "asked_for": 1.0}, features=[],
        decided_at=START, features_as_of=START, score=None, action="no", propensity=1.0, propensity_method="fallback",
    )  # fmt: skip


def shown(number: int, decision_id: str, **more: Any) -> dict[str, Any]:
    return exposure_event(
        "get_risk", decision_id, exposure_id=f"e-{number}", exposed_at=to_datetime(START), **more
    )


def status(world: World, receipt: Receipt) -> Receipt:
    parents = Parents(world.reader, world.apply_log, world.lake, world.clock, WITHIN)
    return Receipts(world.reader, world.apply_log, world.lake, parents).status(receipt.receipt_id)


@pytest.fixture
def world(tmp_path):
    definition = World(tmp_path)
    # The decisions of these tests name no feature service; only what names them is committed.
    with definition as opened:
        yield opened


@pytest.mark.parametrize("commit", [False, True])
def test_an_exposure_before_its_decision_waits_and_is_attached_when_it_comes(world, commit):
    (receipt,) = world.door.accept("exposure", [shown(1, "d-1", position=0, surface="home")])
    world.applier.step()
    if commit:
        world.committer.step()
    found = status(world, receipt)
    assert (found.status, found.problem[0]) == (ReceiptStatus.PENDING_PARENT, "pending_parent")
    world.clock.advance_to(START + WITHIN - 1)
    world.door.log([made("d-1")])
    world.applier.step()
    assert status(world, receipt) == Receipt(receipt.receipt_id, ReceiptStatus.STORED)


def test_an_exposure_whose_decision_never_comes_expires_with_a_reason(world):
    (receipt,) = world.door.accept("exposure", [shown(1, "d-1")])
    world.applier.step()
    world.clock.advance_to(START + WITHIN + 10)
    assert status(world, receipt).problem[0] == "parent_expired"
    world.door.log([made("d-1")])
    world.applier.step()
    assert status(world, receipt).problem[0] == "parent_expired"


def test_exposures_and_actions_have_tables_receipts_corrections_and_an_exact_account(world):
    action = action_event(
        "get_risk", "d-1", action="call", action_id="a-1", taken_at=to_datetime(START), actor="ann"
    )
    strange = {**action, "action_id": "a-2", "decision": "get_nothing"}
    taken = world.door.accept("action_taken", [action, action, strange, {"action_id": "a-3"}])
    assert [each.problem and each.problem[0] for each in taken] == [
        None, None, "unknown_decision", "missing_field",
    ]  # fmt: skip
    world.door.accept("exposure", [shown(1, "d-1"), shown(1, "d-2"), shown(2, "d-1")])
    world.door.accept("exposure", [{"exposure_id": "e-2"}], operation=Operation.RETRACT, revision=1)
    world.applier.step()
    world.committer.step()
    assert world.lake.read("action_taken")["actor"].to_pylist() == ["ann"]
    account = reconcile(world.reader, world.apply_log, world.lake)
    assert account.is_exact
    assert (account.events.stored, account.events.duplicate, account.events.conflict) == (4, 1, 1)
    assert account.events.quarantined == 2
    facts = Facts(world.project, world.lake, world.sql, {})
    rows = facts.rows("exposure")
    standing = rows.filter([at is None for at in rows["superseded_at"].to_pylist()])
    assert sorted(zip(standing["exposure_id"].to_pylist(), standing["operation"].to_pylist(), strict=True)) == [
        ("e-1", "insert"), ("e-2", "retract"),
    ]  # fmt: skip


kinds = st.sampled_from(["exposure", "action", "decision"])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(kinds, st.integers(0, 4), st.integers(0, 2)),
        min_size=1,
        max_size=12,
        unique_by=lambda each: each[:2],
    ),
    st.randoms(use_true_random=False),
)
def test_order_and_repetition_of_what_is_logged_change_no_table(tmp_path_factory, pushed, random):
    def run(name: str, order: list[tuple[str, int, int]]) -> object:
        with World(tmp_path_factory.mktemp(name)) as world:
            world.clock.advance_to(START + DAY_US)
            for n, (kind, number, about) in enumerate(order):
                if kind == "exposure":
                    world.door.accept("exposure", [shown(number, f"d-{about}")], sync=False)
                elif kind == "action":
                    named = {"decision": "get_risk", "decision_id": f"d-{about}", "action": "no"}
                    event = {"action_id": f"a-{number}", "taken_at": to_datetime(START), **named}
                    world.door.accept("action_taken", [event], sync=False)
                else:
                    made_there = msgspec.structs.replace(made(f"d-{number}"), origin="rules", propensity=None)
                    world.door.log([made_there])
                if Random(n).random() < 0.3:
                    world.applier.step()
            while world.applier.step():
                pass
            world.committer.step()
            assert reconcile(world.reader, world.apply_log, world.lake).is_exact
            arrival = ("received_at", "applied_at", "known_at", "receipt_id")
            return {
                table: content(world.lake.read(table), without=arrival)
                for table in ("exposure", "action_taken", "decision_get_risk")
                if world.lake.version(table) is not None
            }

    again = pushed + random.choices(pushed, k=len(pushed))
    random.shuffle(again)
    assert run("straight", pushed) == run("shuffled", again)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20), st.lists(st.integers(0, 120), min_size=2))
def test_a_child_that_was_attached_or_expired_stays_so(child, parent, within, instants):
    import numpy as np

    seen = [
        STATES[
            parent_states(np.array([child]), np.array([parent]), as_of=max(at, child), within_us=within)[0]
        ]
        for at in sorted(instants)
    ]
    final = [each for each in seen if each != "pending_parent"]
    assert len(set(final)) <= 1 and seen[len(seen) - len(final) :] == final
