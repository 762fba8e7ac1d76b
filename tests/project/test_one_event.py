"""One ad click, followed through every data set that it belongs to, by nothing but the public API.

It updates the click fact, the features of the ad, the label of the decision that showed it and the next training set, and
it feeds a feature of another decision, on fraud, as well. Nobody wrote glue for any of that.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from volano.project import Project
from volano.records.journal import Operation
from volano.runtime.clock import ReplayClock
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, Instant, parse_instant, to_datetime

START: Instant = parse_instant("2026-03-01")
DEFINITIONS = """
from typing import Annotated
import volano as vo

ads = vo.Owner("ads", contact="ads@example.org")
ad, device = vo.Entity("ad", key=str, owner=ads), vo.Entity("device", key=str, owner=ads)

class Click(vo.Event, id="click_id"):
    click_id: str
    impression: str
    ad: Annotated[str, ad]
    device: Annotated[str, device]
    clicked_at: vo.EventTime

class Report(vo.Event, id="report_id"):
    report_id: str
    device: Annotated[str, device]
    is_bot: bool
    reported_at: vo.EventTime

clicks = vo.Source("clicks", Click, stream=True, accept_late="1d", owner=ads)
reports = vo.Source("reports", Report, stream=True, accept_late="1d", owner=ads)

class Ad(vo.FeatureView, entity=ad, source=clicks):
    clicks_1d = vo.count(within="1d")

class Device(vo.FeatureView, entity=device, source=clicks):
    clicks_1h = vo.count(within="1h")
    ads_1d = vo.count_distinct("ad", within="1d")

class Slot(vo.Request):
    ad: Annotated[str, ad]
    device: Annotated[str, device]

class Session(vo.Request):
    device: Annotated[str, device]

clicked = vo.Label("clicked", request=Slot, source=clicks, on={"decision_id": "impression"}, value=vo.sql("true"),
                   horizon="3h", default=False, attribution=vo.Attribution("last", exposed=True), owner=ads)
bot = vo.Label("bot", request=Session, source=reports, on="device", value="is_bot", combine="any", default=False,
               horizon="1d", owner=ads)

trees = vo.LightGBM(objective="binary", num_iterations=5, min_data_in_leaf=5)
gate = vo.Gate("log_loss", margin=0.0, confidence=0.9, min_labels=10)
ad_model = vo.Model("ad", features=[Ad], label=clicked, trainer=trees, retrain="daily", owner=ads)
bot_model = vo.Model("bot", features=[Device], label=bot, trainer=trees, retrain="daily", owner=ads)
show_ad = vo.Decision("show_ad", request=Slot, model=ad_model, actions=["show", "skip"], fallback="show",
                      policy=vo.Threshold("show", at=0.0), deadline="1h", owner=ads)
get_bot_score = vo.Decision("get_bot_score", request=Session, model=bot_model, actions=["block", "pass"],
                            fallback="pass", policy=vo.Threshold("block", at=0.9), deadline="1h", owner=ads)
