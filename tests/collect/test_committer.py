"""The committer: what was applied is in the lake once, whatever happens between two tables."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import msgspec
import pytest

from tests.collect.world import SERVICE, START, World, content, project, sale
from volano.collect.committer import Committer
from volano.collect.tables import lake_tables
from volano.errors import StateMismatchError, StoreFullError
from volano.plan.definitions import CompiledProject, CompiledService
from volano.records.journal import DecisionMade, Operation, ShadowScored
from volano.records.quarantine import Fate, Resolution
from volano.stores.delta_lake import DeltaLake
from volano.stores.file_apply_log import FileApplyLogReader
from volano.stores.file_journal import FileJournalReader
from volano.testing.disk import PowerLoss, SimulatedDisk
from volano.values.instants import BEGINNING


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with World(tmp_path) as opened:
        yield opened


def decision(decision_id: str, **changes) -> DecisionMade:
    made = DecisionMade(
        decision_id,
        "shops",
        "get_risk",
        "bundle",
        "release",
        "risk",
        "risk-1",
        SERVICE.version,
        {"sale_id": "s", "shop": "corner", "card": None, "asked_for": 5.0},
        [1, 10.0, None, 10.0, "food", None, 0, 10.0, 1, 10.0, 0, 5.0, 0.5],
        START,
        START,
        0.5,
        "yes",
        1.0,
        "deterministic",
        latency_us={"total": 7},
    )
    return msgspec.structs.replace(made, **changes)


def push(world: World) -> None:
    """Two rounds with something for every table."""
    for n in range(2):
        world.door.accept("sales", [sale(f"a{n}", START), sale(f"a{n}", START), {"sale_id": "bad"}])
        world.door.accept("sales", [sale(f"a{n}", START, amount=3.5)])
        world.door.log([decision(f"d{n}"), ShadowScored(f"d{n}", "get_risk", "risk", "risk-0", 0.25, START)])
        world.applier.step()


def tables(world: World) -> dict[str, list[dict[str, object]]]:
    return {name: content(world.lake.read(name)) for name in world.lake.tables()}


def test_every_record_ends_in_its_tables(world):
    push(world)
    assert world.committer.step() == 2 * (1 + 2 + 1 + 1 + 4)
    assert {name: len(rows) for name, rows in tables(world).items()} == {
        "decision_get_risk": 2,
        "fact_sales": 2,
        "quarantine": 4,
        "receipt": 8,
        "shadow_score": 2,
    }
    assert world.committer.step() == 0


def test_tables_are_as_declared(world):
    push(world)
    named = {"decision": "get_risk", "decision_id": "d0"}
    at = "2026-03-01T00:00:00Z"
    world.door.accept("exposure", [{"exposure_id": "e0", "exposed_at": at, **named}])
    world.door.accept("action_taken", [{"action_id": "a0", "taken_at": at, "action": "no", **named}])
    world.door.resolve([Resolution("r", "shops", "sales", Fate.DISCARDED, "ann", START)])
    while world.applier.step():
        pass
    world.committer.step()
    for name, schema in lake_tables(world.project).items():
        assert world.lake.read(name).schema.names == schema.names
    (fact,) = world.lake.read("fact_sales", where={"event_id": ("a0", "a1")}).to_pylist()
    assert fact["applied_at"] == fact["known_at"] == fact["event_time"] == fact["sold_at"]
    assert (fact["sale_id"], fact["amount"], fact["operation"], fact["revision"]) == ("a0", 10.0, "insert", 0)
    (made,) = world.lake.read("decision_get_risk", where={"decision_id": ("d0", "d1")}).to_pylist()
    assert (made["request__shop"], made["feature__Shop__total"], made["feature__ratio"]) == (
        "corner",
        10.0,
        0.5,
    )
    assert made["latency_us"] == [("total", 7)]


def test_a_decision_that_read_nothing_has_null_features(world):
    world.door.log([decision("d", features=[], features_as_of=BEGINNING, fallback="no_release: none")])
    world.applier.step()
    world.committer.step()
    (made,) = world.lake.read("decision_get_risk").to_pylist()
    assert made["features_as_of"] is None
    assert made["feature__Shop__total"] is None


class Breaking:
    """A lake whose append to one table fails, before or after it was done."""

    def __init__(self, lake, table: str, *, after: bool):
        self._lake = lake
        self._table = table
        self._after = after

    def __getattr__(self, name):
        return getattr(self._lake, name)

    def append(self, table, rows, *, writer, sequence):
        if table == self._table and not self._after:
            raise StoreFullError("full")
        version = self._lake.append(table, rows, writer=writer, sequence=sequence)
        if table == self._table:
            raise StoreFullError("killed")
        return version


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "table", ["decision_get_risk", "fact_sales", "quarantine", "receipt", "shadow_score"]
)
def test_a_crash_at_any_table_loses_nothing_and_repeats_nothing(world, table, after):
    push(world)
    broken = Committer(world.project, world.reader, world.apply_log, Breaking(world.lake, table, after=after))
    with pytest.raises(StoreFullError):
        broken.step()
    world.door.accept("sales", [sale("later", START)])
    world.door.log([decision("later")])
    world.applier.step()
    Committer(world.project, world.reader, world.apply_log, world.lake).step()
    found = tables(world)
    assert {name: len(rows) for name, rows in found.items()} == {
        "decision_get_risk": 3,
        "fact_sales": 3,
        "quarantine": 4,
        "receipt": 9,
        "shadow_score": 2,
    }
    assert len({row["receipt_id"] for row in found["receipt"]}) == 9


def test_small_commits_and_large_ones_give_the_same_tables(world):
    for n in range(30):
        world.door.accept("sales", [sale(f"s{n % 20}", START)])
        world.applier.step()
    Committer(world.project, world.reader, world.apply_log, world.lake, rows_a_commit=4).step()
    assert len(tables(world)["fact_sales"]) == 20
    assert len(tables(world)["receipt"]) == 30
    assert world.lake.committed("receipt", "committer") == 30


def older(project: CompiledProject) -> tuple[CompiledService, dict[str, CompiledProject]]:
    """A service that reads less, and the definitions of two bundles: the project's own, and one with that service."""
    service = CompiledService("risk", "Ask", SERVICE.inputs[:1])
    (name, model), *_ = project.models.items()
    models = {name: msgspec.structs.replace(model, service=service)}
    return service, {"bundle": project, "old": msgspec.structs.replace(project, models=models)}


