"""Which chunk each row of a batch belongs to: by columns as row by row, whatever earlier batches left behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.collect.world import SHOP, START, AuthorFunctions, project
from volano.collect.state import Arrival, GroupState, chunk_places
from volano.compile.state import state_groups
from volano.engines.duckdb_engine import DuckDbEngine
from volano.plan.state import chunk_key
from volano.plan.state_index import Known
from volano.values.event_ids import row_id
from volano.values.instants import DAY_US
from volano.values.keys import canonical_keys, encode_key

SALES = project(views=(SHOP,))
(GROUP,) = state_groups(SALES)
NAMES = SALES.sources["sales"].schema.names
STATE = GroupState(SALES, GROUP, AuthorFunctions(), DuckDbEngine("."))
rows = st.lists(
    st.tuples(st.sampled_from(["a", "b", "ü", None]), st.integers(START - 90 * DAY_US, START)), max_size=20
)


@given(st.lists(rows, max_size=3))
def test_places_by_columns_are_those_row_by_row(batches):
    for batch in batches:
        arrivals = []
        for n, (shop, at) in enumerate(batch):
            values = {"sale_id": f"s{n}", "shop": shop, "card": 1, "kind": "food", "amount": 1.0, "pieces": 1}
            values |= {"till": 0, "sold_at": at}
            cells = tuple(values[name] for name in NAMES)
            arrivals.append(Arrival(f"s{n}", row_id(f"s{n}"), at, START + n, cells, Known()))
        if not arrivals:
            continue
        packed, heads = STATE.pack(arrivals, list(zip(*(each.cells for each in arrivals), strict=True)), [])
        place_of: dict[bytes, int] = {}
        places = chunk_places(GROUP, arrivals, packed.words[:, 0], heads, place_of)
        key_of = {place: key for key, place in place_of.items()}
        wanted = [shop and chunk_key(GROUP, encode_key((shop,)), at) for shop, at in batch]
        assert [key_of.get(place) for place in places.tolist()] == wanted
        assert sorted(key_of) == list(range(len({key for key in wanted if key is not None})))
        for arrival, key in zip(arrivals, wanted, strict=True):
            assert [key[:-8]] == arrival.known.places if key else arrival.known.places == []


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=6), max_size=4))
def test_keys_are_the_same_whatever_was_made_before(batches):
    known: dict[object, bytes | None] = {}
    for batch in batches:
        assert canonical_keys([batch], known=known) == canonical_keys([batch])
        pairs = [batch, [1] * len(batch)]
        assert canonical_keys(pairs) == [part and encode_key((part, 1)) for part in batch]
