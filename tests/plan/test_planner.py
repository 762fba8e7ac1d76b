"""Declared against applied → a plan that is explained and applied from one list of steps."""

from __future__ import annotations

import msgspec
import pytest

from tests.compile.projects import AIRPORTS, FLIGHTS, compiled, edited
from volano.compile.planner import plan
from volano.compile.state import state_groups
from volano.errors import PlanRefused
from volano.plan.diff import Category
from volano.plan.explain import as_json, explain
from volano.plan.plan import Plan, PlanState
from volano.plan.steps import (
    BackfillGroup,
    CreateTable,
    HandOver,
    PublishState,
    RegisterDefinitions,
    RetireState,
    StoreBundle,
    WidenTable,
    step_id,
)


def first(file=FLIGHTS, bundle="b1") -> Plan:
    found = compiled(file)
    warnings = tuple(map(str, found.warnings))
    return plan(found.project, None, PlanState(), bundle=bundle, warnings=warnings)


def state_after(done: Plan, **changes) -> PlanState:
    """What exists once a plan is carried out."""
    state = PlanState(
        groups=tuple(group.hash for group in done.groups),
        handed_over=tuple(done.project.sources),
        tables=tuple(step.table for step in done.steps if isinstance(step, CreateTable)),
    )
    return msgspec.structs.replace(state, **changes)


def second(file, *, done=None, bundle="b2", **changes) -> Plan:
    done = done or first()
    state = state_after(done, **changes)
    return plan(compiled(file).project, done.project, state, bundle=bundle, applied_bundle=done.bundle)


@pytest.mark.parametrize("file", [FLIGHTS, AIRPORTS], ids=lambda file: file.stem)
def test_a_first_plan_reads_as_its_golden(file, golden):
    golden(f"{file.stem}.txt", explain(first(file)) + "\n")


@pytest.mark.parametrize("file", [FLIGHTS, AIRPORTS], ids=lambda file: file.stem)
def test_a_first_plan_for_programs_is_as_its_golden(file, golden):
    golden(
        f"{file.stem}.json", msgspec.json.format(msgspec.json.encode(as_json(first(file)))).decode() + "\n"
    )


EDITS = {
    "window": [('"7d")\n    late_7d', '"14d")\n    late_7d')],
    "owner": [("flight-ops@example.org", "new@example.org")],
    "deadline": [('deadline="20ms"', 'deadline="30ms"')],
    "feature_added": [("    legs_24h", '    legs_7d = vo.count(within="7d")\n    legs_24h')],
    "column_added": [("    landed_at: vo.EventTime", "    gate: str | None\n    landed_at: vo.EventTime")],
    "column_required": [("    landed_at: vo.EventTime", "    gate: str\n    landed_at: vo.EventTime")],
    "policy": [("at=0.5", "at=0.6")],
    "attribution": [
        ("censored_by=cancellations,", 'combine="any", attribution=vo.Attribution("decay", half_life="6h"),'),
    ],
    "on_demand": [("distance > 1500", "distance > 1600")],
    "view_removed": [
        ("features=[PlaneHistory, tired_long_haul, Departure.distance]", "features=[Departure.distance]"),
    ],
}


@pytest.mark.parametrize("name", sorted(EDITS))
def test_a_change_shows_its_consequences_as_its_golden(name, golden, tmp_path):
    golden(f"change_{name}.txt", explain(second(edited(tmp_path, *EDITS[name]))) + "\n")


def test_nothing_changed_is_an_empty_plan():
    again = second(FLIGHTS, bundle="b1")
    assert again.is_empty and again.changes == ()
    assert "Nothing to do" in explain(again)


def test_steps_come_in_the_order_in_which_each_can_be_done():
    kinds = list(dict.fromkeys(type(step) for step in first().steps))
    assert kinds == [StoreBundle, CreateTable, HandOver, BackfillGroup, PublishState, RegisterDefinitions]


def test_equal_plans_have_one_id_and_every_step_its_own():
    one, other = first(), first()
    assert one.id == other.id and one == other
    ids = [step_id(step) for step in one.steps]
    assert len(set(ids)) == len(ids)


def test_a_changed_owner_moves_no_data(tmp_path):
    done = second(edited(tmp_path, *EDITS["owner"]))
    assert [type(step) for step in done.steps] == [StoreBundle, RegisterDefinitions]
    assert {change.category for change in done.changes} == {Category.METADATA}
    assert done.impact.affected_decisions == ()


def test_a_changed_window_rebuilds_retrains_and_retires(tmp_path):
    done = second(edited(tmp_path, *EDITS["window"]))
    kinds = [type(step) for step in done.steps]
    assert kinds == [StoreBundle, BackfillGroup, PublishState, RegisterDefinitions, RetireState]
    assert done.impact.rebuilt_views == ("PlaneHistory",)
    assert done.impact.retrained_models == ("delay",)
    assert done.impact.affected_decisions == ("get_delay_risk",)


def test_state_that_a_serving_release_reads_stays_and_receives_events(tmp_path):
    old = first().groups[0].hash
    done = second(edited(tmp_path, *EDITS["window"]), needed_groups=(old,))
    (published,) = [step for step in done.steps if isinstance(step, PublishState)]
    assert old in published.groups and done.groups[0].hash in published.groups
    assert not [step for step in done.steps if isinstance(step, RetireState)]


def test_a_new_column_widens_its_table(tmp_path):
    done = second(edited(tmp_path, *EDITS["column_added"]))
    (widened,) = [step for step in done.steps if isinstance(step, WidenTable)]
    assert widened.table == "fact_landings" and widened.columns.names == ("gate",)
    assert not [step for step in done.steps if isinstance(step, BackfillGroup)]


def test_bytes_a_key_are_estimated_once_the_rate_of_events_is_known(tmp_path):
    done = second(edited(tmp_path, *EDITS["window"]), events_per_key_day={"landings": 4.0})
    (size,) = done.impact.sizes
    assert size.bytes_per_key is not None and size.sealed_us is not None
    # A year of `every=` is a tile a day; rows stay for as long as plain windows reach.
    assert size.bytes_per_event * 4 * 14 < size.bytes_per_key < size.bytes_per_event * 4 * 365


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (("    distance: int\n", "    distance: float\n"), "request__distance holds int64 and would hold float64"),
        (('class Landing(vo.Event, id="flight_id")', 'class Landing(vo.Event, id=("flight_id", "landed_at"))'), "identified"),
        (('legs_24h = vo.count(within="24h")', 'legs_24h = vo.mean("arr_delay", within="24h")'), "legs_24h holds int64"),
    ],
    ids=["request field", "id", "feature"],
)  # fmt: skip
def test_what_would_change_the_meaning_of_stored_rows_is_refused(tmp_path, edit, says):
    edits = [edit]
    if "float" in edit[1]:
        edits.append(("distance: int = ", "distance: float = "))
    with pytest.raises(PlanRefused, match=says) as caught:
        second(edited(tmp_path, *edits))
    assert caught.value.mend


def test_another_namespace_is_refused():
    done = first()
    other = msgspec.structs.replace(done.project, namespace="other")
    with pytest.raises(PlanRefused, match="Namespace"):
        plan(other, done.project, state_after(done), bundle="b2", applied_bundle="b1")


def test_a_plan_carries_the_groups_it_builds():
    done = first()
    assert done.groups == state_groups(done.project)
    built = [step.group for step in done.steps if isinstance(step, BackfillGroup)]
    assert built == [group.hash for group in done.groups]
