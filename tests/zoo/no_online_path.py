import volano as vo
from healthy import Departure, Landing, late, ops, plane

reports = vo.Source("reports", Landing, table="landings.parquet", available_after="1d", owner=ops)


class Reported(vo.FeatureView, entity=plane, source=reports):
    legs = vo.count(within="7d")


@vo.on_demand
def busy(legs: int | None = Reported.legs) -> bool:
    return (legs or 0) > 10


risk_model = vo.Model("risk", features=[busy], label=late, trainer=vo.LightGBM(), owner=ops)
risk = vo.Decision(
    "risk",
    request=Departure,
    model=risk_model,
    actions=["warn", "ok"],
    policy=vo.Threshold("warn", at=0.5),
    deadline="20ms",
    fallback="ok",
    owner=ops,
)
