import volano as vo
from healthy import ops

card = vo.Entity("card", key=float, owner=ops)
shop = vo.Entity("shop", owner=ops)
