"""What the year brought, by month: the live champion, the frozen first model and a base rate on the same decisions.

A score counts where its decision's label is mature. The base rate of a decision is the share of late flights of its
carrier among the labels that were mature when it was made: nothing later, like everything else here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.kernels.metrics import METRICS
from volano.protocols.sql_engine import SqlEngine

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

SCORERS: Final = ("live", "frozen", "base")
MEASURED: Final[Mapping[str, str]] = {
    "auc": "roc_auc",
    "average_precision": "average_precision",
    "log_loss": "log_loss",
}

_JOINED: Final = """
WITH newest AS (
    SELECT decision_id, arg_max(state, computed_at) AS state, arg_max(value, computed_at) AS value
    FROM label WHERE label = '{label}' AND decision = '{decision}' GROUP BY decision_id
), frozen AS (
    SELECT decision_id, any_value(score) AS score FROM shadow
    WHERE model_version = '{first}' AND decision = '{decision}' GROUP BY decision_id
)
SELECT d.decision_id, d.decided_at, d.request__carrier AS carrier, d.score AS live, frozen.score AS frozen,
       coalesce(newest.state, 'pending') AS state, newest.value AS value
FROM decision d LEFT JOIN newest USING (decision_id) LEFT JOIN frozen USING (decision_id)
WHERE d.attempt = 0 ORDER BY d.decided_at, d.decision_id
"""


class Month(msgspec.Struct, frozen=True):
    """One month of decisions. A metric is None where it is not defined.

    Args:
        month: such as `2013-07`, of the instant of decision, UTC.
        mature, pending, censored: decisions by the state of their label; provisional ones count as pending.
    """

    month: str
    decisions: int
    mature: int
    pending: int
    censored: int
    live_auc: float | None = None
    frozen_auc: float | None = None
    base_auc: float | None = None
    live_average_precision: float | None = None
    frozen_average_precision: float | None = None
    base_average_precision: float | None = None
    live_log_loss: float | None = None
    frozen_log_loss: float | None = None
    base_log_loss: float | None = None


def join_scores(
    sql: SqlEngine,
    *,
    decision: str,
    decisions: pa.Table,
    labels: pa.Table,
    shadows: pa.Table,
    label: str,
    first: str,
) -> pa.Table:
    """One row a decision: its live score, the first model's, and the newest state and value of its label.

    Args:
        decision: whose rows `decisions` holds; labels and shadow scores of others are left out.
        first: the version that was released first; shadow scores of others are left out.
    """
    relations = {"decision": decisions, "label": labels, "shadow": shadows}
    return sql.query(_JOINED.format(decision=decision, label=label, first=first), relations)


def count_states(scored: pa.Table) -> dict[str, int]:
    """Decisions by the state of their label."""
    counts = pc.value_counts(scored["state"]).to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda entry: entry["values"])}


def base_rates(scored: pa.Table, history: pa.Table, *, horizon_us: int) -> Floats:
    """For each decision the share of positives of its carrier among labels mature by then.

    Args:
        scored: what `join_scores` gives.
        history: decisions before the first one, with `decided_at`, `carrier` and `value`.
        horizon_us: of the label: one decided at t is mature from t + horizon on.

    Returns:
        (positives + 1) / (labels + 2), shape (n_decisions,).
    """
    mature = scored.filter(pc.equal(scored["state"], "mature")).select(["decided_at", "carrier", "value"])
    past = pa.concat_tables([history.select(mature.column_names).cast(mature.schema), mature])
    matured_at, asked_at = _micros(past["decided_at"]) + horizon_us, _micros(scored["decided_at"])
    carriers, asked = (np.asarray(table["carrier"].to_pylist()) for table in (past, scored))
    values = np.asarray(past["value"].to_numpy())
    rates = np.full(len(asked), 0.5)
    for carrier in np.unique(asked):
        own, wanted = np.flatnonzero(carriers == carrier), asked == carrier
        order = own[np.argsort(matured_at[own], kind="stable")]
        positives = np.concatenate([[0.0], np.cumsum(values[order])])
        n_known = np.searchsorted(matured_at[order], asked_at[wanted], side="right")
        rates[wanted] = (positives[n_known] + 1) / (n_known + 2)
    return rates


def measure_months(scored: pa.Table, base: Floats) -> list[Month]:
    """Every month with decisions, oldest first."""
    names = np.asarray(pc.strftime(scored["decided_at"], format="%Y-%m").to_pylist())
    states = np.asarray(scored["state"].to_pylist())
    values = np.asarray(scored["value"].to_numpy())
    scores = {name: np.asarray(scored[name].to_numpy()) for name in ("live", "frozen")} | {"base": base}
    known = (states == "mature") & np.logical_and.reduce([np.isfinite(each) for each in scores.values()])
    months = []
    for name in np.unique(names):
        of_month = names == name
        rows = of_month & known
        metrics: dict[str, Any] = {
            f"{scorer}_{short}": _metric(metric, scores[scorer][rows], values[rows])
            for scorer in SCORERS
            for short, metric in MEASURED.items()
        }
        counts = {state: int((of_month & (states == state)).sum()) for state in ("mature", "censored")}
        n = int(of_month.sum())
        months.append(Month(str(name), n, pending=n - sum(counts.values()), **counts, **metrics))
    return months


def lead_of_live(months: list[Month], *, since: str, until: str) -> float | None:
    """By how much the live champion's AUC lies above the frozen one's, averaged over the months `[since, until]`."""
    leads = [
        month.live_auc - month.frozen_auc
        for month in months
        if since <= month.month <= until and month.live_auc is not None and month.frozen_auc is not None
    ]
    return sum(leads) / len(leads) if leads else None


def _metric(name: str, scores: Floats, labels: Floats) -> float | None:
    if len(np.unique(labels)) < 2:
        return None
    return METRICS[name].prepare(scores, labels)(np.ones(len(labels)))


def _micros(column: Any) -> Ints:
    return np.asarray(column.cast(pa.int64()).to_numpy())
