import volano as vo
from healthy import Departure, delay, ops

risk = vo.Decision(
    "risk",
    request=Departure,
    model=delay,
    actions=["warn", "ok"],
    policy=vo.Threshold("wran", at=0.5),
    deadline="20ms",
    fallback="okay",
    unit="tail",
    owner=ops,
)
choice = vo.Decision(
    "choice",
    request=Departure,
    model=delay,
    actions=["a", "b", "c"],
    policy=vo.EpsilonGreedy(0.1),
    deadline="20ms",
    fallback="a",
    owner=ops,
)
odds = vo.Decision(
    "odds",
    request=Departure,
    model=delay,
    actions=["warn", "ok"],
    policy=vo.Softmax(temperature=0),
    deadline="20ms",
    fallback="ok",
    owner=ops,
)
