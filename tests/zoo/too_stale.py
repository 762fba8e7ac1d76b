import volano as vo
from healthy import Departure, Landing, late, ops, plane

reports = vo.Source("reports", Landing, table="landings.parquet", available_after="1d", owner=ops)


class Reported(vo.FeatureView, entity=plane, source=reports, staleness="1d"):
    legs = vo.count(within="7d")


risk_model = vo.Model("risk", features=[Reported], label=late, trainer=vo.LightGBM(), owner=ops)
risk = vo.Decision(
    "risk",
    request=Departure,
    model=risk_model,
    actions=["warn", "ok"],
    policy=vo.Threshold("warn", at=0.5),
    deadline="20ms",
    fallback="ok",
    max_staleness="1h",
    owner=ops,
)
