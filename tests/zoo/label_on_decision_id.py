from datetime import datetime

import volano as vo
from healthy import ops


class Ask(vo.Request):
    decision_id: str
    flight_id: str
    asked_at: datetime


class Rating(vo.Event, id="rating_id"):
    rating_id: str
    decision_id: int
    answer: str
    stars: float
    rated_at: vo.EventTime


ratings = vo.Source("ratings", Rating, stream=True, accept_late="1h", owner=ops)
liked = vo.Label(
    "liked", request=Ask, source=ratings, on="decision_id", value=vo.sql("stars > 3"), horizon="1d", owner=ops
)
good = vo.Label(
    "good",
    request=Ask,
    source=ratings,
    on={"decision_id": "answer"},
    value=vo.sql("stars > 3"),
    horizon="1d",
    owner=ops,
)
asked = vo.Requests(Ask, table="asked.parquet", at=vo.sql("asked_at"))
model = vo.Model("taste", features=[Ask.flight_id], label=good, history=asked, trainer=vo.LightGBM(), owner=ops)
