"""Tables that no decision reads online: refreshed by hand, known when they were due, row by row."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from volano.cli.main import app
from volano.errors import RequestError, UnknownNameError
from volano.project import Project
from volano.runtime.clock import ReplayClock
from volano.values.instants import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Instant,
    format_instant,
    from_datetime,
    parse_instant,
)

START: Instant = parse_instant("2026-03-01")
DEFINITIONS = """
from typing import Annotated

import volano as vo

ops = vo.Owner("ops", contact="ops@example.org")
shop = vo.Entity("shop", key=str, owner=ops)


class Visit(vo.Event, id="visit_id"):
    visit_id: int
    shop: Annotated[str | None, shop]
    minutes: float
    came_at: vo.EventTime


class Info(vo.Event, id=["shop", "since"]):
    shop: Annotated[str, shop]
    seats: int
    since: vo.EventTime


class Call(vo.Event, id="call_id"):
    call_id: int
    shop: Annotated[str, shop]
    called_at: vo.EventTime


visits = vo.Source("visits", Visit, table="visits.csv", available_after="10m", accept_late="2d", owner=ops)
infos = vo.Source("infos", Info, table="infos.csv", available_after="1h", change="slowly_changing", owner=ops)
calls = vo.Source("calls", Call, stream=True, accept_late="1h", owner=ops)


class Visits(vo.FeatureView, entity=shop, source=visits):
    n = vo.count(within="3d")
    minutes = vo.mean("minutes", within="10d")


class Infos(vo.FeatureView, entity=shop, source=infos):
    seats = vo.last("seats")
"""


def visit(number: int, at: Instant, shop: str = "a", minutes: str = "1.5") -> str:
    return f"{number},{shop},{minutes},{format_instant(at)}"


class Shop:
    """A project over two tables of text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ReplayClock(START)
        self.visits = [visit(1, START - 5 * DAY_US), visit(2, START - HOUR_US)]
        (folder / "volano.toml").write_text('namespace = "shops"\nonline_map_gib = 1\n')
        (folder / "shops.py").write_text(DEFINITIONS, encoding="utf-8")
        self.write()
        self.infos("a,10,2026-02-01T00:00:00Z")
        self.project = Project.open(folder, clock=self.clock, entropy=Random(1).randbytes)

    def write(self, *lines: str) -> None:
        self.visits += lines
        text = "\n".join(("visit_id,shop,minutes,came_at", *self.visits))
        (self.folder / "visits.csv").write_text(text + "\n")

    def infos(self, *lines: str) -> None:
        (self.folder / "infos.csv").write_text("\n".join(("shop,seats,since", *lines)) + "\n")

    def facts(self, source: str = "visits") -> dict[Any, dict[str, Any]]:
        """The newest revision of every row, by its first column."""
        rows = self.project._work.session.facts.rows(source).sort_by("revision").to_pylist()
        return {row["event_id"]: row for row in rows}

    def quarantine(self) -> list[dict[str, Any]]:
        return self.project._work.stores.lake.read("quarantine").to_pylist()


@pytest.fixture
def shop(tmp_path):
    world = Shop(tmp_path)
    yield world
    world.project.close()


def test_a_row_is_known_when_it_was_due_and_a_late_one_when_it_came(shop):
    shop.project.apply()
    shop.clock.advance_to(START + DAY_US)
    due, late, before = START + HOUR_US, START - 30 * MINUTE_US, START - 5 * MINUTE_US
    shop.write(visit(3, due), visit(4, late), visit(5, before))
    assert shop.project.refresh("visits") == {"visits": "3 changes from visits.csv"}
    facts = shop.facts()
    known = {number: from_datetime(row["known_at"]) for number, row in facts.items()}
    assert known["1"] == START - 5 * DAY_US + 10 * MINUTE_US
    assert known["3"] == due + 10 * MINUTE_US
    # It was due before the table was handed over and not there: it came late.
    assert known["4"] == from_datetime(facts["4"]["applied_at"]) >= START + DAY_US
    assert known["5"] == before + 10 * MINUTE_US
    assert from_datetime(facts["3"]["applied_at"]) >= START + DAY_US


