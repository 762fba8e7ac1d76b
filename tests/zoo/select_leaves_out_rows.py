import volano as vo
from healthy import landings, plane


class History(
    vo.FeatureView,
    entity=plane,
    source=landings,
    select=vo.sql("SELECT *, arr_delay > 15 AS late FROM source WHERE arr_delay IS NOT NULL"),
):
    late = vo.rate("late", within="7d")


class Grouped(
    vo.FeatureView,
    entity=plane,
    source=landings,
    select=vo.sql("SELECT tailnum, avg(arr_delay) AS delay FROM source GROUP BY tailnum"),
):
    delay = vo.last("delay", within="7d")
