"""From source rows to the rows of a state group: keys, order, columns; packed alike a few or many at a time."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.collect.world import CARD, DEAR, SHOP, START, AuthorFunctions, project
from volano.collect.state import Arrival, GroupState
from volano.compile.state import state_groups
from volano.engines.duckdb_engine import DuckDbEngine
from volano.errors import AuthorCodeError, UnsupportedError
from volano.plan.definitions import CodeRef, Projection
from volano.plan.state_index import Known
from volano.plan.state_rows import ARROW_TYPES, StateRowMap, order_value
from volano.values.event_ids import row_id
from volano.values.schema import DType, Field, Schema

ENGINE = DuckDbEngine(".")


def row_map(definition, entity: str) -> StateRowMap:
    group = next(group for group in state_groups(definition) if group.entity == entity)
    return StateRowMap(definition, group, ENGINE.query, AuthorFunctions().get)


def sales(**columns) -> pa.Table:
    n = len(next(iter(columns.values())))
    plain = {
        "sale_id": [f"s{i}" for i in range(n)],
        "shop": ["a"] * n,
        "card": [1] * n,
        "amount": [1.0] * n,
        "pieces": [2] * n,
        "kind": ["food"] * n,
        "till": [0] * n,
        "sold_at": [START] * n,
    } | columns
    fields = project().sources["sales"].schema.fields
    return pa.table({field.name: pa.array(plain[field.name], ARROW_TYPES[field.dtype]) for field in fields})


def test_projected_columns_carry_their_view_and_plain_ones_do_not():
    mapped = row_map(project(), "shop").map(sales(amount=[99.0, None]))
    assert mapped.columns["Dear.dear"].to_pylist() == [True, None]
    assert mapped.columns["Dear.price"].to_pylist() == [49.5, None]
    assert mapped.columns["amount"].to_pylist() == [99.0, None]
    assert [key.to_pylist() for key in mapped.keys] == [["a", "a"]]


def test_only_the_columns_that_are_needed_are_asked_for():
    assert row_map(project(), "card").needed == ("card", "amount", "pieces", "till")
    assert row_map(project(), "shop").needed == project().sources["sales"].schema.names


def test_a_view_that_computes_another_key_loses_those_rows_and_no_other_view_notices():
    sql = "SELECT * REPLACE (upper(shop) AS shop), CAST(true AS BOOLEAN) AS dear, CAST(1 AS DOUBLE) AS price FROM source"
    assert DEAR.projection is not None
    dear = msgspec.structs.replace(DEAR, projection=Projection(DEAR.projection.columns, sql=sql))
    for views in ((SHOP, dear, CARD), (dear, SHOP, CARD)):
        rows = sales(amount=[1.0, 2.0], shop=["a", "B"])
        mapped = row_map(project(views=views), "shop").map(rows)
        assert [key.to_pylist() for key in mapped.keys] == [["a", "B"]]
        assert mapped.columns["Dear.price"].to_pylist() == [None, 1.0]
        assert mapped.columns["amount"].to_pylist() == [1.0, 2.0]
        assert [(view, row) for view, row, _ in mapped.failures] == [("Dear", 0)]
        assert "another key in shop" in mapped.failures[0].error.what


def test_a_projection_whose_module_fails_to_import_harms_no_neighbour():
    def broken(code):
        raise AuthorCodeError("importing failed")

    assert DEAR.projection is not None
    code = Projection(DEAR.projection.columns, code=CodeRef("shop", "gone", ""))
    dear = msgspec.structs.replace(DEAR, projection=code)
    definition = project(views=(SHOP, dear))
    mapped = StateRowMap(definition, state_groups(definition)[0], ENGINE.query, broken).map(
        sales(amount=[1.0, 2.0])
    )
    assert [key.to_pylist() for key in mapped.keys] == [["a", "a"]]
    assert mapped.columns["amount"].to_pylist() == [1.0, 2.0]
    assert [(view, row) for view, row, _ in mapped.failures] == [("Dear", 0), ("Dear", 1)]


def test_a_source_ordered_by_text_is_refused():
    definition = project()
    by_kind = msgspec.structs.replace(definition.sources["sales"], order_by=("kind",))
    with pytest.raises(UnsupportedError, match="ordered by 'kind', which is string"):
        row_map(msgspec.structs.replace(definition, sources={"sales": by_kind}), "shop")


@given(st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=20))
def test_order_values_keep_the_order_of_floats_and_agree_one_by_one(values):
    definition = project()
    by_amount = msgspec.structs.replace(definition.sources["sales"], order_by=("amount",))
    mapped = row_map(msgspec.structs.replace(definition, sources={"sales": by_amount}), "card").map(
        sales(amount=values)
    )
    (order,) = (column.to_pylist() for column in mapped.order)
    assert order == [order_value(value, DType.FLOAT64) for value in values]
    known = sorted(((value, place) for value, place in zip(values, order, strict=True) if value is not None))
    assert [place for _, place in known] == sorted(place for _, place in known)


cells = st.tuples(
    st.text(max_size=9) | st.none(),
    st.floats() | st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans() | st.none(),
    st.integers(0, 3),
    st.integers(-(10**15), 10**15),
)


@given(st.lists(cells, min_size=1, max_size=12))
def test_rows_packed_from_python_are_the_words_packed_from_arrow(drawn):
    """The applier packs a few rows without Arrow, a backfill many with it: to the byte the same chunks."""
    definition = project(views=(SHOP,))
    fields = (*definition.sources["sales"].schema.fields, Field("flag", DType.BOOL, nullable=True))
    source = msgspec.structs.replace(definition.sources["sales"], schema=Schema(fields))
    definition = msgspec.structs.replace(definition, sources={"sales": source})
    (group,) = state_groups(definition)
    columns = (
        *group.columns.fields,
        Field("flag", DType.BOOL, nullable=True),
        Field("sold_at", DType.TIMESTAMP),
    )
    group = msgspec.structs.replace(group, columns=Schema(columns))
    state = GroupState(definition, group, AuthorFunctions(), ENGINE)
    names = source.schema.names
    arrivals = []
    for n, (kind, amount, pieces, flag, till, at) in enumerate(drawn):
        values = {
            "sale_id": f"s{n}",
            "shop": "a",
            "card": 1,
            "kind": kind,
            "amount": amount,
            "pieces": pieces,
        }
        values |= {"flag": flag, "till": till, "sold_at": at}
        cells_of = tuple(values[name] for name in names)
        arrivals.append(Arrival(f"s{n}", row_id(f"s{n}"), at, START + n, cells_of, Known()))
    packed, heads = state.pack(arrivals, list(zip(*(arrival.cells for arrival in arrivals), strict=True)), [])
    assert None not in heads
    rows = {
        field.name: pa.array(
            [arrival.cells[names.index(field.name)] for arrival in arrivals], ARROW_TYPES[field.dtype]
        )
        for field in columns
    }
    encoded = state.layout.encode(
        [arrival.event_time for arrival in arrivals],
        [arrival.row_id for arrival in arrivals],
        [arrival.applied_at for arrival in arrivals],
        rows,
        order=[[arrival.cells[names.index("till")] for arrival in arrivals]],
    )
    owners = [0] * len(arrivals)
    assert state.layout.merge([b""], packed, owners) == state.layout.merge([b""], encoded, owners)
