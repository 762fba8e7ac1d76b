import volano as vo
from healthy import Landing, ops

late_landings = vo.Source("late_landings", Landing, owner=ops)
