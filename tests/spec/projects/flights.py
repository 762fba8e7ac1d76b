from datetime import datetime
from typing import Annotated

import volano as vo

ops = vo.Owner("flight-ops", contact="flight-ops@example.org")
plane = vo.Entity("plane", key=str, owner=ops)


class Landing(vo.Event, id="flight_id"):  # one schema, every stage
    flight_id: str
    tailnum: Annotated[str | None, plane]  # a key of the entity; may be missing
    arr_delay: float  # minutes
    landed_at: vo.EventTime


class Cancellation(vo.Event, id="flight_id"):
    flight_id: str
    cancelled_at: vo.EventTime


landings = vo.Source(
    "landings",
    Landing,
    table="landings.parquet",
    stream=True,
    available_after="5m",
    accept_late="2h",
    owner=ops,
)
cancellations = vo.Source("cancellations", Cancellation, stream=True, accept_late="2h", owner=ops)


class PlaneHistory(vo.FeatureView, entity=plane, source=landings):
    last_delay = vo.last("arr_delay", within="12h")
    mean_delay_7d = vo.mean("arr_delay", within="7d")
    late_7d = vo.rate(vo.sql("arr_delay > 15"), within="7d", prior=0.2, weight=5)
    legs_24h = vo.count(within="24h")
    legs_1y = vo.count(within="365d", every="1d")  # cheap: daily


class Departure(vo.Request):
    flight_id: str
    tailnum: Annotated[str | None, plane]
    sched_dep: datetime
    distance: int


@vo.on_demand
def tired_long_haul(distance: int = Departure.distance, d: float | None = PlaneHistory.last_delay) -> bool:
    return distance > 1500 and (d or 0) > 30


late = vo.Label(
    "late_30", request=Departure, source=landings, on="flight_id", value=vo.sql("arr_delay >= 30"),
    horizon="36h", censored_by=cancellations, owner=ops,
)  # fmt: skip

# History before the first decision.
asked = vo.Requests(Departure, table="schedule.parquet", at=vo.sql("sched_dep - INTERVAL 2 HOURS"))

delay = vo.Model(
    "delay", features=[PlaneHistory, tired_long_haul, Departure.distance], label=late, history=asked,
    trainer=vo.LightGBM(objective="binary"), retrain="weekly", owner=ops,
)  # fmt: skip

get_delay_risk = vo.Decision(
    "get_delay_risk", request=Departure, model=delay, actions=["warn", "ok"],
    policy=vo.Threshold("warn", at=0.5), deadline="20ms", fallback="ok", owner=ops,
)  # fmt: skip

release = vo.Release(get_delay_risk, gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=1_000))
