"""Shadow scores: what another version would have said of logged decisions, from the features as served.

Off the critical path: works on rows of the lake, many at once. Decides nothing.
"""

from __future__ import annotations

from math import isfinite

import pyarrow as pa
import pyarrow.compute as pc

from volano.decide.serving import LoadedModel
from volano.records.journal import ShadowScored
from volano.values.instants import Instant


def score_shadow(
    rows: pa.Table, decision: str, shadow: LoadedModel, *, scored_at: Instant
) -> list[ShadowScored]:
    """Score logged decisions with another version.

    Args:
        rows: of `decision_<name>`: decision_id, attempt, service_version, fallback and the shadow's `feature__`
            columns. Decisions served with other inputs, and those whose fallback answered, get no score.
        decision: name of the decision.
        scored_at: instant that the records name.
    """
    version = shadow.version
    usable = pc.and_(
        pc.equal(rows["service_version"], version.service_version),
        pc.equal(rows["fallback"].fill_null(""), ""),
    )
    rows = rows.filter(usable)
    inputs = rows.select([f"feature__{name}" for name in version.features]).rename_columns(
        list(version.features)
    )
    scores = shadow.predictor.predict(inputs).tolist()
    return [
        ShadowScored(
            decision_id=decision_id,
            decision=decision,
            model=version.model,
            model_version=version.version,
            score=score if isfinite(score) else None,
            scored_at=scored_at,
            attempt=attempt,
        )
        for decision_id, attempt, score in zip(
            rows["decision_id"].to_pylist(), rows["attempt"].to_pylist(), scores, strict=True
        )
    ]
