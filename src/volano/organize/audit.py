"""The audit of promise 3: logged features recomputed from the lake, compared bit by bit with what was served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.kernels.columns import combined
from volano.organize.features import Mode, PointInTime
from volano.plan.definitions import CompiledRequest, CompiledService

MOST_DIFFERENCES: Final = 1_000
_REQUEST: Final = "request__"
_FEATURE: Final = "feature__"


class Difference(NamedTuple):
    """One feature of one decision that was not served as it is recomputed.

    Args:
        cause: what kind of difference it is: `null`, `value`, or `rounding` (floats that agree to 1e-9).
    """

    decision_id: str
    attempt: int
    feature: str
    served: Any
    recomputed: Any
    cause: str


class AuditReport(NamedTuple):
    """What an audit found.

    Args:
        checked: decisions whose features were recomputed.
        mismatched: those among them with at least one difference.
        skipped: decisions that fell back before their features were read.
        differences: at most `MOST_DIFFERENCES` of them, in the order of the decisions.
    """

    checked: int
    mismatched: int
    skipped: int
    differences: tuple[Difference, ...]


def audit(
    decisions: pa.Table, service: CompiledService, request: CompiledRequest, features: PointInTime
) -> AuditReport:
    """Recompute the features of logged decisions and compare.

    Args:
        decisions: rows of `decision_<name>` that were served with `service`.
        service: whose inputs were logged, of the bundle that decided.
        request: the decision's request definition.
        features: recomputes them, over the same bundle's definitions.
    """
    served_at_all = _was_served(decisions, service)
    rows = decisions.filter(served_at_all)
    spine = pa.table(
        {
            "decided_at": rows["decided_at"],
            "as_of": rows["features_as_of"],
            **{name: rows[_REQUEST + name] for name in request.schema.names},
        }
    )
    recomputed = features.features(service.inputs, spine, mode=Mode.REPLAY, request=request)
    wrong = np.zeros(rows.num_rows, bool)
    found: list[tuple[int, Difference]] = []
    for given in service.inputs:
        served = combined(rows[_FEATURE + given.name])
        again = combined(recomputed[given.name])
        differs = _differs(served, again)
        wrong |= differs
        found += _describe(rows, given.name, served, again, np.flatnonzero(differs)[:MOST_DIFFERENCES])
    found.sort(key=lambda each: each[0])
    return AuditReport(
        rows.num_rows,
        int(wrong.sum()),
        decisions.num_rows - rows.num_rows,
        tuple(difference for _, difference in found[:MOST_DIFFERENCES]),
    )


def _was_served(decisions: pa.Table, service: CompiledService) -> pa.Array:
    """Whether features were read: a decision that fell back before logged none of them."""
    fell_back = combined(pc.not_equal(decisions["fallback"].fill_null(""), ""))
    any_feature = pa.array(np.zeros(decisions.num_rows, bool))
    for given in service.inputs:
        any_feature = pc.or_(any_feature, combined(decisions[_FEATURE + given.name].is_valid()))
    return pc.or_(pc.invert(fell_back), any_feature)


def _differs(served: pa.Array, again: pa.Array) -> NDArray[np.bool_]:
    """Where two columns are not the same bits. A null is no NaN; NaN is NaN, whichever."""
    null_a = served.is_null().to_numpy(zero_copy_only=False)
    null_b = again.is_null().to_numpy(zero_copy_only=False)
    values: NDArray[np.bool_]
    if pa.types.is_floating(served.type):
        values = _bits(served) != _bits(again)
    elif pa.types.is_list(served.type):
        pairs = zip(served.to_pylist(), again.to_pylist(), strict=True)
        values = np.fromiter((repr(a) != repr(b) for a, b in pairs), bool, len(served))
    else:
        values = pc.not_equal(served, again.cast(served.type)).fill_null(False).to_numpy(zero_copy_only=False)
    differs: NDArray[np.bool_] = (null_a != null_b) | (~null_a & ~null_b & values)
    return differs


def _bits(column: pa.Array) -> NDArray[np.int64]:
    values = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False).copy()
    values[np.isnan(values)] = np.nan
    bits: NDArray[np.int64] = values.view(np.int64)
    return bits


def _describe(
    rows: pa.Table, feature: str, served: pa.Array, again: pa.Array, places: Sequence[int] | NDArray[np.int64]
) -> list[tuple[int, Difference]]:
    described = []
    for place in places:
        at = int(place)
        a, b = served[at].as_py(), again[at].as_py()
        described.append(
            (
                at,
                Difference(
                    rows["decision_id"][at].as_py(), rows["attempt"][at].as_py(), feature, a, b, _cause(a, b)
                ),
            )
        )
    return described


def _cause(served: Any, recomputed: Any) -> str:
    if served is None or recomputed is None:
        return "null"
    if isinstance(served, float) and abs(served - recomputed) <= 1e-9 * max(abs(served), abs(recomputed)):
        return "rounding"
    return "value"
