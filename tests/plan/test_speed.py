"""A plan over a thousand views is made while one waits: two seconds, on a machine that does nothing else."""

from __future__ import annotations

import time

import pytest

from tests.compile.projects import FLIGHTS, compiled
from volano.compile.planner import plan
from volano.plan.plan import PlanState

VIEW = """
class V{n}(vo.FeatureView, entity=plane, source=landings):
    last_delay = vo.last("arr_delay", within="12h")
    mean_delay = vo.mean("arr_delay", within="{days}d")
    late = vo.rate(vo.sql("arr_delay > {n}"), within="7d")
    legs = vo.count(within="24h", where=vo.sql("arr_delay < {n}"))

"""


@pytest.mark.slow
def test_a_thousand_views_are_planned_within_seconds(tmp_path):
    views = "\n".join(VIEW.format(n=n, days=1 + n % 30) for n in range(1000))
    head, mark, tail = FLIGHTS.read_text(encoding="utf-8").partition("class Departure(vo.Request)")
    file = tmp_path / "flights.py"
    file.write_text(f"{head}{views}\n{mark}{tail}", encoding="utf-8")
    start = time.perf_counter()
    project = compiled(file).project
    done = plan(project, None, PlanState(), bundle="b")
    seconds = time.perf_counter() - start
    assert len(done.project.views) == 1001
    assert seconds < 6, seconds  # three times the budget, for machines that are shared
