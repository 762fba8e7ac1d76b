"""Decisions: how long one takes, in process. A script; `--json FILE` writes the cases.

Case `score-inproc`: 3 entities, 16 windowed features, 2 on-demand features, LightGBM of 100 trees, the record encoded
for the journal. `own_id_p50_us`: the same with an id of the caller each, which is looked for in what was answered
before; `retry_p50_us`: the same ids again, answered from memory. Floor: an LMDB read of the same keys in one
transaction, and the same trees on ready features.
Bias: one thread, requests over 1,000 keys an entity that all lie in memory, no other load; the median hides pauses.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from volano.compile.project import compile_project
from volano.compile.state import state_groups
from volano.decide.decider import Decider
from volano.decide.features import chunk_layout
from volano.decide.serving import LoadedModel, prepare_serving
from volano.kernels.columns import ARROW_TYPES
from volano.plan.definitions import CodeRef, CompiledProject
from volano.plan.state import StateGroup, chunk_key
from volano.records.journal import DecisionMade, encode_record
from volano.records.learning import ModelVersion
from volano.runtime.answers import Answers
from volano.runtime.loader import load_project
from volano.stores.file_journal import FileJournalReader
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.trainers.lightgbm import LightGbmTrainer
from volano.values.event_ids import row_id
from volano.values.instants import DAY_US, parse_instant
from volano.values.keys import encode_key

NOW = parse_instant("2025-06-01T12:00:00Z")
N_KEYS, N_EVENTS, N_REQUESTS = 1_000, 60_000, 4_000

PROJECT = """
from datetime import datetime
from typing import Annotated
import volano as vo

risk = vo.Owner("risk", contact="risk@example.org")
card = vo.Entity("card", key=str, owner=risk)
shop = vo.Entity("shop", key=str, owner=risk)
device = vo.Entity("device", key=str, owner=risk)

class Payment(vo.Event, id="payment_id"):
    payment_id: str
    card_id: Annotated[str, card]
    shop_id: Annotated[str, shop]
    device_id: Annotated[str, device]
    amount: float
    paid_at: vo.EventTime

class Fraud(vo.Event, id="payment_id"):
    payment_id: str
    fraud: bool
    reported_at: vo.EventTime

payments = vo.Source("payments", Payment, stream=True, accept_late="1h", owner=risk)
frauds = vo.Source("frauds", Fraud, stream=True, accept_late="1d", owner=risk)

class CardHistory(vo.FeatureView, entity=card, source=payments):
    last_amount = vo.last("amount", within="7d")
    n_1h = vo.count(within="1h")
    n_1d = vo.count(within="1d")
    sum_1d = vo.sum("amount", within="1d")
    mean_7d = vo.mean("amount", within="7d")
    max_7d = vo.max("amount", within="7d")

class ShopHistory(vo.FeatureView, entity=shop, source=payments):
    n_1h = vo.count(within="1h")
    n_1d = vo.count(within="1d")
    mean_7d = vo.mean("amount", within="7d")
    std_7d = vo.std("amount", within="7d")
    max_1d = vo.max("amount", within="1d")

class DeviceHistory(vo.FeatureView, entity=device, source=payments):
    n_1h = vo.count(within="1h")
    n_1d = vo.count(within="1d")
    sum_7d = vo.sum("amount", within="7d")
    min_7d = vo.min("amount", within="7d")
    since = vo.time_since_last(within="7d")

class Asked(vo.Request):
    payment_id: str
    card_id: Annotated[str, card]
    shop_id: Annotated[str, shop]
    device_id: Annotated[str, device]
    amount: float

@vo.on_demand
def above_usual(amount: float = Asked.amount, usual: float | None = CardHistory.mean_7d) -> float | None:
    return None if not usual else amount / usual

@vo.on_demand
def is_large(amount: float = Asked.amount, largest: float | None = ShopHistory.max_1d) -> bool:
    return largest is not None and amount > largest

fraud = vo.Label("fraud", request=Asked, source=frauds, on="payment_id", value=vo.sql("fraud"), horizon="7d",
                 default=False, owner=risk)
