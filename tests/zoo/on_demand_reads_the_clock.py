import random
import time
from datetime import datetime

import volano as vo
from healthy import Departure


@vo.on_demand
def hours_left(sched_dep: datetime = Departure.sched_dep) -> float:
    return (sched_dep - datetime.now()).total_seconds() / 3600


@vo.on_demand
def noise(distance: int = Departure.distance) -> float:
    return distance * random.random() + time.time()
