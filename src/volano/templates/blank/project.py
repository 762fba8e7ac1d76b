"""A project to begin with: will an order come back? Change it, then run `volano plan`."""

from typing import Annotated

import volano as vo

shop = vo.Owner("shop", contact="shop@example.org")
customer = vo.Entity("customer", key=str, owner=shop)


class Order(vo.Event, id="order_id"):
    order_id: str
    customer_id: Annotated[str, customer]
    amount: float
    returned: bool
    closed_at: vo.EventTime


orders = vo.Source("orders", Order, stream=True, accept_late="1d", owner=shop)


class CustomerHistory(vo.FeatureView, entity=customer, source=orders):
    n_orders = vo.count(within="90d")
    mean_amount = vo.mean("amount", within="90d")


class Checkout(vo.Request):
    order_id: str
    customer_id: Annotated[str, customer]
    amount: float


returned = vo.sql("returned")
back = vo.Label(
    "back", request=Checkout, source=orders, on="order_id", value=returned, horizon="30d", owner=shop
)
inputs, trees = [CustomerHistory, Checkout.amount], vo.LightGBM(objective="binary")
risk = vo.Model("risk", features=inputs, label=back, trainer=trees, retrain="weekly", owner=shop)
ask = vo.Threshold("ask", at=0.5)
get_return_risk = vo.Decision(
    "get_return_risk", request=Checkout, model=risk, actions=["ask", "accept"], policy=ask, deadline="20ms",
    fallback="accept", owner=shop
)  # fmt: skip
release = vo.Release(get_return_risk, gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=200))
