"""Random histories through the real path: door, applier, decisions read online, committer."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from tests.collect.world import ASK, SERVICE, World, sale
from volano.decide.features import OnlineFeatures
from volano.organize.facts import Facts
from volano.organize.features import PointInTime
from volano.plan.definitions import CompiledRequest, CompiledService
from volano.protocols.online_store import OnlineReader
from volano.records.handover import HandOver
from volano.records.journal import DecisionMade, Operation
from volano.values.instants import HOUR_US, MINUTE_US

GAPS_US = (0, 1, MINUTE_US, 7 * MINUTE_US, HOUR_US)
DELAYS_US = (0, 1, MINUTE_US, HOUR_US, 90 * MINUTE_US, 3 * HOUR_US)
SHOPS = ("a", "b", None)
CARDS = (1, 2, -3, None)
STRANGE = (math.nan, math.inf, -math.inf)


def draw_amount(random: Random) -> float | None:
    """Null, a number, and now and then one that is none."""
    if random.random() < 0.04:
        return random.choice(STRANGE)
    return random.choice((None, 0.1, 1e9, -5.5, random.random() * 100))


def draw_values(random: Random) -> dict[str, Any]:
    """The columns of a sale, with nulls, extremes and ties."""
    return {
        "shop": random.choice(SHOPS),
        "card": random.choice(CARDS),
        "amount": draw_amount(random),
        "pieces": random.randrange(4),
        "kind": random.choice((None, "", "food", "ünï")),
        "till": random.randrange(2),
    }


def draw_request(random: Random, sale_id: str) -> dict[str, Any]:
    """A request: known, unknown and missing entities."""
    return {
        "sale_id": sale_id,
        "shop": random.choice((*SHOPS, "nobody")),
        "card": random.choice((*CARDS, 9)),
        "asked_for": random.random(),
    }


def online_features(
    world: World,
    service: CompiledService = SERVICE,
    request: CompiledRequest = ASK,
    online: OnlineReader | None = None,
) -> OnlineFeatures:
    """What the decision path reads features with."""
    return OnlineFeatures(
        world.project,
        service,
        request=request,
        groups=world.groups,
        online=online or world.online,
        functions=world.functions,
    )


def decide_once(world: World, asked: dict[str, Any], decision_id: str) -> None:
    """Read the features of one request and log the decision."""
    decide(world, online_features(world), SERVICE, asked, decision_id)


def live(
    world: World,
    random: Random,
    n: int,
    *,
    service: CompiledService = SERVICE,
    request: CompiledRequest = ASK,
    prefix: str = "s",
) -> None:
    """Push late, duplicate, corrected, retracted and tied events; decide at random instants; commit everything."""
    online = online_features(world, service, request)
    sent: list[dict[str, Any]] = []
    for i in range(n):
        now = world.clock.now() + random.choice(GAPS_US)
        world.clock.advance_to(now)
        _push(world, random, sent, f"{prefix}{i}")
        if random.random() < 0.5:
            world.applier.step(random.choice((1, 3, 100)))
        if random.random() < 0.4:
            asked = draw_request(random, f"{prefix}{random.randrange(i + 2)}")
            decide(world, online, service, asked, f"{prefix}-{i}")
        if random.random() < 0.05:
            world.committer.step()
        if random.random() < 0.03:
            world.applier.prune(now)
    while world.applier.step():
        pass
    world.committer.step()


def _push(world: World, random: Random, sent: list[dict[str, Any]], sale_id: str) -> None:
    at = world.clock.now() - random.choice(DELAYS_US)
    if random.random() < 0.2:
        at = at // HOUR_US * HOUR_US
    event = sale(sale_id, at, **draw_values(random))
    what, revision = random.random(), random.randrange(1, 5)
    if what < 0.7 or not sent:
        sent.append(event)
        world.door.accept("sales", [event], sync=False)
        return
    earlier = random.choice(sent)
    if what < 0.8:
        world.door.accept("sales", [earlier], sync=False)
        return
    changed = {**event, "sale_id": earlier["sale_id"]}
    operation = Operation.CORRECT if what < 0.9 else Operation.RETRACT
    if operation is Operation.RETRACT and random.random() < 0.5:
        changed = {"sale_id": earlier["sale_id"]}
    world.door.accept("sales", [changed], operation=operation, revision=revision, sync=False)


def decide(
    world: World, online: OnlineFeatures, service: CompiledService, asked: dict[str, Any], decision_id: str
) -> None:
    now = world.clock.now()
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
        source_event_id=asked["sale_id"],
    )
    world.door.log([made])


def point_in_time(world: World, handovers: dict[str, HandOver] | None = None, **options: Any) -> PointInTime:
    """Features over what the world has committed."""
    facts = Facts(world.project, world.lake, world.sql, handovers or {})
    return PointInTime(world.project, world.groups, facts, world.sql, world.functions, **options)
