import volano as vo

ops = vo.Owner("ops")
