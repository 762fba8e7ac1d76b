"""Two entities of one kind in a request, a projection function, a composite key, a table that is refreshed daily."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from weights import heavy  # a module beside this one

import volano as vo

ops = vo.Owner("airport-ops", contact="airport-ops@example.org")
airport = vo.Entity("airport", key=str, owner=ops)
route = vo.Entity("route", key={"origin": str, "dest": str}, owner=ops)


class Departed(vo.Event, id=("carrier", "flight", "departed_at")):
    carrier: str
    flight: int
    origin: Annotated[str, airport]
    dest: Annotated[str, airport]
    dep_delay: float | None
    departed_at: vo.EventTime


class Ask(vo.Request, id="ask_id"):
    ask_id: str
    origin: Annotated[str, airport]
    dest: Annotated[str, airport]
    dep_delay: float | None
    sched_dep: datetime


departures = vo.Source(
    "departures", Departed, table="departures.csv", stream=True, available_after="10m", accept_late="1h",
    order_by=["carrier", "flight"], owner=ops,
)  # fmt: skip
reports = vo.Source("reports", Departed, table="delta:reports", known_at=Departed.departed_at, owner=ops)


class AirportDelays(
    vo.FeatureView,
    entity=airport,
    source=departures,
    key="origin",
    select=vo.sql("SELECT *, dep_delay > 15 AS late, CAST(dep_delay AS DOUBLE) / 60 AS hours FROM source"),
):
    mean_delay = vo.mean(Departed.dep_delay, within="2h")
    late_1d = vo.rate("late", within="1d", prior=0.2, weight=10)
    hours_late = vo.sum("hours", within="7d", where=vo.sql("late AND carrier <> 'AA'"))
    carriers = vo.count_distinct("carrier", within="1d")
    previous = vo.last("dep_delay", within="1d")
    asked_1d = vo.count(within="1d", include_request=True)


@vo.projection(columns={"weight": float}, frame="pandas")
def weigh(departures):
    return departures.assign(weight=heavy(departures.dep_delay))


class RouteWeights(vo.FeatureView, entity=route, source=departures, key=("origin", "dest"), select=weigh):
    mean_weight = vo.mean("weight", within="28d", every="1d", publish_delay="1h")
    since = vo.time_since_last(within="28d")


class Reported(vo.FeatureView, entity=airport, source=reports, key=Departed.dest, staleness="1d"):
    ever = vo.count()


@vo.on_demand
def weekend(sched_dep: datetime = Ask.sched_dep) -> bool:
    return sched_dep.weekday() >= 5


@vo.on_demand
def busy_weekend(is_weekend: bool | None = weekend, n: int | None = Reported.ever.on(Ask.dest)) -> float:
    return float(bool(is_weekend)) * (n or 0)


delay = vo.Label(
    "delay", request=Ask, source=departures, on={"origin": "origin"}, value="dep_delay", horizon="1d",
    default=0.0, owner=ops,
)  # fmt: skip
minutes = vo.Model(
    "minutes",
    features=[
        AirportDelays.on(Ask.origin),
        AirportDelays.mean_delay.on(Ask.dest),
        RouteWeights.on(Ask.origin, Ask.dest),
        busy_weekend,
    ],
    label=delay,
    trainer=vo.Sklearn("HistGradientBoostingRegressor", max_iter=50),
    owner=ops,
)
hold = vo.Decision(
    "hold", request=Ask, model=minutes, actions=["hold", "go"], policy=vo.EpsilonGreedy(0.05), deadline="50ms",
    fallback="go", unit=Ask.origin, max_staleness="2d", owner=ops,
)  # fmt: skip
