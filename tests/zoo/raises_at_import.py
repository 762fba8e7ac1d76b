import volano as vo

limits = {}
ops = vo.Owner("ops", contact=limits["contact"])
