"""Fuzzed batches at the door: never a 500, never a lost neighbour, never an account that does not add up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.asking import Asker, asker
from tests.server.shop import DECISION, SOURCE, checkout, make_shop, order
from volano.project import Project

_LOOP = asyncio.new_event_loop()
_COUNT = iter(range(1_000_000))

scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "NaN",
            "\ud800",
            "2026-13-45T00:00:00Z",
            "0001-01-01T00:00:00+14:00",
            "x" * 1_200,
            "x" * 70_000,
            "1e999",
        ]
    )
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def text(value: Any) -> bytes:
    """JSON, also of what JSON cannot carry."""
    import json

    return json.dumps(value, ensure_ascii=True).encode()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An order with something wrong about it: a value, a field, a byte, or all of it."""
    event = order(1, order_id="fuzz-000000", closed_at="2026-01-01T00:00:00Z")
    kind = draw(st.sampled_from(["value", "gone", "more", "bytes", "other", "deep", "twice"]))
    name = draw(st.sampled_from(sorted(event)))
    if kind == "value":
        return text(event | {name: draw(anything)})
    if kind == "gone":
        return text({key: value for key, value in event.items() if key != name})
    if kind == "more":
        return text(event | {draw(st.text(max_size=5)): draw(anything)})
    if kind == "other":
        return text(draw(anything))
    if kind == "deep":
        return b'{"order_id": ' + b"[" * 3_000 + b"]" * 3_000 + b"}"
    data = bytearray(text(event))
    if kind == "twice":
        return bytes(data[:-1]) + b"," + bytes(data[1:])
    at = draw(st.integers(0, len(data) - 1))
    data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data).replace(b"\n", b" ")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Asker, Project]]:
    folder = make_shop(tmp_path_factory.mktemp("fuzz") / "shop")
    with Project.open(folder) as project:
        project.drain()
        opened = asker(folder)
        yield _LOOP.run_until_complete(opened.__aenter__()), project
        _LOOP.run_until_complete(opened.__aexit__(None, None, None))
        project.drain(commit=True)
        assert project.reconcile().is_exact
        # What was set aside is still readable, row by row.
        for row in project.quarantine()[:200]:
            assert project.quarantined(row.receipt_id).payload is not None
    _LOOP.close()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(mutated(), min_size=1, max_size=4),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.booleans(),
)
def test_whatever_comes_beside_them_good_events_are_taken(
    served: tuple[Asker, Project], bad: list[bytes], places: list[int], mixed: bool
) -> None:
    http, project = served
    lines = [line.replace(b"fuzz-000000", b"fuzz-%06d" % next(_COUNT)) for line in bad]
    good: list[str] = []
    for place in places:
        good.append(f"good-{next(_COUNT)}")
        event = text(order(next(_COUNT), order_id=good[-1]))
        lines.insert(min(place, len(lines)), event)
    if mixed:
        lines = [b'{"source": "orders", "event": ' + line + b"}" for line in lines]
    path = "/v1/observe" if mixed else f"/v1/observe/{SOURCE}"
    before = project.reconcile().events
    answer = _LOOP.run_until_complete(
        http.ask("POST", path, b"\n".join(lines), {"Content-Type": "application/x-ndjson"})
    )
    assert answer.status == 202, answer
    assert not http.said
    assert len(answer.body) == len([line for line in lines if line.strip()])
    taken = [each for each in answer.body if each["receipt_id"]]
    assert sum(each["status"] == "pending" for each in taken) >= len(good)
    assert all(each["code"] and each["message"] for each in answer.body if each["status"] != "pending")
    project.drain()
    after = project.reconcile().events
    assert after.accepted - before.accepted == len(taken)
    assert after.stored - before.stored >= len(set(good))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_logged_decision_exposure_or_action_makes_the_server_fail(
    served: tuple[Asker, Project], data: Any
) -> None:
    http, _ = served
    path, whole = data.draw(
        st.sampled_from(
            [
                (
                    f"/v1/decisions/{DECISION}",
                    {
                        "decision_id": "d", "request": checkout(1), "action": "ask", "propensity": 0.5,
                        "decided_at": "2026-01-01T00:00:00Z", "propensity_method": "coin",
                    },
                ),
                (
                    "/v1/observe/exposure",
                    {"exposure_id": "e", "decision": DECISION, "decision_id": "d", "exposed_at": "2026-01-01T00:00:00Z"},
                ),
                (
                    "/v1/observe/action_taken",
                    {
                        "action_id": "a", "decision": DECISION, "decision_id": "d", "action": "ask",
                        "taken_at": "2026-01-01T00:00:00Z",
                    },
                ),
            ]
        )
    )  # fmt: skip
    name = data.draw(st.sampled_from(sorted(whole)))
    broken = whole | {name: data.draw(anything)}
    if data.draw(st.booleans()):
        del broken[name]
    query = data.draw(
        st.sampled_from(["", "?wait=false", "?wait=%ff", "?operation=retract&revision=1", "?revision=x"])
    )
    body = data.draw(st.sampled_from([text(broken), text([whole, broken]), text(broken)[:-2]]))
    answer = _LOOP.run_until_complete(http.ask("POST", path + query, body))
    assert answer.status in (202, 400), answer
    assert not http.said


def test_what_is_too_long_is_told_so(served: tuple[Asker, Project]) -> None:
    http, _ = served
    ask = http.ask("POST", f"/v1/observe/{SOURCE}", order(1, order_id="x" * 1_001))
    told = _LOOP.run_until_complete(ask).body
    assert (told["status"], told["code"], told["field"]) == ("quarantined", "too_long", "order_id")
    ask = http.ask("POST", f"/v1/observe/{SOURCE}", order(1, customer_id="x" * 70_000))
    told = _LOOP.run_until_complete(ask).body
    assert (told["status"], told["code"], told["field"]) == ("quarantined", "too_long", "customer_id")
    asked = http.ask("POST", f"/v1/decide/{DECISION}", checkout(1, customer="x" * 70_000))
    answer = _LOOP.run_until_complete(asked)
    assert (answer.status, answer.body["type"]) == (400, "urn:volano:error:invalid_input")
    assert "'customer_id' is longer than 1,000 characters" in answer.body["detail"]
    big = msgspec.json.encode(order(1, customer_id="y" * (1 << 20)))[:-1] + b" " * 10
    answer = _LOOP.run_until_complete(http.ask("POST", f"/v1/observe/{SOURCE}", big))
    assert (answer.status, answer.body["type"]) == (413, "urn:volano:error:too_large")