def test_decisions_of_several_services_share_a_table_that_widens(world):
    old, definitions = older(world.project)
    grown = Committer(
        world.project, world.reader, world.apply_log, world.lake, definitions=definitions.__getitem__
    )
    world.door.log(
        [decision("new"), decision("old", bundle="old", service_version=old.version, features=[7])]
    )
    world.applier.step()
    grown.step()
    rows = {row["decision_id"]: row for row in world.lake.read("decision_get_risk").to_pylist()}
    assert rows["old"]["feature__Shop__n"] == 7
    assert rows["old"]["feature__ratio"] is None
    assert rows["new"]["feature__ratio"] == 0.5


def test_a_decision_of_an_unknown_service_waits_until_the_service_is_known(world):
    old, definitions = older(world.project)
    world.door.log([decision("old", bundle="old", service_version=old.version, features=[7])])
    world.applier.step()
    with pytest.raises(StateMismatchError, match="does not declare"):
        world.committer.step()
    Committer(
        world.project, world.reader, world.apply_log, world.lake, definitions=definitions.__getitem__
    ).step()
    assert world.lake.read("decision_get_risk").num_rows == 1


def test_events_accepted_under_an_older_schema_are_committed_under_the_new_one(tmp_path):
    with World(tmp_path, without_kind()) as old:
        old.door.accept("sales", [{key: value for key, value in sale("a", START).items() if key != "kind"}])
    with World(tmp_path) as new:
        new.applier.step()
        new.committer.step()
        (fact,) = new.lake.read("fact_sales").to_pylist()
        assert (fact["amount"], fact["kind"]) == (10.0, None)


def without_kind() -> CompiledProject:
    definition = project()
    sales = definition.sources["sales"]
    fields = tuple(field for field in sales.schema.fields if field.name != "kind")
    slim = msgspec.structs.replace(sales, schema=msgspec.structs.replace(sales.schema, fields=fields))
    return msgspec.structs.replace(definition, sources={"sales": slim}, views={})


def test_corrections_and_retractions_are_rows_of_their_own(world):
    world.door.accept("sales", [sale("a", START)])
    world.door.accept("sales", [sale("a", START, amount=1.0)], operation=Operation.CORRECT, revision=1)
    world.door.accept("sales", [{"sale_id": "a"}], operation=Operation.RETRACT, revision=2)
    world.applier.step()
    world.committer.step()
    rows = sorted(world.lake.read("fact_sales").to_pylist(), key=lambda row: row["revision"])
    assert [(row["operation"], row["amount"]) for row in rows] == [
        ("insert", 10.0),
        ("correct", 1.0),
        ("retract", None),
    ]
    assert rows[2]["event_time"] is None


def test_nothing_is_committed_that_a_loss_of_power_takes_from_the_apply_log(tmp_path):
    """The committer runs between the write of a batch and its sync; then the power goes."""
    disk = SimulatedDisk()
    world = World(tmp_path, disk=disk)
    world.applier.recover()
    world.door.accept("sales", [sale(f"a{n}", START) for n in range(3)])
    world.applier.step()
    world.committer.step()
    log = FileApplyLogReader(tmp_path / "apply_log", files=disk)
    committed = []

    def commit_at_once():
        last = log.last()
        if not committed and last is not None and last.sequence == 2:
            committed.append(True)
            reader = FileJournalReader(tmp_path / "journal", files=disk)
            Committer(world.project, reader, log, DeltaLake(tmp_path / "lake")).step()
            disk.crash_at = disk.n_effects + 1

    disk.watch = commit_at_once
    world.door.accept("sales", [sale(f"b{n}", START) for n in range(3)])
    with pytest.raises(PowerLoss):
        world.applier.step()
    assert committed
    world.online.close()
    for seed in range(20):
        left = FileApplyLogReader(tmp_path / "apply_log", files=disk.power_loss(Random(seed))).last()
        assert left is not None
        assert left.sequence == 2
