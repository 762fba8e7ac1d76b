import volano as vo
from healthy import delay, ops


class Arrival(vo.Request):
    flight_id: str


risk = vo.Decision(
    "risk",
    request=Arrival,
    model=delay,
    actions=["warn", "ok"],
    policy=vo.Threshold("warn", at=0.5),
    deadline="20ms",
    fallback="ok",
    owner=ops,
)
