"""What the animals live on: a project without a mistake."""

from datetime import datetime
from typing import Annotated

import volano as vo

ops = vo.Owner("ops", contact="ops@example.org")
plane = vo.Entity("plane", key=str, owner=ops)
airport = vo.Entity("airport", key=str, owner=ops)


class Landing(vo.Event, id="flight_id"):
    flight_id: str
    tailnum: Annotated[str | None, plane]
    origin: Annotated[str, airport]
    dest: Annotated[str, airport]
    carrier: str
    arr_delay: float
    landed_at: vo.EventTime


class Departure(vo.Request):
    flight_id: str
    tailnum: Annotated[str | None, plane]
    origin: Annotated[str, airport]
    dest: Annotated[str, airport]
    sched_dep: datetime
    distance: int


landings = vo.Source(
    "landings", Landing, table="landings.parquet", stream=True, available_after="5m", accept_late="2h", owner=ops
)


class PlaneHistory(vo.FeatureView, entity=plane, source=landings):
    last_delay = vo.last("arr_delay", within="12h")
    legs_24h = vo.count(within="24h")


late = vo.Label(
    "late", request=Departure, source=landings, on="flight_id", value=vo.sql("arr_delay >= 30"), horizon="36h", owner=ops
)
delay = vo.Model("delay", features=[PlaneHistory], label=late, trainer=vo.LightGBM(objective="binary"), owner=ops)
