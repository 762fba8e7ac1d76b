from typing import Annotated

import volano as vo
from healthy import ops

card = vo.Entity("card", key=str, owner=ops)


class Payment(vo.Event, id="payment_id"):
    payment_id: str
    card: Annotated[str, card]
    amount: float
    online: bool
    paid_at: vo.EventTime


payments = vo.Source("payments", Payment, stream=True, accept_late="1d", owner=ops)


class Computed(vo.FeatureView, entity=card, source=payments):
    asked = vo.count(within="1d", include_request=True)
    spent = vo.sum("amount", within="1d", include_request=True)
    twice = vo.sum(vo.sql("amount * 2"), within="1d")


class Plain(vo.FeatureView, entity=card, source=payments):
    spent = vo.sum("amount", within="1d", include_request=True)
    spent_online = vo.count(within="1d", where="online", include_request=True)


class Pay(vo.Request, id="payment_id"):
    payment_id: str
    card: Annotated[str, card]
    amount: str


stolen = vo.Label(
    "stolen", request=Pay, source=payments, on="payment_id", value=vo.sql("online"), horizon="1d", owner=ops
)
risk = vo.Model("risk", features=[Computed, Plain], label=stolen, trainer=vo.LightGBM(), owner=ops)
