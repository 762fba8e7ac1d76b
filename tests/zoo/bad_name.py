import volano as vo
from healthy import Landing, ops

card = vo.Entity("my__card", key=str, owner=ops)
big = vo.Source("Late Landings", Landing, stream=True, accept_late="2h", owner=ops)
