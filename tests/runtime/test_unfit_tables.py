"""Tables that do not fit: bad rows are set aside, a bad table costs what depends on it, and the mend does the rest."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from volano.cli.main import app
from volano.errors import NotReadyError, PartlyAppliedError, RequestError
from volano.project import Project
from volano.runtime.clock import ReplayClock
from volano.runtime.silence import Silence
from volano.values.instants import HOUR_US, YEAR_1, YEAR_10000, parse_instant, to_datetime

START = parse_instant("2026-03-01")
DEFINITIONS = """
from typing import Annotated

import volano as vo

ops = vo.Owner("ops", contact="ops@example.org")
shop = vo.Entity("shop", key=str, owner=ops)


class Sale(vo.Event, id="sale_id"):
    sale_id: str
    shop: Annotated[str | None, shop]
    amount: float
    sold_at: vo.EventTime


class Visit(vo.Event, id="visit_id"):
    visit_id: str
    shop: Annotated[str | None, shop]
    minutes: float | None
    came_at: vo.EventTime


class Info(vo.Event, id="shop"):
    shop: Annotated[str, shop]
    size: int
    since: vo.EventTime


sales = vo.Source("sales", Sale, table="sales.csv", stream=True, available_after="1m", accept_late="2h", owner=ops)
visits = vo.Source("visits", Visit, table="visits.csv", available_after="10m", owner=ops)
infos = vo.Source("infos", Info, table="infos.csv", available_after="0s", change="slowly_changing", owner=ops)


class Sales(vo.FeatureView, entity=shop, source=sales):
    n = vo.count(within="30d")
    spent = vo.sum("amount", within="30d")


class Visits(vo.FeatureView, entity=shop, source=visits, staleness="6h"):
    n = vo.count(within="30d")


class Sized(vo.FeatureView, entity=shop, source=sales, join=[vo.join(infos, "size")], staleness="6h"):
    size = vo.last("size", within="30d")
