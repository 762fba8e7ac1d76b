import volano as vo
from healthy import landings, plane


class History(vo.FeatureView, entitty=plane, source=landings):
    legs = vo.count(within="24h")
    threshold = 15


class Empty(vo.FeatureView, entity=plane, source=landings):
    pass
