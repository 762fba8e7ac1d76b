import volano as vo
from healthy import landings, plane


class History(vo.FeatureView, entity=plane, source=landings):
    above = vo.count(where=vo.sql("arr_delay > avg(arr_delay)"), within="7d")