"""
SALES = """sale_id,shop,amount,sold_at
s1,a,1.5,2026-02-20T10:00:00Z
s2,a,much,2026-02-20T11:00:00Z
s3,a,2.5,2026-02-20T12:00:00Z
s4,b,7.5,yesterday
"""
VISITS = """visit_id,shop,minutes,came_at
v1,a,3.5,2026-02-20T10:00:00Z
v2,a,,2026-02-20T11:00:00Z
,a,1.5,2026-02-20T12:00:00Z
"""
INFOS = """shop,size,since
a,3,2026-02-01T00:00:00Z
b,4,2026-02-01T00:00:00Z
"""
RESULT = CliRunner()


class Shops:
    """A project over three tables."""

    def __init__(self, folder: Path, **tables: str) -> None:
        self.folder = folder
        self.clock = ReplayClock(START)
        (folder / "volano.toml").write_text('namespace = "shops"\nonline_map_gib = 1\n')
        (folder / "shops.py").write_text(DEFINITIONS)
        self.write(**{"sales": SALES, "visits": VISITS, "infos": INFOS, **tables})
        self.random = Random(1)
        self.open()

    def open(self) -> None:
        self.project = Project.open(self.folder, clock=self.clock, entropy=self.random.randbytes)

    def write(self, **tables: str) -> None:
        for name, text in tables.items():
            (self.folder / f"{name}.csv").write_text(text)

    def refused(self) -> dict[str, str]:
        """What an apply could not do, by step, and why."""
        with pytest.raises(PartlyAppliedError) as caught:
            self.project.apply()
        return {step: str(error) for step, error in caught.value.failures}

    @property
    def session(self):
        return self.project._work.session

    def online(self, view: str) -> set[bytes]:
        """The keys that the state of a view holds."""
        groups = [
            group for group in self.session.applied.groups if view in [each.name for each in group.views]
        ]
        with self.session.stores.online(self.session.applied.state).snapshot() as snapshot:
            return {
                key for group in groups for key, _ in snapshot.scan(group.prefix, group.prefix + b"\xff" * 9)
            }

    def ids(self, source: str) -> list[str]:
        return sorted(self.session.facts.rows(source)["event_id"].to_pylist())

    def quarantine(self) -> list[dict[str, Any]]:
        lake = self.session.stores.lake
        if lake.version("quarantine") is None:
            return []
        return sorted(lake.read("quarantine").to_pylist(), key=lambda row: row["payload"])


def test_bad_rows_of_every_table_are_set_aside_and_the_rest_goes_on(tmp_path):
    world = Shops(tmp_path)
    world.project.apply()
    assert world.ids("sales") == ["s1", "s3"]
    assert world.ids("visits") == ["v1", "v2"]
    rows = {(row["source"], row["event_id"]): row for row in world.quarantine()}
    assert set(rows) == {("sales", "s2"), ("sales", "s4"), ("visits", "")}
    much, when, nobody = rows["sales", "s2"], rows["sales", "s4"], rows["visits", ""]
    assert (much["reason"], much["field"]) == ("wrong_type", "amount")
    assert b'"much"' in much["payload"]
    assert (when["field"], b"yesterday" in when["payload"]) == ("sold_at", True)
    assert (nobody["reason"], nobody["field"]) == ("wrong_type", "visit_id")
    assert len({row["receipt_id"] for row in rows.values()}) == 3
    assert world.online("Sales")
    assert world.project.reconcile().is_exact
    assert world.project.reconcile().events.accepted == 0
    assert all(finding.sound for finding in world.project.check())


def test_rows_are_set_aside_once_however_often_it_is_applied_or_refreshed(tmp_path):
    world = Shops(tmp_path)
    world.project.apply()
    before = world.quarantine()
    world.project.refresh()
    (tmp_path / "shops.py").write_text(DEFINITIONS.replace('within="30d"', 'within="20d"'))
    world.project.apply()
    assert world.quarantine() == before
    world.write(visits=VISITS + "v3,a,1,2026-02-21T00:00:00Z\nv4,a,long,2026-02-21T00:00:00Z\n")
    world.project.refresh("visits")
    assert len(world.quarantine()) == len(before) + 1
    assert world.ids("visits") == ["v1", "v2", "v3"]
    world.write(visits=VISITS + "v3,a,2,2026-02-21T00:00:00Z\nv4,a,long,2026-02-21T00:00:00Z\n")
    world.project.refresh("visits")
    assert len(world.quarantine()) == len(before) + 1
    assert world.project.reconcile().is_exact


def test_a_pushed_row_mends_a_bad_one_of_the_table(tmp_path):
    world = Shops(tmp_path)
    world.project.apply()
    mended = {"sale_id": "s2", "shop": "a", "amount": 4.0, "sold_at": to_datetime(START - HOUR_US)}
    world.project.observe("sales", mended)
    world.project.drain(commit=True)
    assert world.ids("sales") == ["s1", "s2", "s3"]


BROKEN = {
    "a missing column": (VISITS.replace("minutes", "hours"), "no column 'minutes'", "visit_id, shop, hours"),
    "a column of another type": (
        VISITS.replace("T", "_").replace("Z", ""),
        "'came_at'",
        "2026-02-20_10:00:00",
    ),
    "a column without a value": (
        "visit_id,shop,minutes,came_at\n,a,1,2026-02-20T10:00:00Z\n",
        "'visit_id'",
        "'a'",
    ),
    "ids that repeat": (VISITS.replace("v2", "v1"), "occur in more than one row", "v1"),
    "a table that is not there": (None, "visits.csv", "does not exist"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_table_that_cannot_be_used_costs_what_depends_on_it_and_nothing_else(tmp_path, name):
    text, *said = BROKEN[name]
    world = Shops(tmp_path)
    if text is None:
        (tmp_path / "visits.csv").unlink()
    else:
        world.write(visits=text)
    refused = world.refused()
    assert [step.split()[0] for step in refused] == ["pin", "backfill"]
    told = next(iter(refused.values()))
    assert all(each in told for each in said), told
    assert "visits" in told
    # The rest is in force: state, definitions, doors.
    assert world.online("Sales")
    assert world.online("Sized")
    assert not world.online("Visits")
    world.project.observe(
        "sales", {"sale_id": "n1", "shop": "c", "amount": 1.0, "sold_at": to_datetime(START)}
    )
    assert world.project.drain(commit=True) == 1
    assert "n1" in world.ids("sales")
    with pytest.raises(NotReadyError, match="visits"):
        world.session.facts.rows("visits")
    with pytest.raises(NotReadyError, match="visits"):
        world.project.refresh("visits")
    state = world.session.applied.state
    # The same again changes nothing.
    assert list(world.refused()) == list(refused)
    assert world.session.applied.state == state
    # The mend does the rest, and nothing twice.
    world.write(visits=VISITS)
    assert [type(step).__name__ for step in world.project.plan().steps] == [
        "HandOver",
        "BackfillGroup",
        "PublishState",
    ]
    world.project.apply()
    assert world.project.plan().is_empty
    assert world.online("Visits")
    assert world.ids("visits") == ["v1", "v2"]
    assert "n1" in world.ids("sales")
    assert len(world.quarantine()) == 3
    assert all(finding.sound for finding in world.project.check())


def test_what_joins_a_dimension_that_cannot_be_used_waits_for_it(tmp_path):
    world = Shops(tmp_path, infos="shop,since\na,2026-02-01T00:00:00Z\n")
    refused = world.refused()
    assert [step.split()[1] for step in refused] == ["infos.csv", "infos", "Sized"]
    assert "infos" in refused[list(refused)[-1]]
    assert world.online("Sales")
    world.write(infos=INFOS)
    world.project.apply()
    assert world.online("Sized")


def test_a_source_that_nothing_reads_is_handed_over_by_the_next_apply(tmp_path):
    world = Shops(tmp_path)
    (tmp_path / "shops.py").write_text(DEFINITIONS.split("class Visits")[0])
    (tmp_path / "visits.csv").rename(tmp_path / "elsewhere.csv")
    assert len(world.refused()) == 1
    (tmp_path / "elsewhere.csv").rename(tmp_path / "visits.csv")
    world.project.apply()
    assert world.ids("visits") == ["v1", "v2"]
    assert world.project.plan().is_empty


def test_what_failed_before_a_kill_is_tried_again_when_it_was_mended(tmp_path):
    class Dies(Silence):
        def advanced(self, done: int, note: str = "") -> None:
            if note == "BackfillGroup":
                raise KeyboardInterrupt

    world = Shops(tmp_path, visits="visit_id\nv1\n")
    with pytest.raises(KeyboardInterrupt):
        world.project.apply(Dies())
    world.write(visits=VISITS)
    world.project.apply()
    assert world.ids("visits") == ["v1", "v2"]
    assert world.online("Visits")
    assert world.project.plan().is_empty


def test_the_command_line_says_what_is_missing_and_its_exit_code_too(tmp_path):
    world = Shops(tmp_path, visits="visit_id\nv1\n")
    world.project.close()
    result = RESULT.invoke(app, ["apply", "--yes", "-C", str(tmp_path)])
    assert result.exit_code == 1, result.stderr
    assert "2 of " in result.stderr
    assert "no column 'shop'" in result.stderr
    assert "volano apply" in result.stderr
    assert "Traceback" not in result.stderr
    world.write(visits=VISITS)
    result = RESULT.invoke(app, ["apply", "--yes", "-C", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    assert RESULT.invoke(app, ["plan", "-C", str(tmp_path)]).stdout.count("Nothing to do") == 1


def test_an_unfit_row_takes_nothing_back(tmp_path):
    """A row that cannot be read is wrong, and not gone."""
    world = Shops(tmp_path)
    world.project.apply()
    world.write(infos=INFOS.replace("a,3", "a,large"))
    world.project.refresh("infos")
    facts = world.session.facts.rows("infos")
    assert facts["operation"].to_pylist() == ["insert", "insert"]
    assert [row["event_id"] for row in world.quarantine() if row["source"] == "infos"] == ["a"]
    world.write(infos=INFOS.replace("a,3", "a,5"))
    world.project.refresh("infos")
    assert sorted(world.session.facts.rows("infos")["size"].to_pylist()) == [3, 4, 5]


def test_nan_and_infinity_are_values_at_the_hand_over_at_a_refresh_and_pushed(tmp_path):
    world = Shops(tmp_path, visits=VISITS + "v5,a,nan,2026-02-21T00:00:00Z\n")
    world.project.apply()
    world.write(visits=VISITS + "v5,a,nan,2026-02-21T00:00:00Z\nv6,a,-inf,2026-02-21T01:00:00Z\n")
    said = world.project.refresh("visits")["visits"]
    assert said == "1 changes from visits.csv"  # NaN is no other NaN
    pushed = {"sale_id": "p1", "shop": "a", "amount": float("inf"), "sold_at": to_datetime(START)}
    world.project.observe("sales", pushed)
    world.project.drain(commit=True)
    rows = world.session.facts.rows("visits")
    minutes = dict(zip(rows["event_id"].to_pylist(), map(repr, rows["minutes"].to_pylist()), strict=True))
    assert minutes == {"v1": "3.5", "v2": "None", "v5": "nan", "v6": "-inf"}
    assert float("inf") in world.session.facts.rows("sales")["amount"].to_pylist()
    assert {row["event_id"] for row in world.quarantine()} == {"s2", "s4", ""}
    assert all(finding.sound for finding in world.project.check())


def test_a_row_that_was_set_aside_at_the_hand_over_is_listed_and_sent_in_again_mended(tmp_path):
    world = Shops(tmp_path)
    world.project.apply()
    rows = {row.event_id: row for row in world.project.quarantine()}
    assert set(rows) == {"s2", "s4", ""}
    (done,) = world.project.replay(rows["s2"].receipt_id, edits={"amount": 4.5}, reason="read from the slip")
    assert done.replayed_as
    world.project.drain(commit=True)
    assert world.ids("sales") == ["s1", "s2", "s3"]
    assert world.project.reconcile().is_exact
    with pytest.raises(RequestError, match="takes no pushed events"):  # its table is mended instead
        world.project.replay(rows[""].receipt_id, edits={"visit_id": "v9"}, reason="why not")


def test_a_table_that_cannot_be_refreshed_stops_no_other(tmp_path):
    world = Shops(tmp_path)
    world.project.apply()
    world.write(visits="visit_id\nv1\n", infos=INFOS + "c,9,2026-02-02T00:00:00Z\n")
    with pytest.raises(RequestError, match="no column 'shop'"):
        world.project.refresh()
    assert world.ids("infos") == ["a", "b", "c"]
    assert world.project.refresh("infos") == {"infos": "infos.csv is unchanged"}


NO_NUMBERS = ["99999999999999999999", "-9223372036854775809", "9223372036854775808", "1_000", "\uff13"]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_a_text_that_is_no_whole_number_of_64_bits_is_set_aside_at_an_apply_and_at_a_refresh(tmp_path, text):
    bad = f"c,{text},2026-02-02T00:00:00Z\nd,x,2026-02-02T00:00:00Z\n"
    (tmp_path / "refreshed").mkdir()
    (tmp_path / "applied").mkdir()
    applied, refreshed = Shops(tmp_path / "applied", infos=INFOS + bad), Shops(tmp_path / "refreshed")
    applied.project.apply()
    refreshed.project.apply()
    refreshed.write(infos=INFOS + bad)
    refreshed.project.refresh("infos")
    for world in (applied, refreshed):
        assert world.ids("infos") == ["a", "b"]
        rows = {row["event_id"]: row for row in world.quarantine() if row["source"] == "infos"}
        assert {name: (row["reason"], row["field"]) for name, row in rows.items()} == {
            "c": ("wrong_type", "size"),
            "d": ("wrong_type", "size"),
        }
        assert text.encode() in rows["c"]["payload"]


def write_visits(world: Shops, *times: int) -> None:
    """Visits with event times of any size, v0 first."""
    table = pa.table(
        {
            "visit_id": [f"v{at}" for at in range(len(times))],
            "shop": ["a"] * len(times),
            "minutes": [1.0] * len(times),
            "came_at": pa.array(times, pa.timestamp("us", "UTC")),
        }
    )
    pq.write_table(table, world.folder / "visits.parquet")


def test_an_instant_outside_the_years_1_to_9999_is_set_aside_at_an_apply_and_at_a_refresh(tmp_path):
    world = Shops(tmp_path)
    world.write(sales=SALES + "s5,a,1.5,0001-01-01T00:00:00+05:00\n")
    (tmp_path / "shops.py").write_text(DEFINITIONS.replace("visits.csv", "visits.parquet"))
    write_visits(world, YEAR_1, YEAR_1 - 1, START - HOUR_US, YEAR_10000 - 1, YEAR_10000, 2**63 - 1)
    world.project.apply()
    assert world.ids("visits") == ["v0", "v2", "v3"]
    assert world.ids("sales") == ["s1", "s3"]
    rows = {row["event_id"]: row for row in world.quarantine()}
    assert set(rows) == {"s2", "s4", "s5", "v1", "v4", "v5"}
    assert (rows["v4"]["reason"], rows["v4"]["field"]) == ("wrong_type", "came_at")
    assert b"10000-01-01" in rows["v4"]["payload"]
    assert (rows["s5"]["reason"], rows["s5"]["field"]) == ("out_of_range", "sold_at")
    write_visits(
        world, YEAR_1, YEAR_1 - 1, START - HOUR_US, YEAR_10000 - 1, YEAR_10000, 2**63 - 1, YEAR_10000
    )
    for said in ("0 changes from visits.parquet", "visits.parquet is unchanged"):
        assert world.project.refresh("visits")["visits"].startswith(said)
    assert {row["event_id"] for row in world.quarantine()} == {*rows, "v6"}
    assert world.ids("visits") == ["v0", "v2", "v3"]
    assert world.project.reconcile().is_exact
    assert all(finding.sound for finding in world.project.check())


def test_a_column_with_no_instant_inside_the_years_1_to_9999_is_named_with_a_sample(tmp_path):
    world = Shops(tmp_path)
    (tmp_path / "shops.py").write_text(DEFINITIONS.replace("visits.csv", "visits.parquet"))
    write_visits(world, YEAR_10000)
    said = next(iter(world.refused().values()))
    assert "'came_at'" in said
    assert "10000-01-01" in said
