"""Which members of a training set have another label by now: evidence came after maturity, was corrected or taken back.

The set itself stays as it is, for its hash is of what was known at its cut-off. Reads no store.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from volano.kernels.standing import as_array, as_micros, newest_rows
from volano.learn.training_set import member_ids
from volano.records.label import LabelState
from volano.records.learning import TrainingSetManifest


def changed_members(
    manifest: TrainingSetManifest, frozen: pa.Table, labels: pa.Table, *, label: str
) -> pa.Array:
    """The ids of the members whose label is another one now, or none any more; sorted.

    Args:
        manifest: of the set.
        frozen: its columns id and label.
        labels: label rows; those computed by the set's cut-off are what it holds already.
        label: name of the label.
    """
    later = pa.array(as_micros(labels["computed_at"]) > manifest.label_cutoff)
    rows = labels.filter(pc.and_(later, pc.equal(labels["label"], label)))
    rows = rows.filter(pc.is_in(member_ids(rows), value_set=as_array(frozen["id"])))
    if not rows.num_rows:
        return pa.array([], pa.string())
    rows = rows.take(pa.array(newest_rows(member_ids(rows), as_micros(rows["computed_at"]))))
    ids = member_ids(rows)
    held = frozen["label"].take(pc.index_in(ids, value_set=as_array(frozen["id"])))
    if pa.types.is_string(held.type):
        same = pc.equal(rows["value_text"], held)
    else:
        integer = pa.types.is_boolean(held.type) or pa.types.is_timestamp(held.type)
        same = pc.equal(rows["value"], (held.cast(pa.int64()) if integer else held).cast(pa.float64()))
    stands = pc.and_(pc.equal(rows["state"], LabelState.MATURE.value), pc.fill_null(same, False))
    changed = ids.filter(as_array(pc.invert(stands)))
    return changed.take(pc.sort_indices(changed))
