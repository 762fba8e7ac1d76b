"""A decision id that is asked again: the answer that was logged, whatever happened in between; never a second one."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from volano.cli.init import write_template
from volano.errors import IdReusedError
from volano.project import Project
from volano.records.journal import DecisionMade
from volano.runtime import answers
from volano.runtime.clock import ReplayClock
from volano.values.instants import HOUR_US, MINUTE_US, parse_instant, to_datetime

DECISION = "get_return_risk"


class Shop:
    """A project that is closed and opened again, with what its callers remember."""

    def __init__(self, folder: Path, random: Random) -> None:
        self.folder = folder
        self.random = random
        self.clock = ReplayClock(parse_instant("2026-01-01"))
        self.given: dict[str, tuple[dict[str, Any], DecisionMade]] = {}
        self.project = self._open()
        self.project.apply()

    def _open(self) -> Project:
        return Project.open(self.folder, clock=self.clock, entropy=self.random.randbytes)

    def restart(self, *, lose_online_state: bool = False) -> None:
        self.project.close()
        if lose_online_state:
            shutil.rmtree(self.folder / ".volano/online")
        self.project = self._open()

    def request(self) -> dict[str, Any]:
        customer = f"c{self.random.randrange(3)}"
        return {
            "order_id": f"q{len(self.given)}",
            "customer_id": customer,
            "amount": self.random.choice((3, 0.1, -0.0)),
        }

    def ask(self) -> None:
        decision_id, asked = f"d{len(self.given)}", self.request()
        made = self.project.decide(
            DECISION, asked, decision_id=self.random.choice((decision_id, decision_id, None))
        )
        self.given[made.decision_id] = (asked, made)

    def ask_again(self) -> None:
        if not self.given:
            return
        decision_id = self.random.choice(list(self.given))
        asked, made = self.given[decision_id]
        assert self.project.decide(DECISION, asked, decision_id=decision_id) == made
        with pytest.raises(IdReusedError):
            self.project.decide(DECISION, {**asked, "amount": 1.5}, decision_id=decision_id)

    def observe(self) -> None:
        order = {**self.request(), "order_id": f"o{self.random.randrange(10**9)}", "returned": True}
        self.project.observe("orders", {**order, "closed_at": to_datetime(self.clock.now())}, sync=False)

    def live(self, n: int) -> None:
        for _ in range(n):
            match self.random.randrange(12):
                case 0 | 1 | 2:
                    self.ask()
                case 3 | 4 | 5 | 6:
                    self.ask_again()
                case 7:
                    self.observe()
                case 8:
                    self.project.drain()
                case 9:
                    self.project.drain(commit=True)
                case 10:
                    self.restart(lose_online_state=self.random.random() < 0.2)
            self.clock.advance_to(self.clock.now() + self.random.choice((0, 1, MINUTE_US, HOUR_US)))


@pytest.mark.parametrize("seed", range(3))
def test_a_retry_gets_the_logged_answer_across_drains_commits_and_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(answers, "REMEMBERED", 30 if seed else 1_000)
    write_template("blank", tmp_path / "shop")
    shop = Shop(tmp_path / "shop", Random(seed))
    for _ in range(6):
        shop.live(25)
        if seed:
            shop.project.drain()
    shop.project.drain(commit=True)
    for decision_id, (asked, made) in shop.given.items():
        assert shop.project.decide(DECISION, asked, decision_id=decision_id) == made
    shop.project.drain(commit=True)
    account = shop.project._work.session.reconcile()
    assert account.decisions.accepted == account.decisions.stored == len(shop.given) > 10
    assert all(finding.sound for finding in shop.project.check())
    shop.project.close()
