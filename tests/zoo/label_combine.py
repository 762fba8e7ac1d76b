import volano as vo
from healthy import Departure, landings, ops

shared = {"request": Departure, "source": landings, "on": "flight_id", "horizon": "36h", "owner": ops}

misspelt = vo.Label("misspelt", value="arr_delay", combine="total", **shared)
not_a_condition = vo.Label("not_a_condition", value="arr_delay", combine="any", **shared)
not_a_number = vo.Label("not_a_number", value=vo.sql("arr_delay >= 30"), combine="sum", **shared)
