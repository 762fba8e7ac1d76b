import volano as vo
from healthy import landings, late, ops, plane


class History(vo.FeatureView, entity=plane, source=landings):
    legs = vo.count(within="24h", include_request=True)
    daily = vo.count(within="24h", every="1d", include_request=True)


risk = vo.Model("risk", features=[History], label=late, trainer=vo.LightGBM(), owner=ops)
