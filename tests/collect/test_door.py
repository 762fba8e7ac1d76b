"""The door: what fits is journaled as it is, what does not fit is journaled with its reason, and neighbours are safe."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.collect.world import SHOP, START, World, project, sale
from volano.errors import RequestError, UnknownNameError
from volano.plan.definitions import CompiledProject
from volano.records.journal import EventReceived, Operation, decode_record
from volano.records.receipt import ReceiptStatus
from volano.values import json_floats
from volano.values.instants import HOUR_US, MINUTE_US
from volano.values.schema import DType, Field, Schema


@pytest.fixture
def world(tmp_path):
    with World(tmp_path) as opened:
        yield opened


def journaled(world: World) -> list[EventReceived]:
    return [decode_record(entry.record) for entry in world.reader.read({}, limit=1_000)]  # type: ignore[misc]


def test_an_event_that_fits_is_journaled_with_its_identity(world):
    (receipt,) = world.door.accept("sales", [sale("a", START)])
    (record,) = journaled(world)
    assert receipt.status is ReceiptStatus.PENDING
    assert record.receipt_id == receipt.receipt_id
    assert (record.namespace, record.source, record.event_id) == ("shops", "sales", "a")
    assert record.event_time == record.received_at == START
    assert record.problem is None


def test_bytes_are_kept_as_they_were_sent(world):
    raw = b'{ "sale_id":"a", "pieces":1,"till":0, "sold_at":"2026-03-01T01:00:00+01:00" }'
    world.door.accept("sales", [raw])
    (record,) = journaled(world)
    assert record.payload == raw
    assert record.event_time == START


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"pieces": "one"}, "wrong_type", "pieces"),
        ({"pieces": 1.5}, "wrong_type", "pieces"),
        ({"pieces": True}, "wrong_type", "pieces"),
        ({"pieces": 2**63}, "wrong_type", "pieces"),
        ({"pieces": None}, "wrong_type", "pieces"),
        ({"colour": "red"}, "unknown_field", "colour"),
        ({"amount": "nan"}, "wrong_type", "amount"),
        ({"sold_at": datetime(2026, 3, 1)}, "naive_timestamp", "sold_at"),
        ({"sold_at": 1_772_323_200}, "wrong_type", "sold_at"),
        ({"sold_at": datetime(2026, 3, 1, 0, 5, 1, tzinfo=UTC)}, "future_event_time", "sold_at"),
        ({"kind": "\ud800"}, "malformed", ""),
        ({"kind": object()}, "wrong_type", "kind"),
        ({"shop": "x" * 1_001}, "too_long", "shop"),
        ({"shop": "x" * 70_000}, "too_long", "shop"),
    ],
)
def test_what_does_not_fit_is_quarantined_with_the_field(world, change, code, field):
    receipts = world.door.accept("sales", [sale("a", START), sale("b", START, **change), sale("c", START)])
    assert [receipt.status for receipt in receipts] == ["pending", "quarantined", "pending"]
    assert receipts[1].problem is not None
    assert receipts[1].problem[:2] == (code, field)
    assert [record.problem for record in journaled(world)] == [None, receipts[1].problem, None]


def test_a_key_has_a_thousand_characters_whether_it_is_marked_or_named_by_a_view_or_a_join(tmp_path):
    definition = project(views=(msgspec.structs.replace(SHOP, key_columns=("kind",)),))
    fits = sale("a", START, shop="ü" * 1_000, kind="ü" * 1_000)
    events = [fits, *(sale(name, START, **{name: "x" * 1_001}) for name in ("shop", "kind"))]
    with World(tmp_path, definition) as world:
        for sent in (events, list(map(msgspec.json.encode, events))):
            receipts = world.door.accept("sales", sent)
            assert [each.problem and each.problem[:2] for each in receipts] == [
                None,
                ("too_long", "shop"),
                ("too_long", "kind"),
            ]
            assert receipts[1].problem[2] == "'shop' is longer than 1,000 characters or items"
        assert world.door.accept("sales", [sale("b", START, kind="x")] * 9)[0].problem is None


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
def test_nan_and_infinity_travel_to_the_facts_and_into_state(world, value):
    """A mapping says them as floats, JSON as texts; they are one payload, and no null."""
    spelled = json_floats.encode(value)
    event = sale("a", START, shop="corner", amount=value)
    as_json = json_floats.encode({**event, "sold_at": "2026-03-01T00:00:00Z"})
    assert spelled in as_json
    receipts = [*world.door.accept("sales", [event]), *world.door.accept("sales", [as_json])]
    assert [receipt.status for receipt in receipts] == ["pending", "pending"]
    first, second = journaled(world)
    assert first.payload_hash == second.payload_hash
    world.applier.step()
    world.committer.step()
    last = world.apply_log.last()
    assert [applied.status for applied in last.applied] == ["stored", "duplicate"]
    (stored,) = world.lake.read("fact_sales")["amount"].to_pylist()
    assert repr(stored) == repr(abs(value) if math.isnan(value) else value)


def test_a_missing_field_is_named_and_an_absent_nullable_one_is_null(world):
    receipts = world.door.accept("sales", [b'{"sale_id":"a","pieces":1,"till":0}', {"sale_id": "b"}])
    assert [receipt.problem and receipt.problem[:2] for receipt in receipts] == [
        ("missing_field", "sold_at"),
        ("missing_field", "pieces"),
    ]
    assert [record.event_id for record in journaled(world)] == ["a", "b"]


def test_a_clock_that_runs_a_little_ahead_is_tolerated(world):
    (receipt,) = world.door.accept("sales", [sale("a", START + 5 * MINUTE_US)])
    assert receipt.problem is None


@given(
    junk=st.lists(
        st.binary(max_size=40) | st.sampled_from([b"[" * 100_000, b"{}", b"null", b"\xff"]), max_size=5
    )
)
def test_fuzzed_bytes_never_raise_and_never_lose_a_neighbour(tmp_path_factory, junk):
    with World(tmp_path_factory.mktemp("fuzz")) as world:
        receipts = world.door.accept("sales", [*junk, sale("good", START)])
        assert [receipt.status for receipt in receipts] == ["quarantined"] * len(junk) + ["pending"]
        assert [record.payload for record in journaled(world)[:-1]] == junk


def test_one_payload_has_one_hash_however_it_is_written(world):
    same = [
        sale("a", START, kind=None),
        {
            **sale("a", START),
            "kind": None,
            "sold_at": datetime(2026, 3, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        },
        msgspec.json.encode({name: value for name, value in sale("a", START).items() if name != "kind"}),
    ]
    world.door.accept("sales", same)
    assert len({record.payload_hash for record in journaled(world)}) == 1


def test_a_retraction_needs_only_the_id(world):
    receipts = world.door.accept("sales", [{"sale_id": "a"}], operation=Operation.RETRACT, revision=1)
    assert receipts[0].problem is None


@pytest.mark.parametrize(
    ("operation", "revision"),
    [(Operation.INSERT, 1), (Operation.CORRECT, 0), (Operation.RETRACT, 0), (Operation.CORRECT, 2**31)],
)
def test_a_revision_that_does_not_fit_its_operation_is_refused(world, operation, revision):
    with pytest.raises(RequestError, match="does not fit the operation"):
        world.door.accept("sales", [sale("a", START)], operation=operation, revision=revision)


def test_an_unknown_source_names_the_nearest(world):
    with pytest.raises(UnknownNameError, match="no source named 'sale'") as raised:
        world.door.accept("sale", [])
    assert raised.value.mend == "did you mean: sales"


def test_a_source_without_a_stream_takes_no_events(tmp_path):
    definition = project()
    sales = msgspec.structs.replace(definition.sources["sales"], stream=False)
    with World(tmp_path, _with(definition, sales)) as world, pytest.raises(RequestError, match="no pushed"):
        world.door.accept("sales", [sale("a", START)])


def _with(definition: CompiledProject, sales) -> CompiledProject:
    return msgspec.structs.replace(definition, sources={"sales": sales})


def test_receipt_ids_are_time_ordered_and_different(world):
    first = world.door.accept("sales", [sale(str(n), START) for n in range(50)])
    world.clock.advance_to(START + HOUR_US)
    second = world.door.accept("sales", [sale("z", START)])
    ids = [receipt.receipt_id for receipt in first]
    assert len(set(ids)) == 50
    assert max(ids) < second[0].receipt_id


_GOOD = st.builds(
    lambda name, amount: sale(name, START, amount=amount), st.text(max_size=5), st.floats(-9, 9)
)
_BAD = st.sampled_from(
    [b"{", b"[]", b"", b"null", b'{"sale_id":"a"}', b'{"sale_id":"a","pieces":1,"till":0,"sold_at":null}']
    + [msgspec.json.encode(sale("a", START) | {"colour": "red"})]
    + [msgspec.json.encode(sale("a", START) | {"shop": "x" * 1_001})]
    + [
        msgspec.json.encode(sale("a", START) | {"sold_at": at})
        for at in ("2027-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00")
    ]
)


@given(
    st.lists(_GOOD.map(msgspec.json.encode), min_size=8, max_size=12),
    st.lists(_BAD, max_size=2),
    st.randoms(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_batch_is_journaled_as_its_events_one_by_one(world, good, bad, random):
    events = good + bad
    random.shuffle(events)
    receipts, together = world.door.prepare("sales", events)
    single = [world.door.prepare("sales", [event]) for event in events]
    assert [each.problem for each in receipts] == [each.problem for (each,), _ in single]

    def content(data: bytes) -> EventReceived:
        return msgspec.structs.replace(decode_record(data), receipt_id="")

    assert [content(data) for data in together] == [content(data) for _, (data,) in single]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
def test_a_timestamp_beyond_the_calendar_is_quarantined_wherever_it_stands(tmp_path, at):
    definition = project()
    sales = definition.sources["sales"]
    schema = Schema((*sales.schema.fields, Field("seen_at", DType.TIMESTAMP, nullable=True)))
    wider = msgspec.structs.replace(
        definition, sources={"sales": msgspec.structs.replace(sales, schema=schema)}, views={}
    )
    event = msgspec.json.encode(sale("a", START) | {"seen_at": at})
    with World(tmp_path, wider) as world:
        for events in ([event], [event] * 9):
            receipts = world.door.accept("sales", events)
            assert {each.problem[:2] for each in receipts if each.problem} == {("out_of_range", "seen_at")}
            assert all(each.problem for each in receipts)


@pytest.mark.parametrize("operation", [Operation.CORRECT, Operation.RETRACT])
def test_a_batch_of_corrections_or_retractions_is_hashed_as_its_events_one_by_one(world, operation):
    events = [msgspec.json.encode(sale(f"s{n}", START)) for n in range(9)]
    _, together = world.door.prepare("sales", events, operation=operation, revision=1)
    for event, data in zip(events, together, strict=True):
        _, (alone,) = world.door.prepare("sales", [event], operation=operation, revision=1)
        assert decode_record(data).payload_hash == decode_record(alone).payload_hash
        assert decode_record(data).operation is operation


def test_ids_of_a_batch_are_distinct_and_of_the_version_that_they_say(world):
    receipts, _ = world.door.prepare("sales", [msgspec.json.encode(sale(f"s{n}", START)) for n in range(100)])
    assert len({each.receipt_id for each in receipts}) == 100
    assert {uuid.UUID(each.receipt_id).version for each in receipts} == {7}
    assert {uuid.UUID(each.receipt_id).variant for each in receipts} == {uuid.RFC_4122}
