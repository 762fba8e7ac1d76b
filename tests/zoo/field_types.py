from __future__ import annotations

from decimal import Decimal

import volano as vo


class Payment(vo.Event, id="payment_id"):
    payment_id: str
    amount: Decimal
    items: list[str]
    card: Card
    refund: int | str
    paid_at: vo.EventTime
