import volano as vo
from healthy import landings, plane


class History(vo.FeatureView, entity=plane, source=landings):
    mean_delay = vo.mean("arr_dealy", within="7d")
    late = vo.count(where=vo.sql("arr_delai > 30"), within="7d")
