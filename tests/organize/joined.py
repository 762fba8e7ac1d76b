"""A world of sales and of the shops they happen in, which change: for tests of joins."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.collect.world import World
from tests.organize.histories import online_features
from volano.compile.loaded import LoadedProject
from volano.compile.project import compile_project
from volano.plan.definitions import CompiledProject, CompiledService
from volano.records.journal import DecisionMade, Operation
from volano.runtime.loader import load_project
from volano.values.instants import HOUR_US, MINUTE_US, to_datetime

SOURCE = """
from datetime import datetime
from typing import Annotated

import volano as vo

ops = vo.Owner("ops", contact="ops@example.org")
shop = vo.Entity("shop", key=str, owner=ops)
region = vo.Entity("region", key=str, owner=ops)
card = vo.Entity("card", key={"bank": str, "number": int}, owner=ops)


class Sale(vo.Event, id="sale_id"):
    sale_id: str
    shop: Annotated[str | None, shop]
    bank: Annotated[str | None, card]
    number: Annotated[int | None, card]
    amount: float | None
    till: int
    sold_at: vo.EventTime


class ShopInfo(vo.Event, id=["shop", "since"]):
    shop: Annotated[str, shop]
    region: Annotated[str | None, region]
    rent: float | None
    tills: int | None
    open: bool | None
    closed_at: datetime | None
    since: vo.EventTime


class Limit(vo.Event, id="limit_id"):
    limit_id: int
    bank: Annotated[str | None, card]
    number: Annotated[int | None, card]
    cap: float | None
    set_at: vo.EventTime


sales = vo.Source("sales", Sale, SALES, stream=True, accept_late="2h", order_by="till", owner=ops)
shops = vo.Source("shops", ShopInfo, SHOPS, stream=True, accept_late="6h", change="slowly_changing",
                  valid_to="closed_at", owner=ops)
limits = vo.Source("limits", Limit, stream=True, accept_late="90m", owner=ops)


class ByShop(vo.FeatureView, entity=shop, source=sales):
    n = vo.count(within="6h")


class Rented(vo.FeatureView, entity=shop, source=sales, join=[vo.join(shops, "rent", in_region="region"), vo.join(limits, "cap")]):
    rent = vo.last("rent", within="1d")
    rents = vo.sum("rent", within="1d")
    where_last = vo.last("in_region")
    over = vo.count(where=vo.sql("amount > cap"), within="1d")


class ByRegion(vo.FeatureView, entity=region, source=sales, join=vo.join(shops, "region", "tills", "open", "closed_at"),
               select=vo.sql("SELECT *, amount / tills AS a_till FROM source")):
    n = vo.count(within="1d")
    spent = vo.sum("amount", within="6h")
    a_till = vo.mean("a_till", within="1d")
    n_open = vo.count(where="open", within="1d")
    shops = vo.count_distinct("shop", within="1d")


class Ask(vo.Request, id="sale_id"):
    sale_id: str
    shop: Annotated[str | None, shop]
    region: Annotated[str | None, region]


def train(features, labels):
    return None


def predict(model, features):
    return [0.5] * len(features)


late = vo.Label("late", request=Ask, source=sales, on="sale_id", value=vo.sql("amount > 5"), horizon="1d", owner=ops)
risk = vo.Model("risk", features=[ByShop, Rented, ByRegion], label=late, trainer=vo.PythonTrainer(train, predict), owner=ops)
get_risk = vo.Decision("get_risk", request=Ask, model=risk, actions=["yes", "no"], policy=vo.Threshold("yes", at=0.5),
                       deadline="20ms", fallback="no", owner=ops)
