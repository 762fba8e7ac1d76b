import volano as vo
from healthy import Departure, landings, ops

shared = {"request": Departure, "source": landings, "on": "flight_id", "horizon": "36h", "owner": ops}

text = vo.Label("text", value=vo.sql("arr_delay >= 30"), attribution="last", **shared)
misspelt = vo.Label("misspelt", value=vo.sql("arr_delay >= 30"), attribution=vo.Attribution("lst"), **shared)
no_half_life = vo.Label(
    "no_half_life", value=vo.sql("arr_delay >= 30"), attribution=vo.Attribution("decay"), **shared
)
not_its_own = vo.Label(
    "not_its_own",
    value=vo.sql("arr_delay >= 30"),
    attribution=vo.Attribution("last", half_life="1d", ends=0.4),
    **shared,
)
too_much = vo.Label(
    "too_much",
    value=vo.sql("arr_delay >= 30"),
    attribution=vo.Attribution("position", ends=0.6),
    **shared,
)
shown = vo.Label(
    "shown", value=vo.sql("arr_delay >= 30"), attribution=vo.Attribution(exposed="yes"), **shared
)
