import volano as vo
from healthy import landings, plane


class History(vo.FeatureView, entity=plane, source=landings):
    late = vo.count(where=vo.sql("arr_delay + 30"), within="7d")
    also_late = vo.count(where="arr_delay > 30", within="7d")
    by_column = vo.count(where="arr_delay", within="7d")
