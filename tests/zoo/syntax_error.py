import volano as vo

ops = vo.Owner("ops", contact="ops@example.org"
plane = vo.Entity("plane", key=str, owner=ops)