score = vo.Model("fraud", features=[CardHistory, ShopHistory, DeviceHistory, above_usual, is_large, Asked.amount],
                 label=fraud, trainer=vo.LightGBM(objective="binary"), owner=risk)
get_fraud_score = vo.Decision("get_fraud_score", request=Asked, model=score, actions=["block", "pass"],
                              policy=vo.Threshold("block", at=0.5), deadline="1s", fallback="pass", owner=risk)
"""


class Code:
    """The functions of a loaded project."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def get(self, code: CodeRef) -> Callable[..., Any]:
        found = self._values[code.qualname]
        function: Callable[..., Any] = getattr(found, "function", found)
        return function


class Now:
    def now(self) -> int:
        return NOW


def events(random: np.random.Generator) -> dict[str, list[Any]]:
    """Payments of the last eight days."""
    keys = {kind: random.integers(N_KEYS, size=N_EVENTS) for kind in ("card", "shop", "device")}
    return {
        "payment_id": [f"p{i}" for i in range(N_EVENTS)],
        **{f"{kind}_id": [f"{kind}-{key}" for key in of] for kind, of in keys.items()},
        "amount": np.round(random.lognormal(3, 1, N_EVENTS), 2).tolist(),
        "paid_at": (NOW - random.integers(0, 8 * DAY_US, N_EVENTS)).tolist(),
    }


def fill(
    online: LmdbOnlineStore,
    project: CompiledProject,
    groups: tuple[StateGroup, ...],
    rows: dict[str, list[Any]],
) -> None:
    """Write every group's chunks as the applier would."""
    for group in groups:
        if group.source != "payments":
            continue
        layout = chunk_layout(group, project.sources[group.source])
        (key_column,) = group.key_columns
        keys = [
            chunk_key(group, encode_key((key,)), at)
            for key, at in zip(rows[key_column], rows["paid_at"], strict=True)
        ]
        place = {key: n for n, key in enumerate(dict.fromkeys(keys))}
        packed = layout.encode(
            rows["paid_at"],
            [row_id(each) for each in rows["payment_id"]],
            rows["paid_at"],
            {name: pa.array(rows[name], ARROW_TYPES[kind]) for name, kind in layout.columns},
        )
        chunks = layout.merge([b""] * len(place), packed, [place[key] for key in keys])
        online.write(dict(zip(place, chunks, strict=True)), (), stamp=NOW - 1_000, sequence=0)


def train(project: CompiledProject, random: np.random.Generator) -> LoadedModel:
    """A hundred trees over random features: the cost is that of the shape, not of the sense."""
    service = project.models["fraud"].service
    n = 20_000
    table = pa.table(
        {
            given.name: pa.array(
                random.random(n) > 0.5
                if given.dtype == "bool"
                else random.integers(0, 50, n)
                if given.dtype == "int64"
                else random.lognormal(3, 1, n),
                ARROW_TYPES[str(given.dtype)],
            )
            for given in service.inputs
        }
    )
    label = pa.array(np.asarray(table.column(4)) + random.normal(0, 5, n) > 25)
    trainer = LightGbmTrainer()
    trained = trainer.fit(table, label, params={"objective": "binary", "n_estimators": 100}, seed=1)
    version = ModelVersion(
        "fraud-0001",
        "fraud",
        "",
        service.version,
        "lightgbm",
        "",
        "",
        "",
        NOW,
        NOW,
        1,
        tuple(table.column_names),
    )
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(trained.artifact)
        file.flush()
        return LoadedModel(version, trainer.load(trained.artifact, file.name))


def each_ns(call: Callable[[int], object], n: int) -> list[int]:
    """The duration of each of n calls."""
    took = []
    for i in range(n):
        began = time.perf_counter_ns()
        call(i)
        took.append(time.perf_counter_ns() - began)
    return took


