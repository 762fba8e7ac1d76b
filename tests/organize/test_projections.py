"""Authors' projections through the whole path: what is served is recomputed to the bit, and a failure harms no neighbour."""

from __future__ import annotations

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
from volano.errors import AuthorCodeError
from volano.organize.audit import audit
from volano.organize.backfill import Backfill
from volano.organize.facts import Facts
from volano.plan.definitions import CodeRef, CompiledProject, CompiledService, CompiledView, Projection
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
    assert all(rows.equals(found[0]) for rows in found)


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
        refused = world.lake.read("fact_sales").filter(pc.field("pieces") == 3)
        assert failing.event_id in refused["event_id"].to_pylist()
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
        assert "Computed" in {failing.view for failing in world.applier.take_failing()}
        with pytest.raises(AuthorCodeError, match=message) as caught:
            facts = Facts(world.project, world.lake, world.sql, {})
            list(
                Backfill(world.project, world.groups, facts, world.sql, world.functions).chunks(
                    world.groups[0]
                )
            )
        assert "view Computed" in str(caught.value.where)
