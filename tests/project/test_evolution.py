"""Schemas that change under producers who do not: what fits goes on, what would break is told and refused."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.collect.world import SALE, sale
from volano.collect.schemas import SourceSchema
from volano.errors import PlanRefused
from volano.plan.definitions import CompiledProject, CompiledSource
from volano.plan.evolution import Evolution, carried, changes_of
from volano.project import Project
from volano.records.journal import Operation
from volano.records.quarantine import Fate
from volano.runtime.clock import ReplayClock
from volano.runtime.templates import write_template
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, parse_instant, to_datetime
from volano.values.schema import DType, Field, Schema

START = parse_instant("2026-01-01")


def source(*fields: Field, **more: Any) -> CompiledSource:
    return CompiledSource(
        "sales", "Sale", Schema(fields), ("sale_id",), "sold_at", "ops", stream=True, **more
    )


ID, TIME = Field("sale_id", DType.STRING), Field("sold_at", DType.TIMESTAMP)


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ([], [Field("n", DType.INT64, nullable=True)], {"n": "compatible"}),
        ([], [Field("n", DType.INT64)], {"n": "breaking"}),
        ([Field("n", DType.INT64)], [], {"n": "breaking"}),
        ([Field("n", DType.INT64)], [Field("n", DType.INT64, nullable=True)], {"n": "compatible"}),
        ([Field("n", DType.INT64, nullable=True)], [Field("n", DType.INT64)], {"n": "breaking"}),
        ([Field("n", DType.INT64)], [Field("n", DType.FLOAT64)], {"n": "widening"}),
        ([Field("n", DType.FLOAT64)], [Field("n", DType.INT64)], {"n": "breaking"}),
        ([Field("n", DType.INT64)], [Field("n", DType.STRING)], {"n": "breaking"}),
        ([Field("n", DType.INT64)], [Field("m", DType.INT64, nullable=True)], {"m": "compatible", "n": "breaking"}),
    ],
)  # fmt: skip
def test_changes_are_told_apart(before: list[Field], after: list[Field], kinds: dict[str, str]) -> None:
    found = list(changes_of(source(ID, TIME, *before), source(TIME, *after, ID)))
    assert {change.field: change.evolution.value for change in found} == kinds
    assert all(change.consequence for change in found)
    assert all(bool(change.mend) == (change.evolution is Evolution.BREAKING) for change in found)


values = st.fixed_dictionaries(
    {
        "pieces": st.integers(-(2**53), 2**53),
        "till": st.integers(-5, 5),
        "amount": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "kind": st.none() | st.text(max_size=3),
    }
)


@given(values, st.data())
def test_an_event_that_is_sent_again_after_a_change_is_the_same_event(
    values: dict[str, Any], data: Any
) -> None:
    old = source(*SALE.fields)
    fields = list(data.draw(st.permutations(SALE.fields)))
    for at, field in enumerate(fields):
        if field.name in ("pieces", "till"):
            dtype = data.draw(st.sampled_from([DType.INT64, DType.FLOAT64]))
            fields[at] = Field(field.name, dtype, data.draw(st.booleans()), field.entity)
    fields.insert(data.draw(st.integers(0, len(fields))), Field("added", DType.STRING, nullable=True))
    new = source(*fields)
    assert all(each.evolution is not Evolution.BREAKING for each in changes_of(old, new))
    projects = (
        CompiledProject("shops", sources={"sales": old}),
        CompiledProject("shops", sources={"sales": new}),
    )
    new = carried(*projects).sources["sales"]
    again = carried(CompiledProject("shops", sources={"sales": new}), projects[1]).sources["sales"]
    assert again == new  # what was narrow once is known for ever
    event = sale("s1", START, **values)
    payload = msgspec.json.encode(event)
    first = SourceSchema(old).fit(payload, Operation.INSERT)
    sent: list[Any] = [payload, event]
    if new.schema.find("pieces").dtype is DType.FLOAT64:
        sent.append(msgspec.json.encode(event | {"pieces": float(values["pieces"])}))
    for each in sent:
        assert SourceSchema(new).fit(each, Operation.INSERT).canonical == first.canonical
    assert SourceSchema(new).values(payload)[new.schema.names.index("till")] == values["till"]


class Shop:
    """The blank template with a count of pieces in each order, before and after it changes."""

    def __init__(self, folder: Path) -> None:
        write_template("blank", folder)
        (folder / "volano.toml").write_text('namespace = "shop"\ncommit_every = "10d"\nonline_map_gib = 1\n')
        self.folder, self.path = folder, folder / "project.py"
        self.edit("    amount: float\n    returned", "    amount: float\n    pieces: int\n    returned")
        self.edit(
            'within="90d")\n\n\nclass Checkout',
            'within="90d")\n    pieces = vo.sum("pieces", within="90d")\n\n\nclass Checkout',
        )
        self.clock, self.random, self.n = ReplayClock(START), Random(3), 0

    def edit(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new, 1))

    def open(self) -> Project:
        return Project.open(self.folder, clock=self.clock, entropy=self.random.randbytes)

    def turn(self, project: Project, n: int, pieces: Any) -> list[Any]:
        """Decide and observe some orders; the pieces as served."""
        served = []
        for _ in range(n):
            self.n += 1
            self.clock.advance_to(self.clock.now() + 12 * HOUR_US)
            asked = {
                "order_id": f"o-{self.n}",
                "customer_id": "c",
                "amount": self.random.lognormvariate(3, 1),
            }
            project.drain()
            served.append(project.decide("get_return_risk", asked, decision_id=f"d-{self.n}").features[2])
            self.clock.advance_to(self.clock.now() + MINUTE_US)
            project.observe("orders", self.order(asked, pieces(self.n)), sync=False)
        project.drain(commit=True)
        return served

    def order(self, asked: dict[str, Any], pieces: Any) -> dict[str, Any]:
        return {
            **asked,
            "pieces": pieces,
            "returned": self.random.random() < 0.4,
            "closed_at": to_datetime(self.clock.now()),
        }


def test_whole_numbers_become_floats_under_old_and_new_producers_and_old_history_counts(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path / "shop")
    with shop.open() as project:
        project.apply()
        shop.turn(project, 100, lambda n: n % 4)
        first = {"order_id": "again", "customer_id": "x", "amount": 1.0, "pieces": 3, "returned": True,
                 "closed_at": to_datetime(shop.clock.now())}  # fmt: skip
        assert project.observe("orders", first).status == "pending"
        project.drain(commit=True)
        shop.clock.advance_to(shop.clock.now() + 31 * DAY_US)
        before = project.train("risk").training_set
        assert project.training_set(before).n_rows > 20
        shop.edit("pieces: int", "pieces: float")
        planned = project.plan()
        (change,) = planned.evolution
        assert (change.field, change.evolution) == ("pieces", Evolution.WIDENING)
        assert not planned.breaks
        project.apply()
        assert project.plan().is_empty
        served = shop.turn(project, 60, lambda n: n + 0.5 if n % 2 else n)
        assert {type(value) for value in served} == {float}
        receipts = [
            project.observe("orders", event)
            for event in (first, {**first, "pieces": 3.0}, {**first, "pieces": 3.5})
        ]
        project.drain(commit=True)
        assert [project.receipt(each.receipt_id).status for each in receipts] == [
            "duplicate",
            "duplicate",
            "conflict",
        ]
        shop.clock.advance_to(shop.clock.now() + 31 * DAY_US)
        after = project.train("risk").training_set
        assert project.verify(before).is_sound and project.verify(after).is_sound
        broken = [finding for finding in project.check() if not finding.sound]
        assert not broken, broken


def test_a_change_that_breaks_producers_is_refused_unless_allowed_and_what_it_sets_aside_is_replayed(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path / "shop")
    with shop.open() as project:
        project.apply()
        shop.turn(project, 2, lambda n: n)
        asked = {"order_id": "late", "customer_id": "x", "amount": 1.0}
        ahead = {**shop.order(asked, 1), "channel": "app"}
        told = project.observe("orders", ahead)  # a producer that is ahead of the schema
        assert told.problem is not None and told.problem[0] == "unknown_field"
        shop.edit("    pieces: int\n", "    pieces: int\n    channel: str\n")
        with pytest.raises(PlanRefused, match="missing_field") as refused:
            project.apply()
        assert "channel: ... | None" in refused.value.mend and "--allow-breaking" in refused.value.mend
        shop.edit("    channel: str\n", "    channel: str | None\n")
        project.apply()
        (done,) = project.replay(told.receipt_id)
        assert done.status == "stored"
        shop.turn(project, 2, lambda n: n)  # producers that do not know the new field
        shop.edit('    pieces = vo.sum("pieces", within="90d")\n', "")
        shop.edit("    pieces: int\n", "")
        with pytest.raises(PlanRefused, match="unknown_field"):
            project.apply()
        project.apply(allow_breaking=True)
        asked = {"order_id": "old", "customer_id": "x", "amount": 1.0}
        old = project.observe("orders", shop.order(asked, 1))
        assert old.problem is not None and old.problem[:2] == ("unknown_field", "pieces")
        account = project.reconcile()
        assert account.is_exact and account.resolutions.stored == 1
        project.discard(old.receipt_id, reason="an old producer", actor="ann")
        assert [row.fate for row in project.quarantine(fate=None)] == [Fate.REPLAYED, Fate.DISCARDED]
        assert project.reconcile().is_exact


def test_a_column_that_a_release_computes_with_does_not_widen_under_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    with shop.open() as project:
        project.apply()
        shop.turn(project, 130, lambda n: n % 4)
        shop.clock.advance_to(shop.clock.now() + 31 * DAY_US)
        project.train("risk")
        project.release("get_return_risk", force_reason="the first")
        shop.edit("pieces: int", "pieces: float")
        with pytest.raises(PlanRefused, match="compute with whole numbers"):
            project.apply()
