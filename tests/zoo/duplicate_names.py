import volano as vo
from healthy import Landing, ops

card = vo.Entity("card", key=str, owner=ops)
other = vo.Entity("card", key=int, owner=ops)
landings = vo.Source("landings", Landing, stream=True, accept_late="2h", owner=ops)
