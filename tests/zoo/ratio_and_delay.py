import volano as vo
from healthy import landings, plane


class History(vo.FeatureView, entity=plane, source=landings):
    per_carrier = vo.ratio("arr_delay", "carrier", within="7d")
    delayed = vo.count(within="7d", publish_delay="1h")
    on = vo.count(within="7d")
