import volano as vo


class Payment(vo.Event, id="event_id"):
    event_id: str
    event_time: vo.EventTime
