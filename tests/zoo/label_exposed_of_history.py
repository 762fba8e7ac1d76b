import volano as vo
from healthy import Departure, PlaneHistory, landings, ops

shown = vo.Label(
    "shown",
    request=Departure,
    source=landings,
    on="flight_id",
    value=vo.sql("arr_delay >= 30"),
    horizon="36h",
    attribution=vo.Attribution("last", exposed=True),
    owner=ops,
)
asked = vo.Requests(Departure, table="schedule.parquet", at="sched_dep")
learns = vo.Model(
    "learns", features=[PlaneHistory], label=shown, history=asked, trainer=vo.LightGBM(objective="binary"), owner=ops
)
