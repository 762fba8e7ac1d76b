import volano as vo
from healthy import Departure, delay, ops

risk = vo.Decision("risk", request=Departure, model=delay, owner=ops)
