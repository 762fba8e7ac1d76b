"""Attribution against a naive oracle, and its rules one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from volano.errors import InvariantError, RequestError
from volano.organize.labels import (
    LATE,
    NOTHING,
    Derived,
    Evidence,
    attribute,
    count_states,
    may_change,
    state_as_of,
)
from volano.plan.definitions import CompiledLabel
from volano.records.label import LabelState
from volano.values.schema import DType

INSTANT = pa.timestamp("us", "UTC")
HORIZON = 10


class Duck:
    """The part of a SQL engine that attribution uses."""

    def query(self, sql: str, relations: Mapping[str, pa.Table]) -> pa.Table:
        with duckdb.connect() as connection:
            for name, table in relations.items():
                connection.register(name, table)
            return connection.sql(sql).to_arrow_table()

    def read_table(self, address: str) -> pa.Table:
        raise NotImplementedError

    def snapshot(self, address: str) -> str:
        raise NotImplementedError


SQL = Duck()


def label(**changes: Any) -> CompiledLabel:
    return CompiledLabel(
        **{
            "name": "late",
            "request": "Departure",
            "source": "landings",
            "on": (("flight", "flight_id"),),
            "value_sql": "delay >= 30",
            "dtype": DType.BOOL,
            "horizon_us": HORIZON,
            "owner": "ops",
            "censored_by": ("cancellations",),
            **changes,
        }
    )


def decisions(*rows: tuple[str, int, str | None]) -> pa.Table:
    """(decision_id, decided_at, flight)"""
    return pa.table(
        {
            "decision_id": pa.array([row[0] for row in rows], pa.string()),
            "decided_at": pa.array([row[1] for row in rows], INSTANT),
            "request__flight": pa.array([row[2] for row in rows], pa.string()),
        }
    )


def events(*rows: tuple[str, str | None, int, int, float | None, int | None]) -> pa.Table:
    """(event_id, flight, event_time, known_at, delay, superseded_known_at)"""
    return pa.table(
        {
            "event_id": pa.array([row[0] for row in rows], pa.string()),
            "flight_id": pa.array([row[1] for row in rows], pa.string()),
            "event_time": pa.array([row[2] for row in rows], INSTANT),
            "known_at": pa.array([row[3] for row in rows], INSTANT),
            "applied_at": pa.array([row[3] for row in rows], INSTANT),
            "delay": pa.array([row[4] for row in rows], pa.float64()),
            "superseded_known_at": pa.array([row[5] for row in rows], INSTANT),
        }
    )


def run(
    made: pa.Table,
    evidence: pa.Table,
    as_of: int,
    *,
    censor: pa.Table | None = None,
    existing: pa.Table | None = None,
    of: CompiledLabel | None = None,
) -> pa.Table:
    censors = {} if censor is None else {"cancellations": censor}
    written = NOTHING if existing is None else NOTHING._replace(labels=existing)
    return derive(of or label(), made, Evidence(evidence, censors), as_of, written).labels


def derive(
    of: CompiledLabel,
    made: pa.Table,
    evidence: Evidence,
    as_of: int,
    written: Derived = NOTHING,
    judged: NDArray[np.bool_] | None = None,
) -> Derived:
    return attribute(
        of, made, evidence, decision="get_risk", as_of=as_of, sql=SQL, written=written, judged=judged
    )


def one(table: pa.Table) -> dict[str, Any]:
    assert table.num_rows == 1, table.to_pylist()
    return dict(table.to_pylist()[0])


ONE = decisions(("d", 100, "f"))


def test_a_decision_without_evidence_is_pending_and_has_no_row() -> None:
    assert run(ONE, events(), 109).num_rows == 0


def test_evidence_inside_the_open_horizon_is_provisional() -> None:
    row = one(run(ONE, events(("e", "f", 105, 106, 45.0, None)), 106))
    assert (row["state"], row["value"], row["evidence"]) == ("provisional", 1.0, "e")


def test_the_label_matures_at_exactly_the_end_of_its_horizon() -> None:
    evidence = events(("e", "f", 105, 106, 45.0, None))
    assert one(run(ONE, evidence, 109))["state"] == "provisional"
    assert one(run(ONE, evidence, 110))["state"] == "mature"


def test_the_horizon_is_half_open() -> None:
    def state(event_time: int) -> str:
        return str(one(run(ONE, events(("e", "f", event_time, 108, 45.0, None)), 200))["state"])

    assert [state(99), state(100), state(109), state(110)] == ["censored", "mature", "mature", "censored"]


def test_evidence_not_yet_known_does_not_count() -> None:
    assert run(ONE, events(("e", "f", 105, 108, 45.0, None)), 107).num_rows == 0


def test_no_evidence_at_maturity_is_censored_with_the_horizon_named() -> None:
    hours = label(horizon_us=36 * 3_600_000_000)
    row = one(run(ONE, events(), 100 + hours.horizon_us, of=hours))
    assert (row["state"], row["value"], row["reason"]) == ("censored", None, "no outcome within 36h")


def test_a_declared_default_is_the_mature_value_when_nothing_came() -> None:
    row = one(run(ONE, events(), 110, of=label(default=False, has_default=True)))
    assert (row["state"], row["value"], row["evidence"]) == ("mature", 0.0, None)


def test_a_null_outcome_is_censored_and_never_a_negative() -> None:
    row = one(run(ONE, events(("e", "f", 105, 106, None, None)), 110))
    assert (row["state"], row["value"], row["reason"]) == ("censored", None, "the outcome has no value")


def test_a_censoring_event_censors_whatever_else_happened() -> None:
    row = one(
        run(ONE, events(("e", "f", 105, 106, 45.0, None)), 107, censor=events(("c", "f", 104, 107, 0, None)))
    )
    assert (row["state"], row["evidence"], row["evidence_source"]) == ("censored", "c", "cancellations")
    assert row["reason"] == "censored by cancellations"
    assert row["value"] is None


def test_of_several_events_the_first_decides_until_it_is_corrected() -> None:
    evidence = events(("b", "f", 106, 106, 0.0, None), ("a", "f", 105, 107, 45.0, None))
    assert one(run(ONE, evidence, 106))["value"] == 0.0
    assert one(run(ONE, evidence, 107))["evidence"] == "a"
    corrected = events(("a", "f", 105, 107, 45.0, 108), ("a", "f", 105, 108, 10.0, None))
    assert one(run(ONE, corrected, 109))["value"] == 0.0


def test_a_correction_appends_a_row() -> None:
    before = run(ONE, events(("a", "f", 105, 106, 45.0, 108), ("a", "f", 105, 108, 10.0, None)), 107)
    after = run(
        ONE, events(("a", "f", 105, 106, 45.0, 108), ("a", "f", 105, 108, 10.0, None)), 109, existing=before
    )
    assert (one(before)["value"], one(after)["value"]) == (1.0, 0.0)


def test_a_retraction_is_retracted_then_censored_at_maturity() -> None:
    evidence = events(("a", "f", 105, 106, 45.0, 108))
    first = run(ONE, evidence, 107)
    second = run(ONE, evidence, 108, existing=first)
    third = run(ONE, evidence, 110, existing=pa.concat_tables([first, second]))
    assert [one(t)["state"] for t in (first, second, third)] == ["provisional", "retracted", "censored"]
    assert one(second)["value"] is None
    assert one(third)["reason"] == "the outcome was taken back"


def test_a_correction_that_moves_the_event_out_of_the_horizon_makes_the_label_pending_again() -> None:
    evidence = events(("a", "f", 105, 106, 45.0, 108), ("a", "f", 300, 108, 45.0, None))
    first = run(ONE, evidence, 107)
    row = one(run(ONE, evidence, 108, existing=first))
    assert (row["state"], row["value"], row["evidence"]) == ("pending", None, None)


def test_evidence_after_maturity_supersedes_the_row_and_is_flagged() -> None:
    evidence = events(("a", "f", 105, 150, 45.0, None))
    first = run(ONE, evidence, 110)
    second = run(ONE, evidence, 150, existing=first)
    assert (one(first)["state"], one(second)["state"], one(second)["reason"]) == ("censored", "mature", LATE)
    assert one(state_as_of(pa.concat_tables([first, second]), 149))["state"] == "censored"


def test_a_decision_without_a_key_never_finds_evidence() -> None:
    evidence = events(("a", None, 105, 106, 45.0, None))
    assert run(decisions(("d", 100, None)), evidence, 109).num_rows == 0


def test_decisions_after_the_instant_are_left_out() -> None:
    assert run(decisions(("d", 200, "f")), events(("a", "f", 200, 200, 1.0, None)), 199).num_rows == 0


def test_a_text_label_stands_in_value_text() -> None:
    kinds = label(value_sql="CASE WHEN delay > 30 THEN 'late' ELSE 'on time' END", dtype=DType.STRING)
    row = one(run(ONE, events(("e", "f", 105, 106, 45.0, None)), 110, of=kinds))
    assert (row["state"], row["value"], row["value_text"]) == ("mature", None, "late")


def test_a_join_on_two_columns() -> None:
    two = label(on=(("flight", "flight_id"), ("leg", "leg")))
    made = decisions(("x", 100, "f"), ("y", 100, "f"), ("z", 100, "g")).append_column(
        "request__leg", pa.array([1, 2, 2])
    )
    evidence = events(("e", "f", 105, 105, 45.0, None), ("h", "g", 105, 105, 45.0, None)).append_column(
        "leg", pa.array([2, 1])
    )
    rows = run(made, evidence, 106, of=two)
    assert rows["decision_id"].to_pylist() == ["y"]


def test_state_cannot_be_written_in_the_past() -> None:
    evidence = events(("a", "f", 105, 106, 45.0, None))
    existing = run(ONE, evidence, 110)
    with pytest.raises(InvariantError, match="already computed"):
        run(ONE, evidence, 106, existing=existing)


def test_a_missing_join_column_is_named() -> None:
    with pytest.raises(RequestError, match="request__flight"):
        run(ONE.drop_columns(["request__flight"]), events(), 110)


def test_states_are_counted_and_the_rest_is_pending() -> None:
    rows = run(ONE, events(("a", "f", 105, 106, 45.0, None)), 110)
    assert count_states(3, rows, 110)[LabelState.PENDING] == 2
    assert count_states(3, rows, 110)[LabelState.MATURE] == 1
    assert count_states(3, rows, 109)[LabelState.PENDING] == 3


# --- the oracle: the rules read aloud, one decision at a time --------------------------------------------------


def oracle(
    made: list[dict[str, Any]],
    evidence: list[dict[str, Any]],
    censor: list[dict[str, Any]],
    as_of: int,
    default: bool | None,
) -> dict[str, tuple[Any, ...]]:
    """decision_id -> (state, value, evidence, reason)"""

    def inside(event: dict[str, Any], decision: dict[str, Any]) -> bool:
        return (
            event["flight_id"] is not None
            and event["flight_id"] == decision["request__flight"]
            and decision["decided_at"] <= event["event_time"] < decision["decided_at"] + HORIZON
            and event["known_at"] <= as_of
        )

    def stands(event: dict[str, Any]) -> bool:
        return event["superseded_known_at"] is None or event["superseded_known_at"] > as_of

    def first(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return min(rows, key=lambda row: (row["event_time"], row["event_id"], row["known_at"]))

    answer: dict[str, tuple[Any, ...]] = {}
    alive = {row["event_id"] for row in evidence if row["known_at"] <= as_of and stands(row)}
    for decision in made:
        if decision["decided_at"] > as_of:
            continue
        matures_at = decision["decided_at"] + HORIZON
        cancelled = [row for row in censor if inside(row, decision) and stands(row)]
        seen = [row for row in evidence if inside(row, decision) and stands(row)]
        gone = [row for row in evidence if inside(row, decision) and row["event_id"] not in alive]
        late = f"; {LATE}"
        if cancelled:
            row = first(cancelled)
            reason = "censored by cancellations" + (late if row["known_at"] >= matures_at else "")
            result: tuple[Any, ...] = ("censored", None, row["event_id"], reason)
        elif seen and first(seen)["delay"] is None:
            result = ("censored", None, first(seen)["event_id"], "the outcome has no value")
        elif seen:
            row = first(seen)
            state = "provisional" if as_of < matures_at else "mature"
            result = (
                state,
                float(row["delay"] >= 30),
                row["event_id"],
                LATE if row["known_at"] >= matures_at else "",
            )
        elif as_of < matures_at:
            result = (
                ("retracted", None, first(gone)["event_id"], "the outcome was taken back")
                if gone
                else ("pending", None, None, "")
            )
        else:
            state = "censored" if default is None else "mature"
            why = "the outcome was taken back" if gone else "no outcome within 10us"
            value = None if default is None else float(default)
            result = (state, value, first(gone)["event_id"] if gone else None, why)
        answer[decision["decision_id"]] = result
    return answer


def as_rows(table: pa.Table) -> list[dict[str, Any]]:
    times = [name for name in table.column_names if pa.types.is_timestamp(table[name].type)]
    for name in times:
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    return list(table.to_pylist())


flights = st.sampled_from(["f", "g", None])
instants = st.integers(0, 40)


@st.composite
def fact_tables(draw: st.DrawFn) -> pa.Table:
    rows: list[tuple[str, str | None, int, int, float | None, int | None]] = []
    for number in range(draw(st.integers(0, 6))):
        known = draw(instants)
        for _ in range(draw(st.integers(1, 3))):  # revisions of one event
            ends = draw(st.one_of(st.none(), st.integers(known, known + 15)))
            delay = draw(st.sampled_from([0.0, 45.0, None]))
            rows.append((f"e{number}", draw(flights), draw(instants), known, delay, ends))
            if ends is None:
                break
            known = ends
    return events(*rows)


@st.composite
def decision_tables(draw: st.DrawFn) -> pa.Table:
    return decisions(*[(f"d{n}", draw(instants), draw(flights)) for n in range(draw(st.integers(1, 5)))])


def final(labels: pa.Table, made: pa.Table, as_of: int) -> dict[str, tuple[Any, ...]]:
    pending = {
        row["decision_id"]: ("pending", None, None, "") for row in as_rows(made) if row["decided_at"] <= as_of
    }
    standing = {
        row["decision_id"]: (row["state"], row["value"], row["evidence"], row["reason"])
        for row in state_as_of(labels, as_of).to_pylist()
    }
    return pending | standing


@given(decision_tables(), fact_tables(), fact_tables(), st.integers(0, 70), st.sampled_from([None, False]))
@settings(max_examples=150, deadline=None)
def test_attribution_equals_the_oracle(
    made: pa.Table, evidence: pa.Table, censor: pa.Table, as_of: int, default: bool | None
) -> None:
    of = label(default=default, has_default=default is not None)
    labels = run(made, evidence, as_of, censor=censor, of=of)
    expected = oracle(as_rows(made), as_rows(evidence), as_rows(censor), as_of, default)
    assert final(labels, made, as_of) == expected
    assert not run(made, evidence, as_of, censor=censor, existing=labels, of=of).num_rows, (
        "twice adds nothing"
    )


@given(decision_tables(), fact_tables(), fact_tables(), st.lists(st.integers(0, 60), max_size=6))
@settings(max_examples=100, deadline=None)
def test_running_often_or_once_at_the_end_gives_the_same_final_states(
    made: pa.Table, evidence: pa.Table, censor: pa.Table, moments: list[int]
) -> None:
    once = run(made, evidence, 65, censor=censor)
    often = once.slice(0, 0)
    since = -1
    for as_of in [*sorted(set(moments)), 65]:
        said = Evidence(evidence, {"cancellations": censor})
        judged = may_change(label(), made, said, decision="get_risk", since=since, as_of=as_of)
        rows = derive(label(), made, said, as_of, NOTHING._replace(labels=often), judged).labels
        often = pa.concat_tables([often, rows])
        since = as_of
    assert final(often, made, 65) == final(once, made, 65)
    assert all(
        row["value"] is None for row in often.to_pylist() if row["state"] not in ("provisional", "mature")
    )


def test_a_retraction_reaches_the_decision_whose_horizon_its_event_once_lay_in() -> None:
    evidence = events(("e", "f", 105, 106, 45.0, 107), ("e", "f", 300, 107, 45.0, 111))
    assert may_change(label(), ONE, Evidence(evidence), decision="get_risk", since=110, as_of=111).all()
    assert one(run(ONE, evidence, 111))["reason"] == "the outcome was taken back"


def test_a_label_joins_on_the_decisions_own_id() -> None:
    own = label(on=(("decision_id", "flight_id"),))
    made = decisions(("d", 100, None), ("other", 100, "d"))
    rows = run(made, events(("e", "d", 105, 106, 45.0, None)), 200, of=own)
    assert {row["decision_id"]: (row["state"], row["value"]) for row in rows.to_pylist()} == {
        "d": ("mature", 1.0),
        "other": ("censored", None),
    }
