"""`volano worker` and `volano jobs` as processes: work, graceful stops, kills, failures that are told and forgotten."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volano.project import Project
from volano.runtime.clock import SystemClock
from volano.values.instants import to_datetime

pytestmark = pytest.mark.slow
LONG_S = 120.0
VOLANO = "from volano.cli.main import app; app()"
TRAINER = """
import os
import time
from pathlib import Path

from volano.trainers.lightgbm import LightGbmTrainer

HERE = Path(os.environ["SHOP"])


class SlowTrainer(LightGbmTrainer):
    def fit(self, *arguments, **named):
        if (HERE / "broken").exists():
            raise OSError("the disk of the trainer")
        (HERE / "learning").touch()
        while (HERE / "hold").exists():
            time.sleep(0.02)
        return super().fit(*arguments, **named)
"""
DEFINITIONS = """
from typing import Annotated

import volano as vo

shop = vo.Owner("shop", contact="shop@example.org")
customer = vo.Entity("customer", key=str, owner=shop)


class Order(vo.Event, id="order_id"):
    order_id: str
    customer_id: Annotated[str, customer]
    returned: bool
    closed_at: vo.EventTime


orders = vo.Source("orders", Order, stream=True, accept_late="1d", owner=shop)


class CustomerHistory(vo.FeatureView, entity=customer, source=orders):
    n_orders = vo.count(within="90d")


class Checkout(vo.Request):
    order_id: str
    customer_id: Annotated[str, customer]


back = vo.Label(
    "back", request=Checkout, source=orders, on="order_id", value=vo.sql("returned"), horizon="1h", owner=shop
)
risk = vo.Model(
    "risk", features=[CustomerHistory], label=back, trainer=vo.Trainer("slow", objective="binary"), retrain="1h",
    owner=shop,
)
get_risk = vo.Decision(
    "get_risk", request=Checkout, model=risk, actions=["ask", "accept"], policy=vo.Threshold("ask", at=0.5),
    deadline="20ms", fallback="accept", owner=shop,
)
release = vo.Release(get_risk, gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=1))
"""
CONFIG = """
namespace = "shop"
commit_every = "1s"
label_every = "1s"
"""
PAST = """
import sys
from volano.project import Project
from volano.runtime.clock import ReplayClock, SystemClock
from volano.values.instants import HOUR_US, MINUTE_US, SECOND_US, floor_to, to_datetime

clock = ReplayClock(floor_to(SystemClock().now(), HOUR_US) - 8 * HOUR_US)
with Project.open(sys.argv[1], clock=clock) as project:
    project.apply()
    for number in range(360):
        clock.advance_to(clock.now() + MINUTE_US)
        order = {"order_id": f"o{number}", "customer_id": f"c{number % 7}"}
        project.decide("get_risk", order)
        clock.advance_to(clock.now() + SECOND_US)
        closed = {**order, "returned": number % 3 == 0, "closed_at": to_datetime(clock.now())}
        project.observe("orders", closed, sync=False)
        if number % 20 == 0:
            project.drain()
    clock.advance_to(clock.now() + HOUR_US)
    project.drain(commit=True)
    project.train("risk")
    project.release("get_risk")
