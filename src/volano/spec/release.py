"""Releases: how a new model version earns its place."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from volano.spec.decision import Decision


@dataclass(frozen=True)
class Gate:
    """The test that a challenger must pass against the champion, on mature labels that it has not seen.

    Args:
        metric: such as `roc_auc`, `average_precision`, `log_loss`, `brier`.
        margin: how much better it must be, in the metric's unit; improvement counts as positive.
        confidence: of the interval that must lie above the margin, between 0 and 1.
        min_labels: how many mature labels it takes.

    >>> Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=1_000).metric
    'roc_auc'
    """

    metric: str
    _: KW_ONLY
    margin: float | None = None
    confidence: float | None = None
    min_labels: int | None = None


@dataclass(frozen=True, eq=False)
class Release:
    """How versions of a decision's model are released.

    Args:
        decision: whose model it releases.
        gate: what a challenger must show.
        keep_first: whether the first released version runs along as a shadow for ever.
        name: without one, the decision's name.
    """

    decision: Decision
    _: KW_ONLY
    gate: Gate | None = None
    keep_first: bool = False
    name: str | None = None
