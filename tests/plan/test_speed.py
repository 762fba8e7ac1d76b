"""Planning takes time in proportion to the views: nothing in it looks at every pair of them."""

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


def seconds_to_plan(n_views, folder):
    views = "\n".join(VIEW.format(n=n, days=1 + n % 30) for n in range(n_views))
    head, mark, tail = FLIGHTS.read_text(encoding="utf-8").partition("class Departure(vo.Request)")
    file = folder / f"flights_{n_views}.py"
    file.write_text(f"{head}{views}\n{mark}{tail}", encoding="utf-8")
    start = time.process_time()
    project = compiled(file).project
    done = plan(project, None, PlanState(), bundle="b")
    seconds = time.process_time() - start
    assert len(done.project.views) == n_views + 1
    return seconds


@pytest.mark.slow
def test_a_plan_over_ten_times_the_views_takes_about_ten_times_as_long(tmp_path):
    seconds_to_plan(10, tmp_path)  # what is done once in a process
    few, many = seconds_to_plan(100, tmp_path), seconds_to_plan(1000, tmp_path)
    assert many < 25 * few, (few, many)
