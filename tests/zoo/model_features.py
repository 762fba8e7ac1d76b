import volano as vo
from healthy import Departure, Landing, PlaneHistory, landings, late, ops

risk = vo.Model(
    "risk",
    features=[
        PlaneHistory.last_dealy,
        Departure.distnce,
        Landing.arr_delay,
        landings,
        "distance",
        Departure.distance,
        Departure.distance,
    ],
    label=late,
    trainer=vo.LightGBM(),
    owner=ops,
)
