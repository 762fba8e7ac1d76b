import volano as vo
from healthy import landings, plane


class History(vo.FeatureView, entity=plane, source=landings):
    late = vo.count(where=vo.sql('arr_delay >'), within='7d')
    quoted = vo.count(where=vo.sql("carrier = 'AA"), within='7d')
