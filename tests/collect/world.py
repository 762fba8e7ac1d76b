"""A small project, as compiled definitions, with its embedded stores: what tests of collect and organize share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from volano.collect.applier import Applier
from volano.collect.committer import Committer
from volano.collect.door import Door
from volano.compile.state import state_groups
from volano.engines.duckdb_engine import DuckDbEngine
from volano.errors import AuthorCodeError
from volano.organize.facts import Facts
from volano.organize.key_history import LakeHistory
from volano.plan.definitions import (
    CodeRef,
    CompiledDecision,
    CompiledEntity,
    CompiledFeature,
    CompiledModel,
    CompiledOnDemand,
    CompiledPolicy,
    CompiledProject,
    CompiledRequest,
    CompiledService,
    CompiledSource,
    CompiledTrainer,
    CompiledView,
    FeatureInput,
    Projection,
)
from volano.records.handover import HandOver
from volano.runtime.clock import ReplayClock
from volano.stores.delta_lake import DeltaLake
from volano.stores.file_apply_log import FileApplyLog
from volano.stores.file_journal import FileJournalReader, FileJournalWriter
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.testing.disk import SimulatedDisk
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, Instant, parse_instant, to_datetime
from volano.values.schema import DType, Field, Schema

START: Instant = parse_instant("2026-03-01")

SALE = Schema(
    (
        Field("sale_id", DType.STRING),
        Field("shop", DType.STRING, nullable=True, entity="shop"),
        Field("card", DType.INT64, nullable=True, entity="card"),
        Field("amount", DType.FLOAT64, nullable=True),
        Field("pieces", DType.INT64),
        Field("kind", DType.STRING, nullable=True),
        Field("till", DType.INT64),
        Field("sold_at", DType.TIMESTAMP),
    )
)


def feature(name: str, aggregate: str, column: str | None = None, **more: Any) -> CompiledFeature:
    """A feature over six hours, or what `more` says."""
    more.setdefault("window_us", 6 * HOUR_US)
    return CompiledFeature(name, aggregate, more.pop("dtype", DType.FLOAT64), column, **more)


SHOP = CompiledView(
    "Shop",
    "shop",
    "sales",
    ("shop",),
    (
        feature("n", "count", dtype=DType.INT64),
        feature("total", "sum", "amount", window_us=DAY_US),
        feature("spread", "std", "amount", window_us=2 * DAY_US + 7),
        feature("newest", "last", "amount"),
        feature("newest_kind", "last", "kind", dtype=DType.STRING),
        feature("most", "max", "pieces", dtype=DType.INT64, offset_us=HOUR_US),
    ),
    "ops",
)
PRICES = Schema((Field("dear", DType.BOOL, nullable=True), Field("price", DType.FLOAT64, nullable=True)))
DEAR_SQL = (
    "SELECT *, CAST(amount > 50 AS BOOLEAN) AS dear, CAST(amount / pieces AS DOUBLE) AS price FROM source"
)
DEAR = CompiledView(
    "Dear",
    "shop",
    "sales",
    ("shop",),
    (
        feature("n_dear", "count", where="dear", dtype=DType.INT64),
        feature("mean_price", "mean", "price", window_us=DAY_US),
    ),
    "ops",
    Projection(PRICES, sql=DEAR_SQL),
)
CARD = CompiledView(
    "Card",
    "card",
    "sales",
    ("card",),
    (
        feature("pieces_1d", "sum", "pieces", window_us=DAY_US, dtype=DType.INT64),
        feature("amount_always", "sum", "amount", window_us=None),
        feature("n_daily", "count", window_us=2 * DAY_US, every_us=DAY_US, dtype=DType.INT64),
    ),
    "ops",
)
ASK = CompiledRequest(
    "Ask",
    Schema(
        (
            Field("sale_id", DType.STRING),
            Field("shop", DType.STRING, nullable=True),
            Field("card", DType.INT64, nullable=True),
            Field("asked_for", DType.FLOAT64),
        )
    ),
    ("sale_id",),
)


def view_input(view: CompiledView, name: str) -> FeatureInput:
    """A feature of a view as an input; the request's fields are named as the keys."""
    found = next(each for each in view.features if each.name == name)
    return FeatureInput(
        f"{view.name}__{name}", found.dtype, view=view.name, feature=name, keys=view.key_columns
    )


