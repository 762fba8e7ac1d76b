import volano as vo
from healthy import landings, plane


class History(vo.FeatureView, entity=plane, source=landings):
    mean_carrier = vo.mean("carrier", within="7d")
    delays = vo.last_n("arr_delay", 0, within="7d")
    lateness = vo.rate("arr_delay", prior=0.5, within="7d")
