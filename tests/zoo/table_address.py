import volano as vo
from healthy import Landing, ops

read = vo.Source("read", Landing, table="landings.xlsx", available_after="5m", owner=ops)
