import volano as vo
from healthy import Landing, landings, ops, plane

pushed = vo.Source("pushed", Landing, stream=True, accept_late="2 hours", owner=ops)


class History(vo.FeatureView, entity=plane, source=landings):
    legs = vo.count(within="0s")
    delays = vo.mean("arr_delay", within=7)
