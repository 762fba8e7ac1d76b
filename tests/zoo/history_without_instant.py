import volano as vo
from healthy import Departure

asked = vo.Requests(Departure, table="schedule.parquet")
again = vo.Requests(Departure, table="schedule.parquet", at=vo.sql("distance * 2"), name="again")
nowhere = vo.Requests(Departure, at=vo.sql("sched_dep"), name="nowhere")
