"""A stateful projection is refused by the apply that would build it, and never is in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from volano.cli.init import write_template
from volano.errors import AuthorCodeError
from volano.project import Project
from volano.runtime.clock import ReplayClock
from volano.runtime.silence import Silence
from volano.values.instants import parse_instant, to_datetime

STATEFUL = """

@vo.projection(columns={"so_far": float | None}, frame="pandas")
def running(orders):
    return orders.assign(so_far=orders["amount"].cumsum())


class Running(vo.FeatureView, entity=customer, source=orders, select=running):
    so_far = vo.last("so_far", within="7d")


class Plain(vo.FeatureView, entity=customer, source=orders):
    newest = vo.last("amount", within="9d")
"""


@pytest.mark.parametrize("n_orders", [0, 3, 40], ids=["no row yet", "a few rows", "many rows"])
def test_a_running_sum_is_refused_by_name_with_the_row_that_shows_it(tmp_path: Path, n_orders: int) -> None:
    write_template("blank", tmp_path / "shop")
    file, clock = tmp_path / "shop" / "project.py", ReplayClock(parse_instant("2026-01-01"))
    text = file.read_text()
    with Project.open(tmp_path / "shop", clock=clock) as project:
        project.apply()
        for n in range(n_orders):
            order = {"order_id": f"o{n}", "customer_id": "ann", "amount": n + 0.5, "returned": False}
            project.observe("orders", {**order, "closed_at": to_datetime(clock.now())}, sync=False)
        before = project._work.session.applied
        file.write_text(text + STATEFUL)
        with pytest.raises(AuthorCodeError) as caught:
            project.apply()
        error = caught.value
        assert "project.running" in error.what and "'so_far'" in error.what
        assert error.where == "view Running, column so_far"
        assert "'amount'" in error.mend
        assert project._work.session.applied == before
        assert project.drain(commit=True) == 0
        mended = STATEFUL.replace('["amount"].cumsum()', '["amount"] * 2.0')
        file.write_text(text + mended)
        project.apply()
        assert project.plan().is_empty


PER_KEY = """

@vo.projection(columns={"nth": float | None}, frame="pandas")
def nth(orders):
    return orders.assign(nth=(orders.groupby("customer_id").cumcount() + 1).astype("double[pyarrow]"))


class Nth(vo.FeatureView, entity=customer, source=orders, select=nth):
    nth = vo.last("nth", within="7d")
"""
PARSING = """

@vo.projection(columns={"number": float | None}, frame="pandas")
def parsed(orders):
    return orders.assign(number=[float(each[1:]) + len(orders) * 0 for each in orders["customer_id"]])


class Parsed(vo.FeatureView, entity=customer, source=orders, select=parsed):
    number = vo.last("number", within="7d")
"""


class Heard(Silence):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def finished(self, note: str = "") -> None:
        self.notes.append(note)


def fill(project: Project, clock: ReplayClock, customers: list[str]) -> None:
    for n, customer in enumerate(customers):
        order = {"order_id": f"o{n}", "customer_id": customer, "amount": n + 0.5, "returned": False}
        project.observe("orders", {**order, "closed_at": to_datetime(clock.now())}, sync=False)


@pytest.mark.parametrize("n_orders", [0, 3, 400], ids=["no row yet", "a few rows", "many rows"])
def test_a_count_per_key_is_refused_though_there_are_many_keys(tmp_path: Path, n_orders: int) -> None:
    write_template("blank", tmp_path / "shop")
    file, clock = tmp_path / "shop" / "project.py", ReplayClock(parse_instant("2026-01-01"))
    with Project.open(tmp_path / "shop", clock=clock) as project:
        project.apply()
        # Rows of one customer are half the source apart, so that hardly two are in a sample that is spread.
        fill(project, clock, [f"c{n % 190}" for n in range(n_orders)])
        file.write_text(file.read_text() + PER_KEY)
        with pytest.raises(AuthorCodeError, match="'nth' of view 'Nth'"):
            project.apply()


def test_apply_says_which_projection_no_row_could_check(tmp_path: Path) -> None:
    write_template("blank", tmp_path / "shop")
    file, clock = tmp_path / "shop" / "project.py", ReplayClock(parse_instant("2026-01-01"))
    text = file.read_text()
    with Project.open(tmp_path / "shop", clock=clock) as project:
        project.apply()
        heard = Heard()
        # A made-up customer is "a0": the digits behind its first letter can be parsed, those behind a dash cannot.
        file.write_text(text + PARSING)
        project.apply(heard)
        assert "\n" not in heard.notes[-1]
        file.write_text(text + PARSING.replace("each[1:]", 'each.split("-")[1]'))
        project.apply(heard)
        assert "\nnot checked: whether the projections of Parsed " in heard.notes[-1]
        fill(project, clock, ["c-1", "c-2", "c-1"])
        file.write_text(text + PARSING.replace("each[1:]", 'each.split("-")[-1]').replace("* 0", "* 1"))
        with pytest.raises(AuthorCodeError, match="'number' of view 'Parsed'"):
            project.apply()
        file.write_text(text + PARSING.replace("each[1:]", 'each.split("-")[-1]'))
        project.apply(heard)
        assert "\n" not in heard.notes[-1]
