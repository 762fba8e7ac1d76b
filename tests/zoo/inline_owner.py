import volano as vo

plane = vo.Entity("plane", key=str, owner=vo.Owner("ops", contact="ops@example.org"))
