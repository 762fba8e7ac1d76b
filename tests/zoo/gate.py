import volano as vo
from healthy import delay, Departure, ops

risk = vo.Decision(
    "risk",
    request=Departure,
    model=delay,
    actions=["warn", "ok"],
    policy=vo.Threshold("warn", at=0.5),
    deadline="20ms",
    fallback="ok",
    owner=ops,
)
release = vo.Release(risk, gate=vo.Gate("auc", margin=0.0, confidence=95))
again = vo.Release(risk, gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=100), name="again")
bare = vo.Release(delay)
