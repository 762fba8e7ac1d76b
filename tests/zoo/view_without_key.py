import volano as vo
from healthy import landings, ops

carrier = vo.Entity("carrier", key=str, owner=ops)


class CarrierDelays(vo.FeatureView, entity=carrier, source=landings):
    mean_delay = vo.mean("arr_delay", within="7d")


class ByNumber(vo.FeatureView, entity=carrier, source=landings, key="arr_delay"):
    mean_delay = vo.mean("arr_delay", within="7d")
