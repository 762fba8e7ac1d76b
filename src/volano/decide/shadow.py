"""Scores of versions that do not serve, from the features as served. Runs in batches, off the critical path.

Because the features are the logged ones, the comparison of two versions is over the same inputs and the same decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from volano.decide.serving import LoadedModel
from volano.plan.definitions import CompiledService
from volano.records.journal import DecisionMade, ShadowScored
from volano.values.instants import Instant
from volano.values.schema import DType

_ARROW: Final[Mapping[DType, pa.DataType]] = {
    DType.BOOL: pa.bool_(),
    DType.INT64: pa.int64(),
    DType.FLOAT64: pa.float64(),
    DType.STRING: pa.string(),
    DType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    DType.LIST_FLOAT64: pa.list_(pa.float64()),
    DType.LIST_INT64: pa.list_(pa.int64()),
    DType.LIST_STRING: pa.list_(pa.string()),
}


def score_shadows(
    decisions: Sequence[DecisionMade],
    service: CompiledService,
    shadows: Sequence[LoadedModel],
    *,
    scored_at: Instant,
) -> list[ShadowScored]:
    """Score logged decisions with other versions.

    Args:
        decisions: of one decision definition, in any number; they all get a row from each version.
        service: the inputs that the features were logged in the order of.
        shadows: the versions.
        scored_at: now.

    Returns:
        One row a decision and version, by version, in the order given. The score is None where the features were not
        read, or were those of another service than the version was trained on.
    """
    same = [made.service_version == service.version and bool(made.features) for made in decisions]
    table = feature_table(service, [made for made, usable in zip(decisions, same, strict=True) if usable])
    rows: list[ShadowScored] = []
    for shadow in shadows:
        usable = shadow.version.service_version == service.version
        scores = iter(_scores(shadow, table) if usable else ())
        for made, has_features in zip(decisions, same, strict=True):
            rows.append(
                ShadowScored(
                    decision_id=made.decision_id,
                    decision=made.decision,
                    model=shadow.version.model,
                    model_version=shadow.version.version,
                    score=next(scores) if usable and has_features else None,
                    scored_at=scored_at,
                    attempt=made.attempt,
                )
            )
    return rows


def feature_table(service: CompiledService, decisions: Sequence[DecisionMade]) -> pa.Table:
    """The features as served as a table: one column an input, in the order of the service."""
    columns = (
        zip(*(made.features for made in decisions), strict=True) if decisions else ((),) * len(service.inputs)
    )
    return pa.table(
        {
            given.name: pa.array(column, _ARROW[given.dtype])
            for given, column in zip(service.inputs, columns, strict=True)
        }
    )


def _scores(shadow: LoadedModel, table: pa.Table) -> list[float | None]:
    if not table.num_rows:
        return []
    scores: np.ndarray[Any, np.dtype[np.float64]] = shadow.predictor.predict(table)
    return [float(score) if np.isfinite(score) else None for score in scores]
