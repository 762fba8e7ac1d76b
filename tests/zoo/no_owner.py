import volano as vo

plane = vo.Entity("plane", key=str)
