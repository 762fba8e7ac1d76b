import volano as vo

ops = vo.Owner("ops", contact="ops@example.org")


class Shown(vo.Event, id="shown_id"):
    shown_id: str
    shown_at: vo.EventTime


exposure = vo.Source("exposure", Shown, stream=True, accept_late="1h", owner=ops)
