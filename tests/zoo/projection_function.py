import volano as vo
from healthy import landings, plane


@vo.projection(columns={"late": bool, "names": list}, frame="spark")
def lateness(batch):
    return batch


class History(vo.FeatureView, entity=plane, source=landings, select=lateness):
    late = vo.rate("late", within="7d")
    very = vo.count(where=vo.sql("arr_delay > 60"), within="7d")


class Undeclared(vo.FeatureView, entity=plane, source=landings, select=len):
    legs = vo.count(within="7d")