ASKED_FOR = FeatureInput("asked_for", DType.FLOAT64, request_field="asked_for")
RATIO = CompiledOnDemand(
    "ratio",
    CodeRef("shop", "ratio", ""),
    (("asked", ASKED_FOR), ("total", view_input(SHOP, "total"))),
    DType.FLOAT64,
)
SERVICE = CompiledService(
    "risk",
    "Ask",
    (
        *(view_input(view, each.name) for view in (SHOP, DEAR, CARD) for each in view.features),
        ASKED_FOR,
        FeatureInput("ratio", DType.FLOAT64, on_demand="ratio"),
    ),
)


def project(
    *,
    accept_late_us: int | None = 2 * HOUR_US,
    table: str | None = None,
    views: tuple[CompiledView, ...] = (SHOP, DEAR, CARD),
) -> CompiledProject:
    """The project of a chain of shops."""
    source = CompiledSource(
        "sales",
        "Sale",
        SALE,
        ("sale_id",),
        "sold_at",
        "ops",
        order_by=("till",),
        table=table,
        stream=True,
        available_after_us=5 * MINUTE_US,
        accept_late_us=accept_late_us,
    )
    return CompiledProject(
        "shops",
        entities={
            "shop": CompiledEntity("shop", (Field("shop", DType.STRING),), "ops"),
            "card": CompiledEntity("card", (Field("card", DType.INT64),), "ops"),
        },
        sources={"sales": source},
        views={view.name: view for view in views},
        on_demand={"ratio": RATIO},
        requests={"Ask": ASK},
        models={"risk": CompiledModel("risk", SERVICE, "", CompiledTrainer("python"), "ops")},
        decisions={
            "get_risk": CompiledDecision(
                "get_risk", "Ask", "risk", ("yes", "no"), CompiledPolicy("threshold"), 20_000, "no", "ops"
            )
        },
    )


def ratio(asked: float, total: float | None) -> float | None:
    """The on-demand function of the project."""
    return None if not total else asked / total


class AuthorFunctions:
    """Functions by name, wrapped as the runtime wraps them."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self._functions = {"ratio": ratio, **(functions or {})}

    def get(self, code: CodeRef) -> Callable[..., Any]:
        """The function that a reference names."""
        function = self._functions[code.qualname]

        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return function(*arguments, **named)
            except Exception as error:
                raise AuthorCodeError(f"{code.qualname} raised {error!r}") from error

        return call


class World:
    """A project with its stores in a folder; opening it again is a restart. `disk` holds journal and apply log."""

    def __init__(
        self,
        folder: Path,
        definition: CompiledProject | None = None,
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        clock: ReplayClock | None = None,
        seed: int = 0,
        disk: SimulatedDisk | None = None,
    ) -> None:
        self.folder = folder
        self.project = definition or project()
        self.groups = state_groups(self.project)
        self.clock = clock or ReplayClock(START)
        self.functions = AuthorFunctions(functions)
        self.sql = DuckDbEngine(folder)
        self.handovers: dict[str, HandOver] = {}
        self.journal = FileJournalWriter(folder / "journal", files=disk)
        self.reader = FileJournalReader(folder / "journal", files=disk)
        self.apply_log = FileApplyLog(folder / "apply_log", files=disk)
        self.online = LmdbOnlineStore(folder / "online", map_size=1 << 30)
        self.lake = DeltaLake(folder / "lake")
        self.door = Door(self.project, self.journal, self.clock, Random(seed).randbytes)
        self.applier = Applier(
            self.project,
            self.groups,
            self.reader,
            self.apply_log,
            self.online,
            self.functions,
            self.sql,
            self.clock,
            history=self.history(),
        )
        self.committer = Committer(self.project, self.reader, self.apply_log, self.lake)

    def history(self) -> LakeHistory:
        """What the applier asks when a sealed row changes."""
        facts = Facts(self.project, self.lake, self.sql, self.handovers)
        return LakeHistory(
            self.project, self.groups, facts, self.sql, self.functions, lambda _: self.committer.step()
        )

    def close(self) -> None:
        """Release every store."""
        for store in (self.journal, self.apply_log, self.online):
            store.close()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sale(sale_id: str, at: Instant, **values: Any) -> dict[str, Any]:
    """A sale at an instant."""
    return {
        "sale_id": sale_id,
        "shop": "corner",
        "card": 1,
        "amount": 10.0,
        "pieces": 1,
        "kind": "food",
        "till": 0,
        "sold_at": to_datetime(at),
    } | values


def content(rows: pa.Table, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Rows in an order of their own, without some columns."""
    kept = rows.drop_columns([name for name in without if name in rows.column_names])
    return sorted(kept.to_pylist(), key=repr)