release = vo.Release(get_risk, gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=10))
"""
TABLED = 'table="{}.parquet", available_after="{}"'
GAPS_US = (0, 1, MINUTE_US, 7 * MINUTE_US, HOUR_US)
DELAYS_US = (0, 1, MINUTE_US, HOUR_US, 90 * MINUTE_US, 3 * HOUR_US)
SHOPS = ("a", "b", "c", None)
REGIONS = ("north", "süd", None)


def compiled(folder: Any, *, sales: str = "", shops: str = "") -> CompiledProject:
    """The project; `sales` and `shops` are how late rows of their tables are, none without one."""
    text = SOURCE
    for name, late in (("sales", sales), ("shops", shops)):
        text = text.replace(f"{name.upper()}, ", f"{TABLED.format(name, late)}, " if late else "")
    path = folder / "shops.py"
    path.write_text(text, encoding="utf-8")
    loaded: LoadedProject = load_project(path)
    return compile_project(loaded, namespace="shops").project


def draw_sale(random: Random, sale_id: str, at: int) -> dict[str, Any]:
    return {
        "sale_id": sale_id,
        "shop": random.choice(SHOPS),
        "bank": random.choice(("x", "y|", None)),
        "number": random.choice((1, 2, None)),
        "amount": random.choice((None, 0.1, 1e9, -5.5, random.random() * 100)),
        "till": random.randrange(2),
        "sold_at": to_datetime(at),
    }


def draw_shop(random: Random, at: int) -> dict[str, Any]:
    closed = random.choice((None, None, at + random.choice((0, 1, HOUR_US))))
    return {
        "shop": random.choice(SHOPS[:3]),
        "region": random.choice(REGIONS),
        "rent": random.choice((None, -0.0, 0.1, random.random())),
        "tills": random.choice((None, 1, 3)),
        "open": random.choice((None, True, False)),
        "closed_at": None if closed is None else to_datetime(closed),
        "since": to_datetime(at),
    }


def draw_limit(random: Random, limit_id: int, at: int) -> dict[str, Any]:
    return {
        "limit_id": limit_id,
        "bank": random.choice(("x", "y|", None)),
        "number": random.choice((1, 2, None)),
        "cap": random.choice((None, 1.0, 50.0)),
        "set_at": to_datetime(at),
    }


def live(world: World, random: Random, n: int) -> None:
    """Push events and changes of dimensions, late, tied, corrected, retracted, repeated; decide in between; commit."""
    service = world.project.models["risk"].service
    online = online_features(world, service, world.project.requests["Ask"])
    sent: dict[str, list[dict[str, Any]]] = {"sales": [], "shops": [], "limits": []}
    for i in range(n):
        now = world.clock.now() + random.choice(GAPS_US)
        world.clock.advance_to(now)
        for _ in range(random.randrange(4)):
            push(world, random, sent, i * 10 + random.randrange(10))
        if random.random() < 0.5:
            world.applier.step(random.choice((1, 2, 100)))
        if random.random() < 0.4:
            _decide(world, online, service, random, f"d{i}")
        if random.random() < 0.05:
            world.committer.step()
    while world.applier.step():
        pass
    world.committer.step()


def push(world: World, random: Random, sent: dict[str, list[dict[str, Any]]], number: int) -> None:
    """Send one event, or change of a dimension; some of them again, corrected, taken back."""
    at = world.clock.now() - random.choice(DELAYS_US)
    if random.random() < 0.3:
        at = at // HOUR_US * HOUR_US
    source = random.choice(("sales", "sales", "shops", "limits"))
    match source:
        case "sales":
            event, ids = draw_sale(random, f"s{number}", at), ("sale_id",)
        case "shops":
            event, ids = draw_shop(random, at), ("shop", "since")
        case _:
            event, ids = draw_limit(random, number, at), ("limit_id",)
    what = random.random()
    if what < 0.65 or not sent[source]:
        sent[source].append(event)
        world.door.accept(source, [event], sync=False)
        return
    earlier = random.choice(sent[source])
    if what < 0.7:
        world.door.accept(source, [earlier], sync=False)
        return
    changed = {**event, **{name: earlier[name] for name in ids}}
    operation = Operation.CORRECT if what < 0.9 else Operation.RETRACT
    if operation is Operation.RETRACT and random.random() < 0.5:
        changed = {name: earlier[name] for name in ids}
    world.door.accept(source, [changed], operation=operation, revision=random.randrange(1, 5), sync=False)


def _decide(world: World, online: Any, service: CompiledService, random: Random, decision_id: str) -> None:
    now = world.clock.now()
    asked = {"sale_id": decision_id, "shop": random.choice(SHOPS), "region": random.choice(REGIONS)}
    slots, stamp = online.read(asked, now)
    online.compute_on_demand(slots)
    made = DecisionMade(
        decision_id,
        world.project.namespace,
        "get_risk",
        "bundle",
        "release",
        "risk",
        "risk-1",
        service.version,
        asked,
        list(online.served(slots)),
        now,
        stamp,
        0.5,
        "yes",
        1.0,
        "deterministic",
    )
    world.door.log([made])
