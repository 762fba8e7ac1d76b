"""A view whose function fails on some rows: visible in status, check and ledger, and replayed by applying the mend."""

from __future__ import annotations

from pathlib import Path

import msgspec

from volano.cli.init import write_template
from volano.plan.failed_rows import FailingView
from volano.project import Project
from volano.runtime.clock import ReplayClock
from volano.values.instants import HOUR_US, parse_instant, to_datetime

TAKEN = "every view took every stored row"


def shop(folder: Path) -> Path:
    write_template("blank", folder)
    file = folder / "project.py"
    text = file.read_text()
    for old, new in (
        ("from typing", "import pyarrow as pa\nfrom typing"),
        ("\n\nclass CustomerHistory(", PROJECTION),
        ("source=orders):", "source=orders, select=inverse):"),
        ('vo.mean("amount"', 'vo.mean("inverse"'),
    ):
        assert old in text, old
        text = text.replace(old, new, 1)
    file.write_text(text)
    return folder


PROJECTION = """

@vo.projection(columns={"inverse": float | None})
def inverse(orders: pa.Table) -> pa.Table:
    return pa.table({"inverse": [1 / amount for amount in orders["amount"].to_pylist()]})


class CustomerHistory("""


def test_it_is_told_until_the_mend_is_applied_and_then_the_view_has_its_rows(tmp_path: Path) -> None:
    folder, clock = shop(tmp_path / "shop"), ReplayClock(parse_instant("2026-01-01"))
    with Project.open(folder, clock=clock) as project:
        project.apply()
        for n, amount in enumerate((2.0, 0.0, 4.0)):
            order = {"order_id": f"o{n}", "customer_id": "ann", "amount": amount, "returned": False}
            project.observe("orders", {**order, "closed_at": to_datetime(clock.now())})
        project.drain(commit=True)
        clock.advance_to(clock.now() + HOUR_US)
        asked = {"order_id": "q", "customer_id": "ann", "amount": 1.0}
        assert project.decide("get_return_risk", asked).features == [3, 0.375, 1.0]
        with Project.open(folder, clock=clock) as beside:
            (failing,) = beside.status().failing
        assert (failing.view, failing.source, failing.n_rows) == ("CustomerHistory", "orders", 1)
        assert failing.event_id == "o1" and "division by zero" in failing.reason
        finding = next(each for each in project.check() if each.rule == TAKEN)
        assert not finding.sound
        assert "'o1'" in finding.detail and "volano apply" in finding.detail
        assert all(each.sound for each in project.check() if each.rule != TAKEN)
        (entry,) = project._work.stores.catalog.entries("view_failures/CustomerHistory")
        assert msgspec.json.decode(entry.body, type=FailingView) == failing

        file = folder / "project.py"
        file.write_text(file.read_text().replace("1 / amount for", "1 / amount if amount else None for"))
        project.apply()
        assert project.status().failing == ()
        assert all(each.sound for each in project.check())

        file.write_text(
            file.read_text().replace("1 / amount if amount else None for", "1 / (amount - 2) for")
        )
        project.apply()
        (failing,) = project.status().failing
        assert (failing.n_rows, failing.event_id) == (1, "o0"), "also a backfill tells what it could not take"