def score_inproc(folder: Path) -> dict[str, Any]:
    """The case; asserts that floor and decision scored the same."""
    random = np.random.default_rng(7)
    (folder / "project.py").write_text(PROJECT)
    loaded = load_project(folder / "project.py")
    project = compile_project(loaded, namespace="bench").project
    groups = state_groups(project)
    online = LmdbOnlineStore(folder / "online", map_size=1 << 30)
    fill(online, project, groups, events(random))
    champion = train(project, random)
    serving = prepare_serving(
        project, "get_fraud_score", bundle="", groups=groups, online=online,
        functions=Code(dict(loaded.modules[0].values)), champion=champion,
    )  # fmt: skip
    logged: list[bytes] = []
    decider = Decider(
        [serving], clock=Now(), stopwatch=time.perf_counter_ns, entropy=lambda: os.urandom(8),
        log=lambda made: logged.append(encode_record(made)),
    )  # fmt: skip
    answers = Answers("bench", online, FileJournalReader(folder / "journal"), lambda *_: None)

    def log(made: DecisionMade) -> None:
        logged.append(encode_record(made))
        answers.remember(made, logged[-1])

    with_ids = Decider(
        [serving], clock=Now(), stopwatch=time.perf_counter_ns, entropy=lambda: os.urandom(8), log=log,
        find=answers.find,
    )  # fmt: skip
    requests = [
        {
            "payment_id": f"q{i}", "card_id": f"card-{random.integers(N_KEYS)}",
            "shop_id": f"shop-{random.integers(N_KEYS)}", "device_id": f"device-{random.integers(N_KEYS)}",
            "amount": float(random.lognormal(3, 1)),
        }
        for i in range(N_REQUESTS)
    ]  # fmt: skip
    made: list[DecisionMade] = []
    gc.freeze()  # as a serving process does after its warm-up
    for turn in range(2):
        made.clear()
        logged.clear()
        took = each_ns(lambda i: made.append(decider.decide("get_fraud_score", requests[i])), N_REQUESTS)
        own = each_ns(
            lambda i, turn=turn: with_ids.decide("get_fraud_score", requests[i], decision_id=f"{turn}-{i}"),
            N_REQUESTS,
        )
    n_logged = len(logged)
    retried = each_ns(
        lambda i: with_ids.decide("get_fraud_score", requests[i], decision_id=f"1-{i}"), N_REQUESTS
    )
    assert len(logged) == n_logged == 2 * N_REQUESTS, len(logged)
    assert not (left := {each.fallback for each in made} - {""}), left

    keys: list[list[bytes]] = []
    for request in requests:
        of_request: list[bytes] = []
        for lookup in serving.features._lookups:
            lookup.add_keys(request, NOW, of_request)
        keys.append([b"\x01" + key for key in of_request])
    environment = online._environment

    def floor(i: int) -> None:
        with environment.begin() as transaction:
            get = transaction.get
            for key in keys[i]:
                get(key)
        scores.append(champion.predictor.predict_one(made[i].features))

    scores: list[float] = []
    floor_took = each_ns(floor, N_REQUESTS)
    assert scores == [each.score for each in made]
    parts = {part: statistics.median(each.latency_us[part] for each in made) for part in made[0].latency_us}
    online.close()
    median, floor_median = statistics.median(took), statistics.median(floor_took)
    return {
        "case": "score-inproc",
        "req_s": round(1e9 / statistics.fmean(took)),
        "p50_ms": round(median / 1e6, 4),
        "p99_ms": round(float(np.percentile(took, 99)) / 1e6, 4),
        "floor_req_s": round(1e9 / statistics.fmean(floor_took)),
        "ratio": round(floor_median / median, 3),
        "p50_us": round(median / 1e3, 1),
        "own_id_p50_us": round(statistics.median(own) / 1e3, 1),
        "retry_p50_us": round(statistics.median(retried) / 1e3, 1),
        "floor_p50_us": round(floor_median / 1e3, 1),
        "parts_us": parts,
        "chunks_read": statistics.fmean(len(of_request) for of_request in keys),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    versions = {name: metadata.version(name) for name in ("lmdb", "msgspec", "numba", "numpy", "lightgbm")}
    print(platform.platform(), platform.python_version(), versions)
    with tempfile.TemporaryDirectory() as folder:
        cases = [score_inproc(Path(folder))]
    for case in cases:
        print(case)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(cases, indent=2))


if __name__ == "__main__":
    main()