"""


class Shop:
    """A project that has a release and would be trained every hour, and its processes.

    Its trainer comes from a package of its own, found by its entry point; the files `hold` and `broken` rule it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[str]] = []
        package = folder.parent / "package"
        for file, text in {
            folder / "volano.toml": CONFIG,
            folder / "project.py": DEFINITIONS,
            package / "slow_trainer.py": TRAINER,
            package / "slow_trainer-1.dist-info" / "METADATA": "Name: slow-trainer\nVersion: 1\n",
            package
            / "slow_trainer-1.dist-info"
            / "entry_points.txt": "[volano.trainers]\nslow = slow_trainer:SlowTrainer\n",
        }.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        paths = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
        self._environment = {**os.environ, "PYTHONPATH": paths, "SHOP": str(folder)}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONG_S,
            env=self._environment,
        )

    def volano(self, *call: str) -> subprocess.CompletedProcess[str]:
        return self.run("-c", VOLANO, *call, "-C", str(self.folder))

    def start(self) -> subprocess.Popen[str]:
        """A worker in the background."""
        worker = subprocess.Popen(
            [sys.executable, "-c", VOLANO, "worker", "-C", str(self.folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        self.workers.append(worker)
        return worker

    def jobs(self) -> dict[str, dict[str, Any]]:
        return {each["job"]: each for each in json.loads(self.volano("jobs", "--json").stdout)}

    def retraining(self) -> tuple[str, int]:
        job = self.jobs()["retrain/risk"]
        return job["outcome"], job["attempts"]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project that has a release; copied by each test."""
    shop = Shop(tmp_path_factory.mktemp("past") / "shop")
    made = shop.run("-c", PAST, str(shop.folder))
    assert made.returncode == 0, made.stderr
    (shop.folder / "learning").unlink()
    return shop.folder


@pytest.fixture
def shop(past: Path, tmp_path: Path) -> Iterator[Shop]:
    shutil.copytree(past, tmp_path / "shop")
    shop = Shop(tmp_path / "shop")
    yield shop
    for worker in shop.workers:  # whatever happened, it is gone
        worker.kill()
        worker.communicate()


def wait_for(file: Path, worker: subprocess.Popen[str]) -> None:
    until = time.monotonic() + LONG_S
    while not file.exists():
        assert worker.poll() is None, worker.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_worker_finishes_the_job_under_way_and_commits_when_it_is_told_to_stop(shop):
    (shop.folder / "hold").touch()
    worker = shop.start()
    wait_for(shop.folder / "learning", worker)
    assert shop.retraining() == ("running", 1)
    with Project.open(shop.folder) as project:  # accepting goes on beside it
        now = to_datetime(SystemClock().now())
        order = {"order_id": "new", "customer_id": "c1", "returned": True, "closed_at": now}
        receipt = project.observe("orders", order).receipt_id
    busy = shop.volano("worker", "--once")
    assert busy.returncode == 1
    assert "in use" in busy.stderr
    assert "mend: " in busy.stderr
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert worker.poll() is None  # the job is still under way
    (shop.folder / "hold").unlink()
    out, err = worker.communicate(timeout=LONG_S)
    assert worker.returncode == 0, err
    assert "retrain/risk of " in out
    assert out.rstrip().endswith("stopped; everything is committed")
    assert shop.retraining() == ("done", 1)
    with Project.open(shop.folder) as project:
        assert receipt in project._work.stores.lake.read("receipt")["receipt_id"].to_pylist()


def test_a_worker_that_is_killed_in_a_job_begins_it_anew(shop):
    (shop.folder / "hold").touch()
    worker = shop.start()
    wait_for(shop.folder / "learning", worker)
    worker.kill()
    worker.communicate()
    assert shop.retraining() == ("running", 1)
    (shop.folder / "hold").unlink()
    again = shop.volano("worker", "--once")
    assert again.returncode == 0, again.stderr
    assert "retrain/risk of " in again.stdout
    assert shop.retraining() == ("done", 2)
    checked = shop.volano("check")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_an_idle_worker(shop, number):
    worker = shop.start()
    assert worker.stdout is not None
    while "retrain/risk" not in worker.stdout.readline():
        assert worker.poll() is None, worker.communicate()
    worker.send_signal(number)
    _, err = worker.communicate(timeout=LONG_S)
    assert worker.returncode == 0, err


def test_a_second_signal_stops_at_once_and_the_job_begins_anew(shop):
    (shop.folder / "hold").touch()
    worker = shop.start()
    wait_for(shop.folder / "learning", worker)
    for _ in range(2):
        worker.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, err = worker.communicate(timeout=LONG_S)
    assert worker.returncode == 130
    assert "Stopped." in err
    assert shop.retraining() == ("running", 1)
    (shop.folder / "hold").unlink()
    assert shop.volano("worker", "--once").returncode == 0
    assert shop.retraining() == ("done", 2)


def test_a_job_that_fails_is_told_by_worker_jobs_status_and_check(shop):
    (shop.folder / "broken").touch()
    once = shop.volano("worker", "--once", "--debug")
    assert once.returncode == 1
    assert "Traceback" in once.stderr
    assert "failed: OSError: the disk of the trainer (job retrain/risk); mend: " in once.stdout
    assert "labels of " in once.stdout  # the others ran
    assert shop.retraining() == ("failed", 1)
    for verb, code in (("jobs", 0), ("status", 0), ("check", 1)):
        shown = shop.volano(verb)
        assert shown.returncode == code, shown.stderr
        assert "the disk of the trainer" in shown.stdout
    paused = shop.volano("worker", "--once", "--json")
    assert [run["job"] for run in json.loads(paused.stdout)["runs"]] == ["labels"]
    assert paused.returncode == 0
