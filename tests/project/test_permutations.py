"""Any order and repetition of events, decisions, exposures, corrections and retractions gives the same tables.

Through the public door, the real applier, committer and labels job, in one process: whatever comes first, however often
labels are brought up to date in between, the facts, decisions, label states and shares are the same in the end, but for the
instants of arrival.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from volano.organize.labels import state_as_of
from volano.project import Project
from volano.records.elsewhere import DecisionElsewhere
from volano.records.journal import Operation
from volano.runtime import labelling
from volano.runtime.clock import ReplayClock
from volano.runtime.labelling import update_labels
from volano.values.instants import DAY_US, HOUR_US, Instant, parse_instant, to_datetime

START: Instant = parse_instant("2026-01-01")
ARRIVAL = {
    "received_at",
    "applied_at",
    "known_at",
    "receipt_id",
    "computed_at",
    "evidence_stamp",
    "attached_at",
}
DEFINITIONS = """
from typing import Annotated
import volano as vo

shop = vo.Owner("shop", contact="shop@example.org")
customer = vo.Entity("customer", key=str, owner=shop)

class Order(vo.Event, id="order_id"):
    order_id: str
    customer: Annotated[str | None, customer]
    offer: str | None
    amount: float | None
    till: int
    ordered_at: vo.EventTime

class Closed(vo.Event, id="closing_id"):
    closing_id: str
    customer: str
    closed_at: vo.EventTime

orders = vo.Source("orders", Order, stream=True, order_by="till", accept_late="30d", owner=shop)
closed = vo.Source("closed", Closed, stream=True, accept_late="30d", owner=shop)

class History(vo.FeatureView, entity=customer, source=orders):
    orders_7d = vo.count(within="7d")

class Visit(vo.Request):
    customer: Annotated[str | None, customer]

shared = {"request": Visit, "source": orders, "horizon": "3d", "owner": shop}
labels = [
    ("spent", {"on": "customer", "value": "amount", "combine": "sum", "default": 0.0,
               "attribution": vo.Attribution("decay", half_life="6h", exposed=True)}),
    ("bought", {"on": "customer", "value": vo.sql("amount > 10"), "combine": "any", "censored_by": closed,
                "attribution": vo.Attribution("last")}),
    ("next", {"on": "customer", "value": "amount"}),
    ("taken", {"on": {"decision_id": "offer"}, "value": vo.sql("amount > 10"), "default": False}),
]
"""
DECIDED = """
{name}_label = vo.Label("{name}", **dict(labels)["{name}"], **shared)
{name}_model = vo.Model("{name}", features=[History], label={name}_label,
                        trainer=vo.Sklearn("LinearRegression"), owner=shop)
{name} = vo.Decision("{name}", request=Visit, model={name}_model, actions=["yes", "no"], fallback="no",
                     policy=vo.Threshold("yes", at=1), deadline="1h", owner=shop)
"""
DECISIONS = ("spent", "bought", "next", "taken")
Item = Callable[[Project], object]


def script(random: Random, hours: int = 48) -> list[tuple[Instant, Item]]:
    """What is told, free of conflicts: one content for each id and revision. With the last instant that it names."""
    named = [START]

    def at() -> Any:
        named[0] = START + random.randrange(0, hours) * HOUR_US
        return to_datetime(named[0])

    def dated(item: Item) -> tuple[Instant, Item]:
        return named[0], item

    def decision(name: str, number: int, customer: str | None) -> Item:
        made = DecisionElsewhere(
            decision_id=f"{name}-{number}", request=msgspec.Raw(msgspec.json.encode({"customer": customer})),
            action="yes", decided_at=at(), propensity=1.0, propensity_method="deterministic",
        )  # fmt: skip
        return lambda project: project.log_decision(name, made)

    def exposure(number: int) -> Item:
        event = {"exposure_id": f"x{number}", "decision": "spent", "exposed_at": at()}
        event["decision_id"] = f"spent-{random.randrange(8)}"
        return lambda project: project.observe("exposure", event)

    def order(number: int, revision: int) -> Item:
        body = {
            "order_id": f"o{number}",
            "customer": random.choice(["ann", "bob", "bob", None]),
            "offer": random.choice([None, f"taken-{random.randrange(8)}"]),
            "amount": random.choice([5.0, 12.5, 40.0, None]),
            "till": random.randrange(2),
            "ordered_at": at(),
        }
        how = (
            random.choice([Operation.CORRECT, Operation.CORRECT, Operation.RETRACT])
            if revision
            else Operation.INSERT
        )
        return lambda project: project.observe("orders", body, operation=how, revision=revision)

    def closing(number: int) -> Item:
        body = {"closing_id": f"c{number}", "customer": random.choice(["ann", "bob"]), "closed_at": at()}
        return lambda project: project.observe("closed", body)

    customers = ["ann", "bob", "bob", None]
    told = [
        dated(decision(name, number, random.choice(customers))) for name in DECISIONS for number in range(8)
    ]
    told += [dated(exposure(number)) for number in range(7)]
    for number in range(16):
        told += [dated(order(number, revision)) for revision in range(random.choice([1, 1, 1, 2, 3]))]
    return [*told, dated(closing(0))]


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, applied, with nothing told yet."""
    folder = tmp_path_factory.mktemp("shop") / "empty"
    folder.mkdir()
    (folder / "volano.toml").write_text('namespace = "shop"\ncommit_every = "100d"\nonline_map_gib = 1\n')
    decided = "".join(DECIDED.format(name=name) for name in DECISIONS)
    (folder / "shop.py").write_text(DEFINITIONS + decided)
    with Project.open(folder, clock=ReplayClock(START), entropy=Random(1).randbytes) as project:
        project.apply()
    return folder


