import volano as vo
from healthy import landings, plane


class History(vo.FeatureView, entity=plane, source=landings):
    delay_7d = vo.mean("arr_delay", within="7d")
    delay = vo.mean("arr_delay", within=("1d", "7d", "soon"))
    legs = vo.count(within=())
