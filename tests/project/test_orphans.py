"""Observations that name a decision: waiting for it, attached when it comes, expired with a reason when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from volano.project import Project
from volano.records.elsewhere import DecisionElsewhere
from volano.records.journal import Operation
from volano.runtime.clock import ReplayClock
from volano.runtime.labelling import update_labels
from volano.runtime.templates import write_template
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, Instant, parse_instant, to_datetime

START: Instant = parse_instant("2026-01-01")
RATINGS = """

class Rating(vo.Event, id="rating_id"):
    rating_id: str
    about: str
    stars: int
    rated_at: vo.EventTime


ratings = vo.Source("ratings", Rating, stream=True, accept_late="30d", owner=shop)
liked = vo.Label(
    "liked", request=Checkout, source=ratings, on={"decision_id": "about"}, value=vo.sql("stars >= 4"),
    horizon="2d", default=False, owner=shop
)
inputs, trees"""


class Ratings:
    """A shop whose checkouts are decided elsewhere and rated here."""

    def __init__(self, project: Project, clock: ReplayClock) -> None:
        self.project = project
        self.clock = clock

    def rate(self, number: int, at: Instant, *, stars: int = 5, revision: int = 0) -> None:
        event = {
            "rating_id": f"r-{number}",
            "about": f"d-{number}",
            "stars": stars,
            "rated_at": to_datetime(at),
        }
        how = Operation.RETRACT if revision else Operation.INSERT
        self.project.observe("ratings", event, operation=how, revision=revision)

    def decide(self, number: int, at: Instant) -> None:
        asked = {"order_id": f"o-{number}", "customer_id": "c", "amount": 1.0}
        made = DecisionElsewhere(
            decision_id=f"d-{number}", request=msgspec.Raw(msgspec.json.encode(asked)), action="accept",
            decided_at=to_datetime(at), propensity=1.0, propensity_method="deterministic",
        )  # fmt: skip
        self.project.log_decision("get_return_risk", made)

    def label(self, at: Instant) -> None:
        self.project.drain()
        self.clock.advance_to(at)
        self.project.drain(commit=True)
        update_labels(self.project._work.session, as_of=at)

    def shares(self) -> dict[str, Any]:
        """The standing row of each rating."""
        rows = self.project._work.stores.lake.read("attribution").to_pylist()
        newest = {row["event_id"]: row for row in sorted(rows, key=lambda row: row["attached_at"])}
        return {
            name: (row["state"], row["reason"]) for name, row in newest.items() if row["state"] != "detached"
        }

    def states(self) -> dict[str, Any]:
        rows = self.project._work.stores.lake.read("label").to_pylist()
        newest = {row["decision_id"]: row for row in sorted(rows, key=lambda row: row["computed_at"])}
        return {name: (row["state"], row["value"]) for name, row in newest.items()}


@contextmanager
def opened(folder: Path) -> Iterator[Ratings]:
    """A project of its own, applied."""
    write_template("blank", folder)
    path = folder / "project.py"
    path.write_text(
        path.read_text().replace("\ninputs, trees", RATINGS, 1).replace("label=back", "label=liked")
    )
    (folder / "volano.toml").write_text('namespace = "shop"\ncommit_every = "100d"\nonline_map_gib = 1\n')
    clock = ReplayClock(START)
    with Project.open(folder, clock=clock, entropy=Random(1).randbytes) as project:
        project.apply()
        yield Ratings(project, clock)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Ratings]:
    with opened(tmp_path) as shop:
        yield shop


def test_an_observation_waits_for_its_decision_and_is_attached_when_it_comes(shop: Ratings) -> None:
    shop.rate(1, START)
    shop.label(START + HOUR_US)
    assert shop.shares() == {"r-1": ("pending_parent", "its decision has not come yet")}
    assert shop.states() == {}
    shop.decide(1, START - MINUTE_US)
    shop.label(START + 2 * HOUR_US)
    assert shop.shares() == {"r-1": ("attached", "")}
    assert shop.states() == {"d-1": ("provisional", 1.0)}


def test_an_observation_expires_with_a_reason_and_is_attached_all_the_same_when_its_decision_comes(
    shop: Ratings,
) -> None:
    shop.rate(1, START)
    shop.label(START + HOUR_US)
    shop.label(START + 6 * DAY_US)
    assert shop.shares()["r-1"][0] == "pending_parent"
    shop.label(START + 8 * DAY_US)
    assert shop.shares() == {"r-1": ("expired", "its decision did not come within 7d")}
    shop.decide(1, START - MINUTE_US)
    shop.label(START + 9 * DAY_US)
    assert shop.shares() == {"r-1": ("attached", "")}
    assert shop.states() == {"d-1": ("mature", 1.0)}, "what happened counts, and the default does not"


def test_an_observation_outside_the_horizon_of_its_decision_says_so(shop: Ratings) -> None:
    for number, at in enumerate((START - HOUR_US, START, START + 2 * DAY_US)):
        shop.decide(number, START)
        shop.clock.advance_to(max(at, shop.clock.now()))
        shop.rate(number, at)
    shop.label(START + 3 * DAY_US)
    assert shop.shares() == {
        "r-0": ("outside", "it happened before its decision"),
        "r-1": ("attached", ""),
        "r-2": ("outside", "it happened after the horizon"),
    }
    assert shop.states() == {"d-0": ("mature", 0.0), "d-1": ("mature", 1.0), "d-2": ("mature", 0.0)}


def test_an_observation_that_is_taken_back_does_not_wait_any_more(shop: Ratings) -> None:
    shop.rate(1, START)
    shop.label(START + HOUR_US)
    shop.rate(1, START, revision=1)
    shop.label(START + 2 * HOUR_US)
    assert shop.shares() == {}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_often_gives_the_same_rows_as_once(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    told = [("decide", number, random.randrange(0, 14 * 24)) for number in range(12) if random.random() < 0.8]
    told += [("rate", number, random.randrange(0, 14 * 24)) for number in range(12)]
    told += [("retract", number, 15 * 24) for number in range(2)]
    told.sort(key=lambda item: item[2])
    found = []
    for often in (True, False):
        with opened(tmp_path / f"often-{often}") as shop:
            found.append(_tell(shop, told, often=often, seed=seed))
    assert found[0] == found[1]
    assert {"attached", "expired"} <= {state for state, _ in found[0][0].values()}


def _tell(shop: Ratings, told: list[tuple[str, int, int]], *, often: bool, seed: int) -> Any:
    random = Random(f"happened {seed}")
    happened = {number: random.randrange(0, 24) for number in range(12)}
    for place, (what, number, hour) in enumerate(told):
        shop.clock.advance_to(START + hour * HOUR_US + 2 * place * MINUTE_US)
        decided_at = START - happened[number] * HOUR_US
        if what == "decide":
            shop.decide(number, decided_at)
        else:
            shop.rate(
                number, decided_at + (happened[number] - 1) * 4 * HOUR_US, revision=int(what == "retract")
            )
        shop.project.drain()
        if often:
            shop.label(shop.clock.now() + MINUTE_US)
    shop.label(START + 20 * DAY_US)
    return shop.shares(), shop.states()