live, guarded = vo.Release(show_ad, gate=gate), vo.Release(get_bot_score, gate=gate)
"""


class Ads:
    """The project, with a clock that the test moves."""

    def __init__(self, project: Project, clock: ReplayClock) -> None:
        self.project = project
        self.clock = clock

    def show(self, ad: str, device: str, impression: str) -> Any:
        """Decide on a slot, and show what was decided half a minute later."""
        made = self.project.decide("show_ad", {"ad": ad, "device": device}, decision_id=impression)
        self.wait(MINUTE_US // 2)
        self.project.log_exposure("show_ad", impression)
        return made

    def click(self, click_id: str, impression: str, ad: str, device: str) -> None:
        at = to_datetime(self.clock.now())
        event = {"click_id": click_id, "impression": impression, "ad": ad, "device": device, "clicked_at": at}
        self.project.observe("clicks", event)
        self.project.drain()

    def wait(self, us: int) -> None:
        self.clock.advance_to(self.clock.now() + us)

    def features(self, decision_id: str) -> dict[str, object]:
        """What a decision was served."""
        self.project.drain(commit=True)
        return {each.name: each.value for each in self.project.decision(decision_id).features}

    def labels(self, decision_id: str) -> list[tuple[str, object]]:
        """What was said about a decision, up to now."""
        self.project.drain(commit=True)
        self.project.run_due()
        return [(label.state.value, label.value) for label in self.project.decision(decision_id).labels]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Instant]:
    """Four days of slots, clicks and reports; then both decisions are served by a model."""
    folder = tmp_path_factory.mktemp("ads") / "past"
    folder.mkdir()
    (folder / "volano.toml").write_text(
        'namespace = "ads"\ncommit_every = "1d"\nlabel_every = "1h"\nonline_map_gib = 1\n'
    )
    (folder / "ads.py").write_text(DEFINITIONS)
    clock, random = ReplayClock(START), Random(3)
    with Project.open(folder, clock=clock, entropy=Random(1).randbytes) as project:
        world = Ads(project, clock)
        project.apply()
        for number in range(96):
            ad, device = f"ad-{number % 3}", f"device-{random.randrange(4)}"
            world.show(ad, device, f"past-{number}")
            project.decide("get_bot_score", {"device": device})
            world.wait(10 * MINUTE_US)
            if random.random() < 0.2 + 0.3 * (number % 3):
                world.click(f"click-{number}", f"past-{number}", ad, device)
            if number % 4 == 0:
                report = {"report_id": f"r-{number}", "device": device, "is_bot": device == "device-0"}
                project.observe("reports", report | {"reported_at": to_datetime(clock.now())})
            world.wait(HOUR_US - 10 * MINUTE_US - MINUTE_US // 2)
        world.wait(DAY_US)
        for model, decision in (("ad", "show_ad"), ("bot", "get_bot_score")):
            project.train(model)
            project.release(decision, force_reason="the first one")
    return folder, clock.now()


@pytest.fixture
def ads(past: tuple[Path, Instant], tmp_path: Path) -> Iterator[Ads]:
    """That project, for one test to go on with."""
    folder = shutil.copytree(past[0], tmp_path / "ads")
    clock = ReplayClock(past[1])
    with Project.open(folder, clock=clock, entropy=Random(2).randbytes) as project:
        yield Ads(project, clock)


def test_one_click_reaches_every_data_set_that_it_belongs_to(ads: Ads) -> None:
    project = ads.project
    before = ads.show("ad-1", "device-9", "the-impression")
    assert before.model_version == "ad-0001"
    other = ads.show("ad-1", "device-9", "not-clicked")
    hidden = project.decide("show_ad", {"ad": "ad-1", "device": "device-9"}, decision_id="never-shown")
    assert hidden.action == other.action == "show"
    project.decide("get_bot_score", {"device": "device-9"}, decision_id="bot-before")
    assert ads.labels("the-impression") == [], "a pending label is nothing yet, least of all a negative"

    ads.wait(5 * MINUTE_US)
    ads.click("the-click", "the-impression", "ad-1", "device-9")
    ads.wait(MINUTE_US)

    # The fact.
    project.drain(commit=True)
    fact = project.sql("SELECT impression, ad FROM fact_clicks WHERE click_id = 'the-click'").to_pylist()
    assert fact == [{"impression": "the-impression", "ad": "ad-1"}]

    # The ad's features, as the next decision on it is served; a fraud feature of the device.
    project.decide("show_ad", {"ad": "ad-1", "device": "device-2"}, decision_id="after")
    assert ads.features("after")["Ad__clicks_1d"] == ads.features("the-impression")["Ad__clicks_1d"] + 1
    project.decide("get_bot_score", {"device": "device-9"}, decision_id="bot-after")
    assert ads.features("bot-before") == {"Device__clicks_1h": 0, "Device__ads_1d": 0}
    assert ads.features("bot-after") == {"Device__clicks_1h": 1, "Device__ads_1d": 1}

    # The label of the decision that showed it, by way of its share; first provisional, then mature.
    ads.wait(HOUR_US)
    assert ads.labels("the-impression") == [("provisional", 1.0)]
    assert ads.labels("not-clicked") == []
    ads.wait(3 * HOUR_US)
    assert ads.labels("the-impression") == [("provisional", 1.0), ("mature", 1.0)]
    assert ads.labels("not-clicked") == [("mature", 0.0)], "the default, and only at maturity"
    assert ads.labels("never-shown") == [("censored", None)], "nobody could have clicked it"
    shares = project.sql(
        "SELECT decision_id, weight, state FROM attribution WHERE event_id = 'the-click'"
    ).to_pylist()
    assert shares == [{"decision_id": "the-impression", "weight": 1.0, "state": "attached"}]

    # The next training set.
    project.build_set("ad", "next")
    rows = project.frozen("next").table
    members = {row["id"]: row["label"] for row in rows.select(["id", "label"]).to_pylist()}
    assert members["show_ad/the-impression"] is True
    assert members["show_ad/not-clicked"] is False
    assert "show_ad/never-shown" not in members
    assert "show_ad/after" not in members, "it was never shown"
    assert not [finding for finding in project.check() if not finding.sound]


def test_a_click_that_is_taken_back_leaves_every_data_set(ads: Ads) -> None:
    project = ads.project
    ads.show("ad-2", "device-9", "the-impression")
    ads.wait(5 * MINUTE_US)
    ads.click("the-click", "the-impression", "ad-2", "device-9")
    ads.wait(HOUR_US)
    assert ads.labels("the-impression") == [("provisional", 1.0)]
    project.decide("get_bot_score", {"device": "device-9"}, decision_id="bot-before")
    gone = {"click_id": "the-click", "impression": "the-impression", "ad": "ad-2", "device": "device-9"}
    project.observe("clicks", gone, operation=Operation.RETRACT, revision=1)
    project.drain()
    ads.wait(MINUTE_US)
    project.decide("get_bot_score", {"device": "device-9"}, decision_id="bot-after")
    assert ads.features("bot-before")["Device__ads_1d"] == 1
    assert ads.features("bot-after")["Device__ads_1d"] == 0
    ads.wait(HOUR_US)
    assert ads.labels("the-impression")[-1] == ("retracted", None)
    ads.wait(4 * HOUR_US)
    assert ads.labels("the-impression")[-1] == ("mature", 0.0)
    assert project.sql("SELECT * FROM attribution WHERE event_id = 'the-click'").num_rows == 0
    assert project.sql("SELECT * FROM fact_clicks WHERE click_id = 'the-click'").num_rows == 0
    assert not [finding for finding in project.check() if not finding.sound]