def test_a_correction_is_known_when_it_came(shop):
    shop.project.apply()
    shop.clock.advance_to(START + DAY_US)
    shop.visits[1] = visit(2, START - HOUR_US, minutes="9")
    shop.write()
    shop.project.refresh()
    row = shop.facts()["2"]
    assert (row["minutes"], row["revision"]) == (9.0, 1)
    assert row["known_at"] == row["applied_at"]


def test_a_refresh_looks_back_as_far_as_the_past_may_change(shop):
    shop.project.apply()
    shop.clock.advance_to(START + DAY_US)
    shop.visits[0] = visit(1, START - 5 * DAY_US, minutes="7")
    shop.write(visit(3, START - 3 * DAY_US), visit(4, START - DAY_US))
    assert shop.project.refresh("visits") == {"visits": "1 changes from visits.csv"}
    assert set(shop.facts()) == {"1", "2", "4"}
    assert shop.facts()["1"]["minutes"] == 1.5
    # A late row of a table changes features all the same: accept_late says how far a refresh looks back.
    shop.write(visit(5, START - DAY_US - HOUR_US))
    shop.clock.advance_to(START + 30 * DAY_US)
    shop.project.refresh()
    work = shop.project._work.session
    assert "5" in work.facts.rows("visits", for_features=True)["event_id"].to_pylist()


def test_rows_that_do_not_fit_are_in_quarantine_once_and_the_others_are_facts(shop):
    shop.write(visit(6, START, minutes="many"), visit(7, START, minutes=""), "8,a,1.5,yesterday")
    shop.project.apply()
    assert set(shop.facts()) == {"1", "2"}
    for day in (1, 2):
        shop.clock.advance_to(START + day * DAY_US)
        shop.write(visit(10 + day, START + day * DAY_US - HOUR_US, minutes="3" if day == 2 else "few"))
        said = shop.project.refresh("visits")["visits"]
        assert ("1 rows do not fit and are in quarantine" in said) == (day == 1), said
    assert set(shop.facts()) == {"1", "2", "12"}
    assert {(row["event_id"], row["field"]) for row in shop.quarantine()} == {
        ("6", "minutes"),
        ("7", "minutes"),
        ("8", "came_at"),
        ("11", "minutes"),
    }
    account = shop.project._work.session.reconcile().events
    assert account.is_exact
    assert account.quarantined == 1  # the rows of the hand-over were never accepted


def test_a_column_in_which_nothing_fits_is_refused_and_the_other_sources_go_on(shop):
    shop.project.apply()
    shop.clock.advance_to(START + DAY_US)
    shop.visits = [visit(number, START, minutes="many") for number in range(3)]
    shop.write()
    shop.infos("a,10,2026-02-01T00:00:00Z", "b,20,2026-02-02T00:00:00Z")
    with pytest.raises(RequestError, match="'minutes' is declared double") as caught:
        shop.project.refresh("visits")
    assert "source visits" in str(caught.value.where)
    assert shop.project.refresh("infos") == {"infos": "1 changes from infos.csv"}


def test_a_table_that_goes_back_in_time_is_refused(shop):
    shop.project.apply()
    shop.clock.advance_to(START + DAY_US)
    shop.visits = [visit(1, START - 5 * DAY_US)]
    shop.write()
    with pytest.raises(RequestError, match="does not go back in time") as caught:
        shop.project.refresh("visits")
    assert "column came_at" in str(caught.value.where)
    assert set(shop.facts()) == {"1", "2"}


def test_a_table_that_was_emptied_takes_nothing_back(shop):
    shop.project.apply()
    shop.clock.advance_to(START + DAY_US)
    shop.infos()
    with pytest.raises(RequestError, match="table is empty"):
        shop.project.refresh("infos")
    (row,) = shop.facts("infos").values()
    assert row["operation"] == "insert"


def test_only_tables_are_refreshed(shop):
    shop.project.apply()
    with pytest.raises(RequestError, match="'calls' is not refreshed"):
        shop.project.refresh("calls")
    with pytest.raises(UnknownNameError):
        shop.project.refresh("visit")


def test_the_verb_says_what_each_table_brought(shop):
    shop.project.apply()
    shop.write(visit(3, START))
    shop.project.close()
    found = CliRunner().invoke(app, ["refresh", "-C", str(shop.folder)])
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines() == [
        "visits: 1 changes from visits.csv",
        "infos: infos.csv is unchanged",
    ]
