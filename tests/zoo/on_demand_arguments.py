import volano as vo
from healthy import Departure, PlaneHistory


@vo.on_demand
def tired(distance: str = Departure.distance, delay: float = PlaneHistory.last_delay, hour: int = Departure.distnce, speed=3.0) -> bool:
    return True


@vo.on_demand
def long_haul(distance: int):
    return distance > 1500


@vo.on_demand
def whole(history: float = PlaneHistory, distance: int = Departure.distance) -> bool:
    return True
