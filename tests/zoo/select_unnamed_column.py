import volano as vo
from healthy import landings, plane


class History(
    vo.FeatureView,
    entity=plane,
    source=landings,
    select=vo.sql("SELECT tailnum, arr_delay * 60 FROM landings"),
):
    delay = vo.last("delay", within="7d")


class Other(vo.FeatureView, entity=plane, source=landings, select=vo.sql("SELECT *, arr_delay * 60 FROM source")):
    delay = vo.last("arr_delay", within="7d")
