import volano as vo
from healthy import Departure, landings, ops

text = vo.Label(
    'text',
    request=Departure,
    source=landings,
    on='flight_id',
    value=vo.sql("carrier || '!'"),
    horizon='36h',
    owner=ops,
)
wrong_default = vo.Label(
    'wrong_default',
    request=Departure,
    source=landings,
    on='flight_id',
    value='arr_delay',
    horizon='36h',
    default='late',
    owner=ops,
)
