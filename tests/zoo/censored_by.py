from typing import Annotated

import volano as vo
from healthy import Departure, landings, ops, plane


class Cancellation(vo.Event, id="number"):
    number: int
    tailnum: Annotated[str, plane]
    cancelled_at: vo.EventTime


cancellations = vo.Source("cancellations", Cancellation, stream=True, accept_late="2h", owner=ops)
risky = vo.Label(
    "risky",
    request=Departure,
    source=landings,
    on="flight_id",
    value=vo.sql("arr_delay >= 30"),
    horizon="36h",
    censored_by=[cancellations, plane],
    owner=ops,
)
