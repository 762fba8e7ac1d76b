"""Decisions made elsewhere, and what is reported back by a decision's id: labelled and trained on like our own."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from volano.errors import RequestError
from volano.learn.training_set import load
from volano.project import Project
from volano.records.elsewhere import DecisionElsewhere
from volano.runtime.clock import ReplayClock
from volano.runtime.templates import write_template
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, parse_instant, to_datetime

START = parse_instant("2026-01-01")
RATINGS = """

class Rating(vo.Event, id="rating_id"):
    rating_id: str
    about: str
    stars: int
    comment: str | None
    rated_at: vo.EventTime


ratings = vo.Source("ratings", Rating, stream=True, accept_late="1d", owner=shop)
liked = vo.Label(
    "liked", request=Checkout, source=ratings, on={"decision_id": "about"}, value=vo.sql("stars >= 4"),
    horizon="2d", owner=shop
)
"""


def play(folder: Path, *, elsewhere: bool, by_id: bool = False) -> tuple[pa.Table, list[str]]:
    """Sixty days of orders; the training set after them, and what `check` found broken."""
    write_template("blank", folder)
    if by_id:
        path = folder / "project.py"
        text = path.read_text().replace("inputs, trees", RATINGS + "\n\ninputs, trees")
        path.write_text(text.replace("label=back", "label=liked"))
    (folder / "volano.toml").write_text('namespace = "shop"\ncommit_every = "10d"\nonline_map_gib = 1\n')
    clock, world = ReplayClock(START), Random(7)
    with Project.open(folder, clock=clock, entropy=Random(1).randbytes) as project:
        project.apply()
        later: list[tuple[str, DecisionElsewhere]] = []
        for n in range(120):
            clock.advance_to(clock.now() + 12 * HOUR_US)
            asked = {
                "order_id": f"o-{n}",
                "customer_id": f"c-{world.randrange(6)}",
                "amount": world.lognormvariate(3, 1),
            }
            returned = world.random() < asked["amount"] / 60
            if elsewhere:
                made = DecisionElsewhere(
                    decision_id=f"d-{n}", request=msgspec.Raw(msgspec.json.encode(asked)), action="accept",
                    decided_at=to_datetime(clock.now()), propensity=1.0, propensity_method="deterministic",
                )  # fmt: skip
                later.append(("get_return_risk", made))
            else:
                project.decide("get_return_risk", asked, decision_id=f"d-{n}")
            clock.advance_to(clock.now() + MINUTE_US)
            closed = {**asked, "returned": returned, "closed_at": to_datetime(clock.now())}
            project.observe("orders", closed, sync=False)
            if by_id:
                rating = {"rating_id": f"r-{n}", "about": f"d-{n}", "stars": 2 if returned else 5}
                project.observe("ratings", rating | {"rated_at": to_datetime(clock.now())}, sync=False)
            if n % 5 == 0:
                project.drain()
        world.shuffle(later)
        for name, made in later:  # the other system's log comes weeks later, in any order
            project.log_decision(name, made)
        project.drain()
        clock.advance_to(clock.now() + 31 * DAY_US)
        version = project.train("risk")
        broken = [finding.rule for finding in project.check() if not finding.sound]
        manifest = project.training_set(version.training_set)
        return load(manifest, project._work.stores.artifacts).table, broken


@pytest.mark.parametrize("by_id", [False, True])
def test_a_decision_made_elsewhere_trains_like_one_made_here(tmp_path: Path, by_id: bool) -> None:
    ours, broken = play(tmp_path / "here", elsewhere=False, by_id=by_id)
    theirs, broken_there = play(tmp_path / "there", elsewhere=True, by_id=by_id)
    assert not broken and not broken_there
    assert ours.num_rows > 40
    assert ours.to_pylist() == theirs.to_pylist()
    assert pc.sum(ours["CustomerHistory__n_orders"]).as_py() > 50


def test_what_was_logged_and_resolved_is_known_after_the_online_store_is_lost(tmp_path: Path) -> None:
    write_template("blank", tmp_path / "shop")
    (tmp_path / "shop" / "volano.toml").write_text('namespace = "shop"\nonline_map_gib = 1\n')
    clock = ReplayClock(START)

    def told(project: Project) -> tuple[str, str]:
        shown = project.log_exposure(
            "get_return_risk", "d-1", exposure_id="e-1", exposed_at="2026-01-01T00:00:00Z"
        )
        project.log_decision("get_return_risk", made)
        project.drain(commit=True)
        return project.receipt(shown.receipt_id).status, str(project.reconcile().decisions.duplicate)

    asked = {"order_id": "o", "customer_id": "c", "amount": 1.0}
    made = DecisionElsewhere(
        decision_id="d-1", request=msgspec.Raw(msgspec.json.encode(asked)), action="accept",
        decided_at=to_datetime(START), propensity=None, propensity_method="unknown", origin="a person",
    )  # fmt: skip
    with Project.open(tmp_path / "shop", clock=clock) as project:
        project.apply()
        assert told(project) == ("stored", "0")
        bad = project.observe("orders", {"order_id": "bad"})
        project.drain(commit=True)
        project.discard(bad.receipt_id, reason="a test", actor="ann")
    shutil.rmtree(tmp_path / "shop" / ".volano" / "online")
    with Project.open(tmp_path / "shop", clock=clock) as project:
        assert told(project) == ("duplicate", "1")
        with pytest.raises(RequestError, match="was discarded before by ann"):
            project.replay(bad.receipt_id)
        account = project.reconcile()
        assert account.is_exact and account.resolutions.stored == 1
        assert all(finding.sound for finding in project.check())
