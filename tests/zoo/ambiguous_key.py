import volano as vo
from healthy import airport, landings


class AirportDelays(vo.FeatureView, entity=airport, source=landings):
    mean_delay = vo.mean("arr_delay", within="7d")
