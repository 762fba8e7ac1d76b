import volano as vo
from healthy import Landing, ops

late_landings = vo.Source("late_landings", Landing, stream=True, accept_lat="2h", owner=ops)
