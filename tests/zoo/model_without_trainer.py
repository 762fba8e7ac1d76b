import volano as vo
from healthy import PlaneHistory, late, ops

risk = vo.Model("risk", features=[PlaneHistory], label=late, owner=ops)
empty = vo.Model("empty", label=late, trainer="lightgbm", retrain="sometimes", owner=ops)
odd = vo.Model("odd", features=[PlaneHistory], label=late, trainer=vo.LightGBM(objective=max), owner=ops)
own = vo.Model(
    "own", features=[PlaneHistory], label=late, trainer=vo.PythonTrainer(lambda *_: b"", len), owner=ops
)
