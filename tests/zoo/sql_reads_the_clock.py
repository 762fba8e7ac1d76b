import volano as vo
from healthy import landings, plane


class History(vo.FeatureView, entity=plane, source=landings):
    recent = vo.count(where=vo.sql("landed_at > now() - INTERVAL 1 HOUR"), within='7d')
    some = vo.count(where=vo.sql('random() < 0.5'), within='7d')
