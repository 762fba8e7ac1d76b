import volano as vo


class Payment(vo.Event):
    payment_id: str
    amount: float
