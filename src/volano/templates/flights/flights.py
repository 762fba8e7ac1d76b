"""Will this flight arrive 30 or more minutes late? Asked two hours before its scheduled departure."""
from datetime import datetime
from typing import Annotated, Any
import volano as vo

ops = vo.Owner("flight-ops", contact="flight-ops@example.org")
plane, airport = vo.Entity("plane", key=str, owner=ops), vo.Entity("airport", key=str, owner=ops)

class Movement(vo.Event, id="flight_id"):
    flight_id: str
    tailnum: Annotated[str | None, plane]
    origin: Annotated[str, airport]
    dest: Annotated[str, airport]
    delay: float | None  # minutes; none when cancelled or diverted
    at: vo.EventTime

class Weather(vo.Event, id=["origin", "at"]):
    origin: Annotated[str, airport]
    temp: float | None
    humid: float | None
    at: vo.EventTime

pushed: dict[str, Any] = {"stream": True, "accept_late": "2h", "owner": ops}
departures = vo.Source("departures", Movement, table="departures.parquet", available_after="5m", **pushed)
landings = vo.Source("landings", Movement, table="landings.parquet", available_after="5m", **pushed)
disruptions = vo.Source("disruptions", Movement, table="disruptions.parquet", available_after="5m", **pushed)
weather = vo.Source("weather", Weather, table="weather.parquet", available_after="1h", **pushed)

class Plane(vo.FeatureView, entity=plane, source=landings):
    last_delay = vo.last("delay", within="12h")
    since_landing = vo.time_since_last(within="2d")

class Origin(vo.FeatureView, entity=airport, key="origin", source=departures):
    mean_delay_2h = vo.mean("delay", within="2h")

class Destination(vo.FeatureView, entity=airport, key="dest", source=landings):
    mean_delay_1d = vo.mean("delay", within="1d")

class Sky(vo.FeatureView, entity=airport, source=weather):
    temp = vo.last("temp", within="6h")
    humid = vo.last("humid", within="6h")

class Flight(vo.Request, id="flight_id"):
    flight_id: str
    tailnum: Annotated[str | None, plane]
    carrier: str
    origin: Annotated[str, airport]
    dest: str
    hour: int  # of the day, local
    sched_dep: datetime

late = vo.Label("late_30", request=Flight, source=landings, on="flight_id", value=vo.sql("delay >= 30"),
                horizon="36h", censored_by=disruptions, owner=ops)
asked = vo.Requests(Flight, table="schedule.parquet", at=vo.sql("sched_dep - INTERVAL 2 HOURS"))
inputs = [Plane, Origin, Sky, Destination.on(Flight.dest), Flight.carrier, Flight.dest, Flight.hour]
delay = vo.Model("delay", features=inputs, label=late, history=asked, retrain="weekly", owner=ops,
                 trainer=vo.LightGBM(objective="binary", num_iterations=60, min_data_in_leaf=200, max_bin=63))
risk = vo.Decision("get_delay_risk", request=Flight, model=delay, actions=["warn", "ok"], fallback="ok",
                   policy=vo.Threshold("warn", at=0.3), deadline="20ms", owner=ops)
live = vo.Release(risk, gate=vo.Gate("roc_auc", margin=0, confidence=0.95, min_labels=1000), keep_first=True)
