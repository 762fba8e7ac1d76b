from typing import Annotated

import volano as vo
from healthy import airport, landings, ops, plane


class PlaneInfo(vo.Event, id=["tailnum", "seen_at"]):
    tailnum: Annotated[str, plane]
    maker: str
    carrier: str
    seen_at: vo.EventTime


class Weather(vo.Event, id="report_id"):
    report_id: str
    airport: Annotated[str, airport]
    wind: float
    seen_at: vo.EventTime


class Fare(vo.Event, id="fare_id"):
    fare_id: str
    price: float
    seen_at: vo.EventTime


class Crew(vo.Event, id="crew_id"):
    crew_id: str
    plane: Annotated[str, plane]
    seen_at: vo.EventTime


planes = vo.Source("planes", PlaneInfo, stream=True, accept_late="1d", owner=ops)
weather = vo.Source("weather", Weather, stream=True, accept_late="1d", owner=ops)
fares = vo.Source("fares", Fare, stream=True, accept_late="1d", owner=ops)
crews = vo.Source("crews", Crew, table="crews.csv", available_after="1d", change="snapshots", owner=ops)


class NoJoin(vo.FeatureView, entity=plane, source=landings, join=planes):
    n = vo.count(within="1d")


class Misspelt(vo.FeatureView, entity=plane, source=landings, join=vo.join(planes, "makr")):
    n = vo.count(within="1d", where=vo.sql("maker = 'AIRBUS'"))


class Taken(vo.FeatureView, entity=plane, source=landings, join=vo.join(planes, "carrier")):
    n = vo.count(within="1d")


class Twice(vo.FeatureView, entity=plane, source=landings, join=[vo.join(planes, "maker"), vo.join(planes, "maker")]):
    n = vo.count(within="1d")


class WhichAirport(vo.FeatureView, entity=plane, source=landings, join=vo.join(weather, "wind")):
    n = vo.count(within="1d")


class WrongColumn(vo.FeatureView, entity=plane, source=landings, join=vo.join(weather, "wind", on="destination")):
    n = vo.count(within="1d")


class WrongType(vo.FeatureView, entity=plane, source=landings, join=vo.join(weather, "wind", on="arr_delay")):
    n = vo.count(within="1d")


class NoKey(vo.FeatureView, entity=plane, source=landings, join=vo.join(fares, "price")):
    n = vo.count(within="1d")


class NoColumns(vo.FeatureView, entity=plane, source=landings, join=vo.join(planes)):
    n = vo.count(within="1d")


class KeyOfDumps(vo.FeatureView, entity=plane, source=landings, join=vo.join(crews, "crew_id")):
    n = vo.count(within="1d")
