import volano as vo
from healthy import ops

card = vo.Entity("card", key=str, owner=ops)
card = vo.Entity("other_card", key=int, owner=ops)
