import volano as vo
from healthy import airport, landings, late, ops


class AirportDelays(vo.FeatureView, entity=airport, source=landings, key="dest"):
    mean_delay = vo.mean("arr_delay", within="7d")


risk = vo.Model("risk", features=[AirportDelays], label=late, trainer=vo.LightGBM(), owner=ops)
