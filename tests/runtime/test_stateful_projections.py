"""A stateful projection is refused by the apply that would build it, and never is in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from volano.cli.init import write_template
from volano.errors import AuthorCodeError
from volano.project import Project
from volano.runtime.clock import ReplayClock
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
