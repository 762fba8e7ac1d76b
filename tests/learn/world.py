"""A small world to learn in: decisions with features as served, labels in every state, and a model that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from volano.organize.labels import LABEL_SCHEMA
from volano.plan.definitions import (
    CompiledLabel,
    CompiledModel,
    CompiledService,
    CompiledTrainer,
    FeatureInput,
)
from volano.protocols.artifact_store import ArtifactWriter
from volano.protocols.catalog import CatalogWriter
from volano.stores.file_artifacts import FileArtifacts
from volano.stores.sqlite_catalog import SqliteCatalog
from volano.values.instants import DAY_US, HOUR_US
from volano.values.schema import DType

INSTANT = pa.timestamp("us", "UTC")
HORIZON = 36 * HOUR_US
CUTOFF = 40 * DAY_US
STAMP = 1_000 * DAY_US

LABEL = CompiledLabel(
    "late", "Departure", "landings", (("flight", "flight_id"),), "delay >= 30", DType.BOOL, HORIZON, "ops"
)
SERVICE = CompiledService(
    "delay",
    "Departure",
    (
        FeatureInput("x", DType.FLOAT64, request_field="x"),
        FeatureInput("z", DType.FLOAT64, request_field="z"),
        FeatureInput("carrier", DType.STRING, request_field="carrier"),
        FeatureInput("n", DType.INT64, request_field="n"),
    ),
)
MODEL = CompiledModel(
    "delay",
    SERVICE,
    "late",
    CompiledTrainer("lightgbm", {"objective": "binary", "n_estimators": 10, "num_threads": 1}),
    "ops",
    seed=5,
)


class Stores(NamedTuple):
    artifacts: ArtifactWriter
    catalog: CatalogWriter


def open_stores(folder: Path) -> Stores:
    return Stores(FileArtifacts(folder / "artifacts"), SqliteCatalog(folder))


class World(NamedTuple):
    decisions: pa.Table
    labels: pa.Table


def make_world(n: int = 4_000, *, days: float = 38.0, seed: int = 0) -> World:
    """Decisions over some days, sorted by id and time; labels computed when each matured, a few censored."""
    random = np.random.default_rng(seed)
    decided = np.sort(random.integers(0, int(days * DAY_US), n))
    x, z = random.normal(size=n), random.normal(size=n)
    late = x + 0.5 * random.normal(size=n) > 0.5
    censored = random.random(n) < 0.03
    ids = pa.array([f"id-{number:07d}" for number in range(n)])
    decisions = pa.table(
        {
            "decision": pa.repeat("get_risk", n),
            "decision_id": ids,
            "attempt": pa.array(np.zeros(n, dtype=np.int64)),
            "decided_at": pa.array(decided).cast(INSTANT),
            "applied_at": pa.array(decided + 1).cast(INSTANT),
            "mode": pa.repeat("live", n),
            "unit": pa.repeat("", n),
            "fallback": pa.repeat("", n),
            "service_version": pa.repeat(SERVICE.version, n),
            "feature__x": pa.array(x, mask=random.random(n) < 0.05),
            "feature__z": pa.array(z),
            "feature__carrier": pa.array(random.choice(["AA", "UA", "DL"], n)),
            "feature__n": pa.array(random.integers(0, 9, n)),
        }
    )
    return World(decisions, label_rows(ids, decided, late, censored, decided + HORIZON))


def label_rows(ids: pa.Array, decided: Any, values: Any, censored: Any, computed: Any) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "decision": pa.repeat("get_risk", n),
            "decision_id": ids,
            "label": pa.repeat("late", n),
            "state": pa.array(np.where(censored, "censored", "mature")),
            "value": pa.array(np.asarray(values, dtype=float), mask=np.asarray(censored)),
            "value_text": pa.nulls(n, pa.string()),
            "decided_at": pa.array(decided).cast(INSTANT),
            "matures_at": pa.array(decided + HORIZON).cast(INSTANT),
            "computed_at": pa.array(computed).cast(INSTANT),
            "evidence": ids,
            "evidence_source": pa.repeat("landings", n),
            "evidence_stamp": pa.array(decided + 5).cast(INSTANT),
            "reason": pa.repeat("", n),
        },
        schema=LABEL_SCHEMA,
    )


def build_arguments(**changes: Any) -> dict[str, Any]:
    return {
        "name": "delay-set",
        "bundle": "b1",
        "decided_from": 0,
        "decided_until": CUTOFF,
        "label_cutoff": CUTOFF,
        "stamp": STAMP,
        "built_at": CUTOFF,
        **changes,
    }