def tell(
    empty: Path, folder: Path, order: list[Item], random: Random, *, often: bool
) -> dict[str, list[Any]]:
    """Tell what happened in an order; the tables as they stand in the end."""
    shutil.copytree(empty, folder)
    clock = ReplayClock(START + 49 * HOUR_US)
    with Project.open(folder, clock=clock, entropy=random.randbytes) as project:
        session = project._work.session
        for item in order:
            clock.advance_to(clock.now() + random.randrange(1, 20_000_000))
            item(project)
            if random.random() < 0.2:
                project.drain()
            if often and random.random() < 0.08:
                project.drain(commit=True)
                update_labels(session, as_of=clock.now())
        project.drain()
        assert clock.now() < START + 3 * DAY_US, "all arrives before the first label is mature"
        clock.advance_to(START + 6 * DAY_US)
        project.drain(commit=True)
        update_labels(session, as_of=clock.now())
        assert project.reconcile().is_exact
        assert not [finding for finding in project.check() if not finding.sound]
        lake = session.stores.lake
        pairs = lake.read("attribution")
        tables = {name: lake.read(name) for name in lake.tables() if name.startswith(("fact_", "decision_"))}
        tables |= {"exposure": lake.read("exposure"), "label": state_as_of(lake.read("label"), clock.now())}
        return {name: content(rows) for name, rows in (tables | {"attribution": standing(pairs)}).items()}


def standing(pairs: pa.Table) -> pa.Table:
    """Of each pair the newest row, if it is attached; no event is given away more than once."""
    newest: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in sorted(pairs.to_pylist(), key=lambda row: row["attached_at"]):
        newest[tuple(row[name] for name in ("decision", "decision_id", "label", "event_id"))] = row
    rows = [row for row in newest.values() if row["state"] == "attached"]
    given: dict[tuple[str, str], float] = {}
    for row in rows:
        key = row["label"], row["event_id"]
        given[key] = given.get(key, 0.0) + row["weight"]
    assert all(0 < weight <= 1 for weight in given.values())
    return pa.Table.from_pylist(rows, schema=pairs.schema)


def content(rows: pa.Table) -> list[Any]:
    kept = rows.select([name for name in rows.column_names if name not in ARRIVAL])
    return sorted(kept.to_pylist(), key=repr)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 5))])
def test_order_and_repetition_change_no_table(applied: Path, tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    told = [item for _, item in script(random)]
    straight = tell(applied, tmp_path / "straight", told, random, often=False)
    shuffled = told + random.choices(told, k=len(told) // 2)
    random.shuffle(shuffled)
    again = tell(applied, tmp_path / "shuffled", shuffled, random, often=True)
    for name, rows in straight.items():
        differ = [(a, b) for a, b in zip(again[name], rows, strict=True) if a != b]
        assert not differ, f"{name}: {differ[0][0]} and {differ[0][1]}"
    assert {"mature", "censored"} <= {row["state"] for row in straight["label"]}
    assert len({row["label"] for row in straight["attribution"]}) >= 3


@pytest.mark.parametrize("seed", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_what_a_run_reads_is_all_that_it_concerns(
    applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Over weeks, everything late: a run from the beginning finds nothing to add to what runs in between have written."""
    random = Random(seed)
    late = [0, 0, 1, 5, 30, 80, 200]
    told = [(at + random.choice(late) * HOUR_US, item) for at, item in script(random, hours=20 * 24)]
    told.sort(key=lambda item: item[0])
    folder = shutil.copytree(applied, tmp_path / "shop")
    clock = ReplayClock(START)
    with Project.open(folder, clock=clock, entropy=random.randbytes) as project:
        session = project._work.session

        def label() -> int:
            project.drain(commit=True)
            return update_labels(session, as_of=clock.now())

        n_rows, looked_at = 0, START
        for at, item in told:
            while looked_at + DAY_US < at:
                looked_at += DAY_US
                clock.advance_to(max(looked_at, clock.now()))
                n_rows += label()
            clock.advance_to(max(at, clock.now()))
            item(project)
        clock.advance_to(clock.now() + HOUR_US)
        n_rows += label()
        lake = session.stores.lake
        assert n_rows == lake.read("label").num_rows > 20
        n_pairs = lake.read("attribution").num_rows
        monkeypatch.setattr(labelling, "_RULES", -1)
        assert label() == 0
        assert lake.read("attribution").num_rows == n_pairs > 5
