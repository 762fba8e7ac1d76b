import volano as vo


class Payment(vo.Event, id="payment_id"):
    payment_id: str
    amount: float = 0.0
    currency = "EUR"
    paid_at: vo.EventTime
