"""Any permutation and duplication of a conflict-free set of events gives the same tables and the same online state."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.collect.world import START, World, content, project, sale
from volano.plan.state_index import CURSOR_KEY, INDEX_PREFIX, decode_known
from volano.records.journal import Operation
from volano.values.instants import HOUR_US, MINUTE_US

# Instants of arrival, and what is drawn at arrival.
ARRIVAL = ("received_at", "applied_at", "known_at", "receipt_id")

sales = st.fixed_dictionaries(
    {
        "shop": st.sampled_from(["a", "b", None]),
        "card": st.sampled_from([1, 2, None]),
        "amount": st.sampled_from([None, 0.1, -5.5, 1e9]),
        "pieces": st.integers(0, 3),
        "till": st.integers(0, 1),
    }
)
pushes = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 3),
        st.sampled_from([Operation.CORRECT, Operation.RETRACT]),
        st.integers(0, 5),
        sales,
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda push: push[:2],
)
Push = tuple[int, int, Operation, int, dict[str, Any]]


def run(world: World, order: list[Push], seed: int) -> tuple[object, object]:
    """Push in an order, in random batches; the tables and the online state, without instants of arrival."""
    random = Random(seed)
    world.clock.advance_to(START + 6 * HOUR_US)
    for number, revision, operation, hour, values in order:
        event = sale(f"s{number}", START + hour * 60 * MINUTE_US, **values)
        how = operation if revision else Operation.INSERT
        world.door.accept("sales", [event], operation=how, revision=revision, sync=False)
        if random.random() < 0.3:
            world.applier.step(random.randrange(1, 5))
        if random.random() < 0.1:
            world.committer.step()
    while world.applier.step(random.randrange(1, 10)):
        pass
    world.committer.step()
    receipts = world.lake.read("receipt")
    stored = receipts.filter([status == "stored" for status in receipts["status"].to_pylist()])
    tables = (content(world.lake.read("fact_sales"), without=ARRIVAL), content(stored, without=ARRIVAL))
    return tables, online(world)


def online(world: World) -> object:
    found: dict[object, object] = {}
    with world.online.snapshot() as snapshot:
        for key, value in snapshot.scan(b"", b"\xff" * 40):
            if key.startswith(INDEX_PREFIX):
                known = decode_known(value)
                found[key] = (known.hashes, known.standing, known.event_time, sorted(known.places))
            elif key != CURSOR_KEY:
                group = next(state for state in world.applier._groups if key.startswith(state.prefix))
                found[key] = group.layout.decode(value).drop_columns(["applied_at"]).to_pylist()
    return found


@settings(max_examples=25)
@given(pushes, st.randoms(use_true_random=False), st.integers(0, 2**32))
def test_order_and_repetition_change_nothing(tmp_path_factory, pushed, random, seed):
    shuffled = pushed + random.choices(pushed, k=len(pushed) // 2)
    random.shuffle(shuffled)
    definition = project(accept_late_us=None)
    with World(tmp_path_factory.mktemp("straight"), definition) as world:
        straight = run(world, pushed, seed)
    with World(tmp_path_factory.mktemp("shuffled"), definition) as world:
        assert run(world, shuffled, seed + 1) == straight
