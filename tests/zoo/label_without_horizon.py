import volano as vo
from healthy import Departure, landings, ops

risky = vo.Label(
    "risky", request=Departure, source=landings, on="flight_id", value=vo.sql("arr_delay >= 30"), owner=ops
)
