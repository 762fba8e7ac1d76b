import volano as vo
from healthy import landings, late, ops

carrier = vo.Entity("carrier", key=str, owner=ops)


class CarrierDelays(vo.FeatureView, entity=carrier, source=landings, key="carrier"):
    mean_delay = vo.mean("arr_delay", within="7d")


risk = vo.Model("risk", features=[CarrierDelays.mean_delay], label=late, trainer=vo.LightGBM(), owner=ops)
