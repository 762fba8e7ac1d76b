from typing import Annotated

import volano as vo
from healthy import Departure, landings, late, ops, plane


class PlaneInfo(vo.Event, id=["tailnum", "seen_at"]):
    tailnum: Annotated[str, plane]
    seats: int
    seen_at: vo.EventTime


planes = vo.Source("planes", PlaneInfo, table="p.csv", available_after="1d", change="slowly_changing", owner=ops)


class Seats(vo.FeatureView, entity=plane, source=landings, join=vo.join(planes, "seats")):
    seats_1d = vo.sum("seats", within="1d")


seated = vo.Model("seated", features=[Seats], label=late, trainer=vo.LightGBM(objective="binary"), owner=ops)
get_risk = vo.Decision(
    "get_risk", request=Departure, model=seated, actions=["warn", "ok"], policy=vo.Threshold("warn", at=0.5),
    deadline="20ms", fallback="ok", owner=ops,
)
release = vo.Release(get_risk, gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=10))
