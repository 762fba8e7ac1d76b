"""Authors' projections through the whole path: what is served is recomputed to the bit, and a failure harms no neighbour."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import msgspec
import narwhals as nw
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.collect.world import ASK, DEAR, SHOP, START, World, feature, project, sale, view_input
from tests.organize.histories import live, point_in_time
from volano.decide.features import OnlineFeatures
from volano.organize.audit import audit
from volano.organize.backfill import Backfill
from volano.organize.facts import Facts
from volano.organize.features import Mode
from volano.plan.definitions import CodeRef, CompiledProject, CompiledService, CompiledView, Projection
from volano.plan.failed_rows import FAILED_PREFIX, FailedRow, decode_failed
from volano.values.instants import DAY_US, HOUR_US
from volano.values.schema import DType, Field, Schema


def in_arrow(rows: pa.Table) -> pa.Table:
    each = pc.divide(
        rows["amount"], pc.if_else(pc.equal(rows["pieces"], 0), None, rows["pieces"]).cast(pa.float64())
    )
    return rows.append_column("each", each).append_column("is_food", pc.equal(rows["kind"], "food"))


def in_pandas(rows: Any) -> Any:
    return rows.assign(each=rows.amount / rows.pieces.where(rows.pieces != 0), is_food=rows.kind == "food")


def in_polars(rows: pl.DataFrame) -> pl.DataFrame:
    pieces = pl.when(pl.col("pieces") != 0).then(pl.col("pieces"))
    return rows.with_columns(each=pl.col("amount") / pieces, is_food=pl.col("kind") == "food")


def in_narwhals(rows: nw.DataFrame[pa.Table]) -> nw.DataFrame[pa.Table]:
    pieces = nw.when(nw.col("pieces") != 0).then(nw.col("pieces")).cast(nw.Float64)
    return rows.with_columns(each=nw.col("amount") / pieces, is_food=nw.col("kind") == "food")


def raising(rows: pa.Table) -> pa.Table:
    """Refuses the rows with three pieces."""
    if 3 in rows["pieces"].to_pylist():
        raise ValueError("three pieces")
    return in_arrow(rows)


def short(rows: pa.Table) -> pa.Table:
    return in_arrow(rows).slice(1)


def of_text(rows: pa.Table) -> pa.Table:
    return in_arrow(rows).drop_columns(["each"]).append_column("each", pa.array(["x"] * rows.num_rows))


def without(rows: pa.Table) -> pa.Table:
    return in_arrow(rows).drop_columns(["each"])


FUNCTIONS = {
    each.__name__: each
    for each in (in_arrow, in_pandas, in_polars, in_narwhals, raising, short, of_text, without)
}
COMPUTED = Schema((Field("each", DType.FLOAT64, nullable=True), Field("is_food", DType.BOOL, nullable=True)))


def computed(function: str, frame: str = "arrow") -> CompiledView:
    features = (
        feature("each", "mean", "each", window_us=DAY_US),
        feature("n_food", "count", where="is_food", dtype=DType.INT64),
        feature("n", "count", dtype=DType.INT64),
    )
    code = CodeRef("shop", function, "")
    return CompiledView(
        "Computed", "shop", "sales", ("shop",), features, "ops", Projection(COMPUTED, None, code, frame)
    )


def around(view: CompiledView) -> tuple[CompiledProject, CompiledService]:
    """A project with the view beside a plain one, packed into one group, and a service of both."""
    inputs = tuple(view_input(each, one.name) for each in (SHOP, view) for one in each.features)
    service = CompiledService("risk", "Ask", inputs)
    definition = project(views=(SHOP, view))
    model = msgspec.structs.replace(definition.models["risk"], service=service)
    return msgspec.structs.replace(definition, models={"risk": model}), service


@pytest.mark.parametrize("frame", ["arrow", "pandas", "polars", "narwhals"])
def test_a_function_over_each_frame_serves_what_is_recomputed(tmp_path, frame):
    definition, service = around(computed(f"in_{frame}", frame))
    with World(tmp_path, definition, functions=FUNCTIONS) as world:
        live(world, Random(4), 120, service=service)
        rows = world.lake.read("decision_get_risk")
        report = audit(rows, service, ASK, point_in_time(world))
        assert report.checked > 20
        assert report.differences == ()
        assert pc.sum(rows["feature__Computed__each"].is_valid()).as_py() > 10
        assert failed(world) == []
        assert world.applier.take_failing() == ()


def test_the_frames_compute_the_same(tmp_path):
    found = []
    for frame in ("arrow", "pandas", "polars", "narwhals"):
        definition, service = around(computed(f"in_{frame}", frame))
        (tmp_path / frame).mkdir()
        with World(tmp_path / frame, definition, functions=FUNCTIONS) as world:
            live(world, Random(9), 60, service=service)
            rows = world.lake.read("decision_get_risk").sort_by("decision_id")
            found.append(rows.select([name for name in rows.column_names if name.startswith("feature__")]))
    assert len({repr(rows.to_pydict()) for rows in found}) == 1  # NaN is the same as NaN


def test_a_row_that_a_function_refuses_is_null_on_both_sides_and_named_and_kept(tmp_path):
    definition, service = around(computed("raising"))
    with World(tmp_path, definition, functions=FUNCTIONS) as world:
        live(world, Random(5), 120, service=service)
        rows = world.lake.read("decision_get_risk")
        report = audit(rows, service, ASK, point_in_time(world))
        assert report.checked > 20
        assert report.differences == ()
        (failing,) = world.applier.take_failing()
        assert failing.view == "Computed"
        assert "three pieces" in failing.reason
        failures = failed(world)
        assert {failure.view for failure in failures} == {"Computed"}
        assert all("three pieces" in failure.reason for failure in failures)
        refused = world.lake.read("fact_sales").filter(pc.field("pieces") == 3)
        assert {failure.event_id for failure in failures} <= set(refused["event_id"].to_pylist())
        # The plain view beside it counts every row, and so does the projected one.
        served = rows.filter(rows["feature__Shop__n"].is_valid())
        assert served["feature__Shop__n"].equals(served["feature__Computed__n"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("short", r"returned \d+ rows for \d+"),
        ("of_text", "declared double and came back as string"),
        ("without", "no column 'each'"),
    ],
)
def test_a_projection_of_the_wrong_shape_names_view_and_column_and_the_rest_goes_on(
    tmp_path, function, message
):
    definition, _ = around(computed(function))
    definition = msgspec.structs.replace(definition, views={**definition.views, "Dear": DEAR})
    with World(tmp_path, definition, functions=FUNCTIONS) as world:
        world.clock.advance_to(START + HOUR_US)
        world.door.accept("sales", [sale(f"s{n}", START) for n in range(3)])
        assert world.applier.step() == 3
        world.committer.step()
        assert world.lake.read("fact_sales").num_rows == 3
        failures = failed(world)
        assert {failure.view for failure in failures} == {"Computed"}
        assert len(failures) == 3
        assert all(re.search(message, failure.reason) for failure in failures)
        assert rebuilt(world) == stored(world)


def dropping(rows: pa.Table) -> pa.Table:
    """Leaves out the rows without an amount, which no projection may."""
    return in_arrow(rows.filter(rows["amount"].is_valid()))


def refusing(rows: pa.Table) -> pa.Table:
    """Refuses every kind but food."""
    if set(rows["kind"].to_pylist()) != {"food"}:
        raise ValueError("not food")
    return in_arrow(rows)


@pytest.mark.parametrize("size", [1, 3, 12])
def test_a_view_that_leaves_rows_out_loses_them_alone_however_they_are_batched(tmp_path, size):
    definition, service = around(computed("dropping"))
    events = [
        sale(f"s{n}", START + n, amount=None if n % 4 == 1 else 8.0 + n, kind="food") for n in range(12)
    ]
    with World(tmp_path, definition, functions={"dropping": dropping}) as world:
        world.clock.advance_to(START + HOUR_US)
        for at in range(0, len(events), size):
            world.door.accept("sales", events[at : at + size])
            world.applier.step()
        world.committer.step()
        served = read_online(world, service)
        assert (served["Shop__n"], served["Computed__n_food"]) == (12, 9)
        assert read_offline(world, service) == served
        assert {row.event_id for row in failed(world)} == {"s1", "s5", "s9"}
        assert rebuilt(world) == stored(world)


def test_online_offline_and_rebuild_agree_on_any_number_of_rows_that_fail(tmp_path):
    definition, service = around(computed("refusing"))
    kinds = ["toys" if n % 2 else "food" for n in range(3_000)]
    with World(tmp_path, definition, functions={"refusing": refusing}) as world:
        world.clock.advance_to(START + HOUR_US)
        for at in range(0, 3_000, 500):
            rows = [sale(f"s{n}", START + n, kind=kinds[n]) for n in range(at, at + 500)]
            world.door.accept("sales", rows, sync=False)
            while world.applier.step():
                pass
        world.committer.step()
        assert len(failed(world)) == 1_500
        served = read_online(world, service)
        assert (served["Shop__n"], served["Computed__n_food"]) == (3_000, 1_500)
        assert read_offline(world, service) == served
        assert rebuilt(world) == stored(world)


LONG = "CASE WHEN pieces > 1 THEN repeat('ü', 16384 * pieces) ELSE shop END"
"""Of two pieces on it takes more than 65,535 bytes."""


def test_a_key_that_a_projection_computes_too_long_is_none_online_offline_and_in_a_rebuild(tmp_path):
    sql = f"SELECT * REPLACE ({LONG} AS shop), amount / pieces AS price, amount > 50 AS dear FROM source"
    definition, service = around(
        msgspec.structs.replace(DEAR, projection=Projection(DEAR.projection.columns, sql=sql))
    )
    definition = msgspec.structs.replace(definition, views={"Dear": definition.views["Dear"]})
    inputs = tuple(view_input(definition.views["Dear"], one.name) for one in DEAR.features)
    service = CompiledService("risk", "Ask", inputs)
    with World(tmp_path, definition) as world:
        world.clock.advance_to(START + HOUR_US)
        rows = [sale(f"s{n}", START + n, pieces=1 + n % 3, amount=60.0 + n) for n in range(12)]
        world.door.accept("sales", rows)
        world.applier.step()
        world.committer.step()
        served = read_online(world, service)
        assert (served["Dear__n_dear"], failed(world)) == (4, [])
        assert read_offline(world, service) == served
        assert rebuilt(world) == stored(world)


def failed(world: World) -> list[FailedRow]:
    """The rows that stand as failed beside online state."""
    with world.online.snapshot() as snapshot:
        return [
            decode_failed(value) for _, value in snapshot.scan(FAILED_PREFIX, FAILED_PREFIX + b"\xff" * 9)
        ]


def stored(world: World) -> dict[bytes, bytes]:
    """The chunks of all groups, and the rows that failed, as the applier wrote them."""
    prefixes = (FAILED_PREFIX, *(group.prefix for group in world.groups))
    with world.online.snapshot() as snapshot:
        return {
            key: value for prefix in prefixes for key, value in snapshot.scan(prefix, prefix + b"\xff" * 9)
        }


def rebuilt(world: World) -> dict[bytes, bytes]:
    """The same, built from the lake."""
    facts = Facts(world.project, world.lake, world.sql, {})
    backfill = Backfill(world.project, world.groups, facts, world.sql, world.functions)
    return {
        key: value
        for group in world.groups
        for part in backfill.chunks(group)
        for key, value in part.puts.items()
    }


def read_online(world: World, service: CompiledService) -> dict[str, Any]:
    features = OnlineFeatures(
        world.project,
        service,
        request=ASK,
        groups=world.groups,
        online=world.online,
        functions=world.functions,
    )
    request = {"sale_id": "x", "shop": "corner", "card": 1, "asked_for": 1.0}
    slots, _ = features.read(request, START + 2 * HOUR_US)
    return {given.name: value for given, value in zip(service.inputs, features.served(slots), strict=True)}


def read_offline(world: World, service: CompiledService) -> dict[str, Any]:
    at = pa.array([START + 2 * HOUR_US], pa.timestamp("us", "UTC"))
    spine = pa.table({"decided_at": at, "as_of": at, "shop": ["corner"]})
    (row,) = point_in_time(world).features(service.inputs, spine, mode=Mode.REPLAY).to_pylist()
    return dict(row)
