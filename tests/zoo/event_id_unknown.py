import volano as vo


class Payment(vo.Event, id="paymentid"):
    payment_id: str
    paid_at: vo.EventTime
