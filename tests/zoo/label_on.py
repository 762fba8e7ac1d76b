import volano as vo
from healthy import Departure, landings, ops

risky = vo.Label(
    "risky",
    request=Departure,
    source=landings,
    on={"distance": "flight_id", "flight": "flight_id"},
    value=vo.sql("arr_delay >= 30"),
    horizon="36h",
    owner=ops,
)
unjoined = vo.Label(
    "unjoined", request=Departure, source=landings, value=vo.sql("arr_delay"), horizon="36h", owner=ops
)
