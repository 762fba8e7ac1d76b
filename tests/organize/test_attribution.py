"""Outcomes divided among decisions: every rule against a naive reading of it, and often against once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.organize.test_labels import HORIZON, INSTANT, SQL, as_rows, label
from volano.errors import InvariantError
from volano.kernels.standing import newest_rows
from volano.organize.attribution import ATTACHED, DETACHED, check_shares
from volano.organize.labels import LATE, NOTHING, Derived, Evidence, attribute, may_change, state_as_of
from volano.plan.definitions import CompiledLabel
from volano.values.schema import DType

AMOUNT = {
    "value_sql": "amount",
    "dtype": DType.FLOAT64,
    "combine": "sum",
    "default": 0.0,
    "has_default": True,
}
DIVIDED: tuple[dict[str, Any], ...] = (
    {},
    {"credit": "first"},
    {"credit": "last", "combine": "last"},
    {"credit": "position", "ends": 0.4, **AMOUNT},
    {"credit": "decay", "half_life_us": 3, **AMOUNT},
    AMOUNT,
    {"combine": "any", "credit": "last"},
    {"combine": "any"},
    {"exposed": True, "default": False, "has_default": True},
    {"exposed": True, "credit": "last", **AMOUNT},
)


def of(**changes: Any) -> CompiledLabel:
    """A label on `user` of whether, or how much, was bought."""
    own = {"on": (("user", "user"),), "source": "buys", "value_sql": "amount > 1", "censored_by": ()}
    return label(**own | changes)


def made(*rows: tuple[str, int, str | None, int]) -> pa.Table:
    """(decision_id, decided_at, user, applied_at)"""
    ids, decided, users, applied = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "decision_id": pa.array(ids, pa.string()),
            "decided_at": pa.array(decided, INSTANT),
            "applied_at": pa.array(applied, INSTANT),
            "request__user": pa.array(users, pa.string()),
        }
    )


def buys(*rows: tuple[str, str | None, int, int, float | None, int | None]) -> pa.Table:
    """(event_id, user, event_time, known_at, amount, superseded_known_at)"""
    ids, users, times, known, amounts, ends = zip(*rows, strict=True) if rows else ((),) * 6
    return pa.table(
        {
            "event_id": pa.array(ids, pa.string()),
            "user": pa.array(users, pa.string()),
            "event_time": pa.array(times, INSTANT),
            "known_at": pa.array(known, INSTANT),
            "applied_at": pa.array(known, INSTANT),
            "amount": pa.array(amounts, pa.float64()),
            "superseded_known_at": pa.array(ends, INSTANT),
        }
    )


def shows(*rows: tuple[str, int, int, int | None]) -> pa.Table:
    """(decision_id, exposed_at, known_at, superseded_known_at)"""
    ids, times, known, ends = zip(*rows, strict=True) if rows else ((),) * 4
    return pa.table(
        {
            "event_id": pa.array([f"x{number}" for number in range(len(rows))], pa.string()),
            "decision": pa.array(["offer"] * len(rows), pa.string()),
            "decision_id": pa.array(ids, pa.string()),
            "event_time": pa.array(times, INSTANT),
            "known_at": pa.array(known, INSTANT),
            "superseded_known_at": pa.array(ends, INSTANT),
        }
    )


def run(
    label: CompiledLabel,
    decisions: pa.Table,
    evidence: Evidence,
    as_of: int,
    written: Derived = NOTHING,
    judged: Any = None,
) -> Derived:
    return attribute(
        label, decisions, evidence, decision="offer", as_of=as_of, sql=SQL, written=written, judged=judged
    )


def states(derived: Derived, as_of: int) -> dict[str, tuple[Any, ...]]:
    """decision_id -> (state, value, evidence, reason); those that are not pending."""
    rows = state_as_of(derived.labels, as_of).to_pylist()
    return {
        row["decision_id"]: (row["state"], row["value"], row["evidence"], row["reason"])
        for row in rows
        if row["state"] != "pending"
    }


def pairs(derived: Derived) -> dict[tuple[str, str], float]:
    """(event_id, decision_id) -> weight, of what stands."""
    rows = derived.attribution
    keys = pa.array([f"{row['decision_id']}/{row['event_id']}" for row in rows.to_pylist()], pa.string())
    at = np.array([row["attached_at"] for row in as_rows(rows)], dtype=np.int64)
    standing = rows.take(pa.array(newest_rows(keys, at))).to_pylist()
    assert {row["state"] for row in standing} <= {ATTACHED, DETACHED}
    assert all((row["weight"] > 0) == (row["state"] == ATTACHED) for row in standing)
    return {(row["event_id"], row["decision_id"]): row["weight"] for row in standing if row["weight"]}


# --- the rules one by one ------------------------------------------------------------------------------------

TWO = made(("a", 100, "u", 100), ("b", 104, "u", 104))
ONE_BUY = buys(("e", "u", 106, 106, 30.0, None))


def test_an_outcome_counts_for_every_open_decision_and_is_shared_equally() -> None:
    derived = run(of(), TWO, Evidence(ONE_BUY), 120)
    assert pairs(derived) == {("e", "a"): 0.5, ("e", "b"): 0.5}
    assert {row[1] for row in states(derived, 120).values()} == {1.0}


@pytest.mark.parametrize(("credit", "winner"), [("first", "a"), ("last", "b")])
def test_of_several_open_decisions_one_gets_the_outcome(credit: str, winner: str) -> None:
    derived = run(of(credit=credit, default=False, has_default=True), TWO, Evidence(ONE_BUY), 120)
    assert pairs(derived) == {("e", winner): 1.0}
    assert {name: row[1] for name, row in states(derived, 120).items()} == {"a": 0.0, "b": 0.0} | {
        winner: 1.0
    }


def test_a_sum_adds_the_shares_of_outcomes_inside_the_horizon() -> None:
    evidence = buys(("e", "u", 106, 106, 30.0, None), ("f", "u", 112, 112, 8.0, None))
    derived = run(of(**AMOUNT), TWO, Evidence(evidence), 130)
    assert {name: row[:3] for name, row in states(derived, 130).items()} == {
        "a": ("mature", 15.0, "e"),
        "b": ("mature", 23.0, "f"),
    }


def test_a_sum_with_an_unknown_amount_is_unknown_and_not_less() -> None:
    evidence = buys(("e", "u", 106, 106, 30.0, None), ("f", "u", 107, 107, None, None))
    assert states(run(of(**AMOUNT), TWO, Evidence(evidence), 130), 130)["a"][:2] == ("censored", None)


def test_any_is_true_with_one_true_outcome_and_unknown_with_an_unknown_one_instead() -> None:
    anyone = of(combine="any")
    one = made(("a", 100, "u", 100))
    small, unknown, large = (
        ("e", "u", 101, 101, 0.0, None),
        ("f", "u", 102, 102, None, None),
        ("g", "u", 103, 103, 9.0, None),
    )
    assert states(run(anyone, one, Evidence(buys(small)), 120), 120)["a"][:3] == ("mature", 0.0, "e")
    assert states(run(anyone, one, Evidence(buys(small, unknown)), 120), 120)["a"][:2] == ("censored", None)
    assert states(run(anyone, one, Evidence(buys(small, unknown, large)), 120), 120)["a"][:3] == (
        "mature",
        1.0,
        "g",
    )


def test_what_was_never_shown_has_no_label_and_least_of_all_the_default() -> None:
    shown = of(exposed=True, default=False, has_default=True)
    derived = run(shown, TWO, Evidence(ONE_BUY, exposures=shows(("b", 105, 105, None))), 120)
    assert pairs(derived) == {("e", "b"): 1.0}
    assert states(derived, 120)["a"] == ("censored", None, None, "it was never shown")
    quiet = run(shown, TWO, Evidence(buys(), exposures=shows(("b", 105, 105, None))), 120)
    assert states(quiet, 120)["b"][:2] == ("mature", 0.0)


def test_an_outcome_before_the_decision_was_shown_does_not_count() -> None:
    shown = of(exposed=True, default=False, has_default=True)
    derived = run(shown, TWO, Evidence(ONE_BUY, exposures=shows(("b", 107, 107, None))), 120)
    assert pairs(derived) == {}
    assert states(derived, 120)["b"][:2] == ("mature", 0.0)


def test_an_exposure_that_becomes_known_after_maturity_appends_a_row_that_says_so() -> None:
    shown = of(exposed=True, default=False, has_default=True)
    evidence = Evidence(buys(), exposures=shows(("a", 101, 130, None)))
    first = run(shown, TWO, evidence, 120)
    second = run(shown, TWO, evidence, 130, first)
    assert states(first, 120)["a"][0] == "censored"
    assert states(second, 130)["a"] == ("mature", 0.0, None, "that it was shown became known after maturity")


def test_a_decision_that_comes_after_its_outcome_shares_it_from_then_on() -> None:
    late = made(("a", 100, "u", 100), ("b", 104, "u", 140))
    first = run(of(**AMOUNT), late, Evidence(ONE_BUY), 120)
    judged = may_change(of(**AMOUNT), late, Evidence(ONE_BUY), decision="offer", since=120, as_of=140)
    second = run(of(**AMOUNT), late, Evidence(ONE_BUY), 140, first, judged)
    assert pairs(first) == {("e", "a"): 1.0}
    assert pairs(second) == {("e", "a"): 0.5, ("e", "b"): 0.5}
    assert states(second, 140) == {"a": ("mature", 15.0, "e", ""), "b": ("mature", 15.0, "e", "")}


def test_a_pair_that_is_no_more_is_detached_and_has_no_weight() -> None:
    evidence = Evidence(buys(("e", "u", 106, 106, 30.0, 108)))
    first = run(of(), TWO, evidence, 107)
    second = run(of(), TWO, evidence, 108, first)
    assert [(row["state"], row["weight"]) for row in second.attribution.to_pylist()] == [(DETACHED, 0.0)] * 2


def test_outcomes_of_one_instant_are_ordered_by_the_source_and_never_by_arrival() -> None:
    one = made(("a", 100, "u", 100))
    rows = buys(("e", "u", 106, 107, 30.0, None), ("f", "u", 106, 106, 0.0, None))
    rows = rows.append_column("till", pa.array([2, 1]))
    assert states(run(of(), one, Evidence(rows), 120), 120)["a"][2] == "e"
    assert states(run(of(), one, Evidence(rows, order_by=("till",)), 120), 120)["a"][2] == "f"


def test_a_pending_label_is_never_a_negative() -> None:
    """Inside the horizon, whatever the rule and the default, a decision without an outcome has neither row nor value."""
    for changes in DIVIDED:
        divided = of(**{"default": False, "has_default": True} | changes)
        for exposures in (None, shows(), shows(("a", 101, 101, None))):
            derived = run(divided, TWO, Evidence(buys(), exposures=exposures), 109)
            assert derived.labels.num_rows == 0
            assert derived.attribution.num_rows == 0
        taken_back = run(divided, TWO, Evidence(buys(("e", "u", 106, 106, 0.0, 108))), 109)
        assert taken_back.labels["value"].null_count == taken_back.labels.num_rows


def test_an_outcome_that_is_given_away_twice_is_named() -> None:
    rows = run(of(), TWO, Evidence(ONE_BUY), 120).attribution
    check_shares(rows)
    later = rows.set_column(
        rows.column_names.index("weight"), rows.schema.field("weight"), pa.array([0.6, 0.5])
    )
    with pytest.raises(InvariantError, match="first 'e' of label 'late' to decisions of 'offer'"):
        check_shares(pa.concat_tables([rows, later]))


# --- the oracle: one decision at a time ----------------------------------------------------------------------


def shares(label: CompiledLabel, n: int, ages: list[int]) -> list[float]:
    """Of touches, oldest first."""
    match label.credit:
        case "first":
            return [1.0, *[0.0] * (n - 1)]
        case "last":
            return [*[0.0] * (n - 1), 1.0]
        case "decay":
            raw = [0.5 ** (age / label.half_life_us) for age in ages]
            return [each / sum(raw) for each in raw]
        case "position" if n > 2 and label.ends is not None:
            return [label.ends, *[(1 - 2 * label.ends) / (n - 2)] * (n - 2), label.ends]
    return [1 / n] * n


def oracle(
    label: CompiledLabel, decisions: pa.Table, evidence: Evidence, as_of: int
) -> tuple[dict[str, tuple[Any, ...]], dict[tuple[str, str], float]]:
    def known(row: dict[str, Any]) -> bool:
        return bool(row["known_at"] <= as_of)

    def stands(row: dict[str, Any]) -> bool:
        return known(row) and (row["superseded_known_at"] is None or row["superseded_known_at"] > as_of)

    rows = [row for row in as_rows(decisions) if row["applied_at"] <= as_of]
    rows.sort(key=lambda row: (row["decided_at"], row["decision_id"]))
    seen = as_rows(evidence.outcomes)
    seen.sort(key=lambda row: (row["event_time"], row["event_id"], row["known_at"]))
    standing = [row for row in seen if stands(row)]
    alive = {row["event_id"] for row in standing}
    gone = [row for row in seen if known(row) and row["event_id"] not in alive]
    shown_at: dict[str, tuple[int, int]] = {}
    for row in rows:
        at = row["decided_at"]
        near = [
            (show["event_time"], show["known_at"])
            for show in as_rows(evidence.exposures if evidence.exposures is not None else shows())
            if stands(show)
            and show["decision_id"] == row["decision_id"]
            and -HORIZON <= show["event_time"] - at < HORIZON
        ]
        if near:
            shown_at[row["decision_id"]] = min(near)

    def touches(event: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            row
            for row in rows
            if row["request__user"] == event["user"] is not None
            and row["decided_at"] <= event["event_time"] < row["decided_at"] + HORIZON
            and (not label.exposed or shown_at.get(row["decision_id"], (10**9,))[0] <= event["event_time"])
        ]

    def divided(events: list[dict[str, Any]]) -> dict[tuple[int, str], float]:
        found = {}
        for number, event in enumerate(events):
            open_then = touches(event)
            ages = [open_then[-1]["decided_at"] - row["decided_at"] for row in open_then]
            weights = shares(label, len(open_then), ages) if open_then else []
            found |= {(number, row["decision_id"]): w for row, w in zip(open_then, weights, strict=True) if w}
        return found

    weights, once = divided(standing), divided(gone)
    answer: dict[str, tuple[Any, ...]] = {}
    kept: dict[tuple[str, str], float] = {}
    for row in rows:
        name, matures_at = row["decision_id"], row["decided_at"] + HORIZON
        own = [number for number, _ in enumerate(standing) if (number, name) in weights]
        own = {"": own[:1], "last": own[-1:]}.get(label.combine, own)
        events = [standing[number] for number in own]
        kept |= {(standing[number]["event_id"], name): weights[number, name] for number in own}
        back = [event for number, event in enumerate(gone) if (number, name) in once]
        is_open = as_of < matures_at
        if events:
            values = [
                event["amount"] if label.combine == "sum" else _above_one(event["amount"]) for event in events
            ]
            cited, behind, value = events[-1], events, values[-1]
            if label.combine == "any" and True in values:
                cited, value = events[values.index(True)], True
                behind = [cited]
            elif label.combine in ("any", "sum") and None in values:
                value = None
            elif label.combine == "sum":
                value = sum(
                    w * v for w, v in zip((weights[number, name] for number in own), values, strict=True)
                )
            state = "censored" if value is None else "provisional" if is_open else "mature"
            late = LATE if any(event["known_at"] >= matures_at for event in behind) else ""
            reason = "the outcome has no value" if value is None else late
            answer[name] = (state, None if value is None else float(value), cited["event_id"], reason)
        elif is_open:
            if back:
                answer[name] = ("retracted", None, back[0]["event_id"], "the outcome was taken back")
        else:
            cited_back = back[0]["event_id"] if back else None
            never = label.exposed and name not in shown_at
            answered = label.has_default and not never
            reason = "the outcome was taken back" if back else "no outcome within 10us"
            if never:
                reason = "it was never shown"
            elif label.exposed and not back and shown_at[name][1] >= matures_at:
                reason = "that it was shown became known after maturity"
            value = float(label.default) if answered else None  # type: ignore[arg-type]
            answer[name] = ("mature" if answered else "censored", value, cited_back, reason)
    return answer, kept


def _above_one(amount: float | None) -> bool | None:
    return None if amount is None else amount > 1


users = st.sampled_from(["u", "v", None])
instants = st.integers(0, 40)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[pa.Table, Evidence]:
    ids = [f"d{number}" for number in range(draw(st.integers(1, 6)))]
    decided = {name: draw(instants) for name in ids}
    lag = st.sampled_from([0, 0, 1, 4, 20])
    decisions = made(*[(name, at, draw(users), at + draw(lag)) for name, at in decided.items()])
    bought: list[tuple[str, str | None, int, int, float | None, int | None]] = []
    for number in range(draw(st.integers(0, 6))):
        known = draw(instants)
        for _ in range(draw(st.integers(1, 3))):  # revisions of one event
            ends = draw(st.one_of(st.none(), st.integers(known, known + 15)))
            bought.append(
                (
                    f"e{number}",
                    draw(users),
                    draw(instants),
                    known,
                    draw(st.sampled_from([0.0, 8.0, 3.5, None])),
                    ends,
                )
            )
            if ends is None:
                break
            known = ends
    shown: list[tuple[str, int, int, int | None]] = []
    for _ in range(draw(st.integers(0, 6))):
        name = draw(st.sampled_from(ids))
        at = decided[name] + draw(st.integers(-2, 12))
        known = max(at + draw(lag), 0)
        shown.append((name, at, known, draw(st.one_of(st.none(), st.integers(known, known + 15)))))
    return decisions, Evidence(buys(*bought), exposures=shows(*shown))


def same_pairs(found: dict[tuple[str, str], float], expected: dict[tuple[str, str], float]) -> bool:
    return found.keys() == expected.keys() and list(found.values()) == pytest.approx(
        [expected[key] for key in found], abs=1e-12
    )


@given(worlds(), st.sampled_from(DIVIDED), st.integers(0, 75))
@settings(max_examples=250, deadline=None)
def test_states_and_shares_equal_the_oracle(
    world: tuple[pa.Table, Evidence], changes: dict[str, Any], as_of: int
) -> None:
    decisions, evidence = world
    derived = run(of(**changes), decisions, evidence, as_of)
    expected, kept = oracle(of(**changes), decisions, evidence, as_of)
    found = states(derived, as_of)
    assert {name: row[0] for name, row in found.items()} == {name: row[0] for name, row in expected.items()}
    assert {name: row[2:] for name, row in found.items()} == {name: row[2:] for name, row in expected.items()}
    for name, row in found.items():
        assert row[1] == (None if expected[name][1] is None else pytest.approx(expected[name][1], abs=1e-9))
    assert same_pairs(pairs(derived), kept)
    again = run(of(**changes), decisions, evidence, as_of, derived)
    assert not again.labels.num_rows
    assert not again.attribution.num_rows, "twice adds nothing"


@given(worlds(), st.sampled_from(DIVIDED), st.lists(st.integers(0, 70), max_size=6))
@settings(max_examples=250, deadline=None)
def test_often_gives_the_same_labels_and_shares_as_once(
    world: tuple[pa.Table, Evidence], changes: dict[str, Any], moments: list[int]
) -> None:
    decisions, evidence = world
    divided = of(**changes)
    once = run(divided, decisions, evidence, 75)
    often, since = NOTHING, -1
    for as_of in [*sorted(set(moments)), 75]:
        judged = may_change(divided, decisions, evidence, decision="offer", since=since, as_of=as_of)
        new = run(divided, decisions, evidence, as_of, often, judged)
        often = Derived(*(pa.concat_tables(both) for both in zip(often, new, strict=True)))
        since = as_of
    assert states(often, 75) == states(once, 75)
    assert pairs(often) == pairs(once)


@given(worlds(), st.sampled_from(DIVIDED), st.integers(0, 75))
@settings(max_examples=100, deadline=None)
def test_the_shares_of_an_outcome_sum_to_at_most_one(
    world: tuple[pa.Table, Evidence], changes: dict[str, Any], as_of: int
) -> None:
    decisions, evidence = world
    total: dict[str, float] = {}
    for (event_id, _), weight in pairs(run(of(**changes), decisions, evidence, as_of)).items():
        total[event_id] = total.get(event_id, 0.0) + weight
    assert all(each <= 1.0 for each in total.values())
