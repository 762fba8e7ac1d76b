import volano as vo
from healthy import Landing, ops, plane

slow = vo.Source("slow", Landing, stream=True, owner=ops)
fast = vo.Source("fast", Landing, stream=True, accept_late="2h", owner=ops)


class History(vo.FeatureView, entity=plane, source=fast):
    mean_delay = vo.mean("arr_dealy", within="7d")
    legs = vo.count(within="7 days")


class Arrival(vo.Request):
    flight_id: str
    gate: bytes


late_15 = vo.Label("late_15", request=Arrival, source=fast, on="flight", value=vo.sql("arr_delay >"), owner=ops)
risk = vo.Model("risk", features=[History], label=late_15, trainer=vo.LightGBM())
warn = vo.Decision("Warn", request=Arrival, model=risk, actions=["warn"], deadline="soon", fallback="ok", owner=ops)
