"""Training sets: frozen, hashed tables of what was known when decisions were made and what came of them.

Features are those that were served (or, for history, recomputed point in time by the caller); labels are mature ones,
as they stood at `label_cutoff` from evidence applied by `stamp`. So a set built again from the same lake versions has
the same root hash, whatever arrived later. Rows are sorted by id. Never reads the clock or a store; writes one
artifact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volano.errors import ConflictError, CorruptionError, InvariantError, RequestError, StateMismatchError
from volano.kernels.assignment import uniform
from volano.kernels.merkle import merkle_root, row_digests
from volano.kernels.standing import as_array, as_micros, newest_rows
from volano.plan.definitions import CompiledLabel, CompiledModel, CompiledService
from volano.protocols.artifact_store import ArtifactReader, ArtifactWriter
from volano.protocols.catalog import CatalogReader, CatalogWriter
from volano.records.label import LabelState
from volano.records.learning import TrainingSetManifest
from volano.values.arrow import ARROW_TYPES, INSTANT
from volano.values.identities import content_hash
from volano.values.instants import Instant, format_duration
from volano.values.schema import DType

KIND: Final = "training_set"
"""The catalog's kind of manifests."""
SYSTEM_COLUMNS: Final = ("id", "decided_at", "unit", "origin", "label")
"""What stands in front of the features. `id` is `<decision>/<decision id>`, or `<history>/<id>` of a past request;
`unit` is null where the decision itself is the unit; `origin` is `logged` or `history`."""


class TrainingSet(NamedTuple):
    """A manifest and its rows: `SYSTEM_COLUMNS`, then one column a feature, in the order of the service."""

    manifest: TrainingSetManifest
    table: pa.Table

    @property
    def features(self) -> pa.Table:
        """The feature columns."""
        return self.table.select(list(self.manifest.features))

    @property
    def label(self) -> pa.Array:
        """The labels; never null."""
        return as_array(self.table["label"])

    @property
    def units(self) -> pa.Array:
        """What each row is resampled with: its unit, or its own id."""
        return as_array(pc.coalesce(self.table["unit"], self.table["id"]))


class RollingSpans(NamedTuple):
    """Which decisions train and which evaluate, all half-open (decision record 0005).

    Training takes decisions before `training_until`, evaluation those in `[evaluation_from, evaluation_until)`.
    """

    training_until: Instant
    evaluation_from: Instant
    evaluation_until: Instant
    rule: str


def rolling_spans(cutoff: Instant, *, horizon_us: int, period_us: int) -> RollingSpans:
    """The spans of a retraining at `cutoff`: the newest mature period evaluates, and an embargo lies before it.

    Args:
        cutoff: the label cut-off T.
        horizon_us: of the label, H; a decision at t is mature from t + H on.
        period_us: how often the model is retrained, P.

    >>> rolling_spans(100, horizon_us=10, period_us=20)[:3]
    (60, 70, 90)
    """
    until = cutoff - horizon_us
    since = until - period_us
    rule = f"rolling: evaluation of {format_duration(period_us)}, embargo of {format_duration(horizon_us)}"
    return RollingSpans(since - horizon_us, since, until, rule)


def build(
    model: CompiledModel,
    label: CompiledLabel,
    decisions: pa.Table,
    labels: pa.Table,
    *,
    name: str,
    bundle: str,
    decided_from: Instant,
    decided_until: Instant,
    label_cutoff: Instant,
    stamp: Instant,
    built_at: Instant,
    artifacts: ArtifactWriter,
    kind: str = "training",
    history: pa.Table | None = None,
    tables: Mapping[str, int] | None = None,
    snapshots: Mapping[str, str] | None = None,
    asked: str = "",
    split_rule: str = "",
    purposes: Sequence[str] = (),
    share: float = 1.0,
    held_out: Sequence[TrainingSet] = (),
) -> TrainingSet:
    """Build a set and store its rows as a Parquet artifact. The manifest is not stored: see `store_manifest`.

    Args:
        decisions: logged decisions: decision, decision_id, decided_at, `feature__<input>` columns, and where present
            applied_at, mode, attempt, unit, service_version. Counted are live ones, their first attempt, applied by
            `stamp`, made with the model's present feature service, decided in `[decided_from, decided_until)`.
        labels: label rows of `label`, for logged decisions and history alike.
        name: of the set, such as `delay-2013-04-01`.
        label_cutoff: labels as computed by then; only mature ones.
        stamp: the newest applied stamp that counts, of decisions and of evidence.
        built_at: instant that the manifest names; part of no hash.
        kind: `training`, `evaluation` or `pinned`.
        history: requests of the past as rows of the same shape, with features recomputed point in time; their
            `decision` is the name of the history. Only those that nobody decided: see `unanswered`.
        tables: lake table -> version that was read; `snapshots`: source -> token of its table.
        asked: digest of the frozen requests behind `history`.
        split_rule: how the rows were parted from their sibling, for people.
        share: of the units to take, above 0 to 1; which ones follows from their names and the set's.
        held_out: pinned evaluation sets, whose members and units are left out.

    Raises:
        RequestError: a feature column is missing.
        InvariantError: two rows have one id.
    """
    table = members(
        model, label, decisions, labels, decided_from=decided_from, decided_until=decided_until,
        label_cutoff=label_cutoff, stamp=stamp, history=history, sample=(name, share), held_out=held_out,
    )  # fmt: skip
    check_unique(table, name)
    manifest = TrainingSetManifest(
        name=name,
        model=model.name,
        bundle=bundle,
        query_hash=content_hash([model.service, label, kind]),
        service_version=model.service.version,
        decided_from=decided_from,
        decided_until=decided_until,
        label_cutoff=label_cutoff,
        stamp=stamp,
        n_rows=table.num_rows,
        n_positive=_positives(table),
        root_hash=merkle_root(table),
        artifact=artifacts.put(_parquet(table)),
        built_at=built_at,
        features=tuple(item.name for item in model.service.inputs),
        tables=dict(tables or {}),
        snapshots=dict(snapshots or {}),
        asked=asked,
        n_history=count_history(table),
        split_rule=split_rule,
        purposes=tuple(purposes),
        share=share,
        held_out=tuple(sorted(each.manifest.name for each in held_out)),
        kind=kind,
    )
    return TrainingSet(manifest, table)


def members(
    model: CompiledModel,
    label: CompiledLabel,
    decisions: pa.Table,
    labels: pa.Table,
    *,
    decided_from: Instant,
    decided_until: Instant,
    label_cutoff: Instant,
    stamp: Instant,
    history: pa.Table | None,
    sample: tuple[str, float] = ("", 1.0),
    held_out: Sequence[TrainingSet] = (),
) -> pa.Table:
    """The rows of a set, sorted by id: `SYSTEM_COLUMNS`, then the features. The arguments are those of `build`.

    Args:
        sample: the set's name and the share of units that it takes.
    """
    matured = mature_labels(labels, label.name, label_cutoff=label_cutoff, stamp=stamp)
    logged = _counted(decisions, model.service, decided_from, decided_until, stamp)
    parts = [_members(logged, matured, model.service, label, "logged")]
    if history is not None:
        past = _within(history, decided_from, decided_until)
        parts.append(_members(past, matured, model.service, label, "history"))
    return _sorted(_sampled(_without(pa.concat_tables(parts), held_out), *sample))


def member_ids(rows: pa.Table) -> pa.Array:
    """The id of each row in a set: its decision, or history, and its id there. A decision id belongs to one decision.

    >>> member_ids(pa.table({"decision": ["get_risk"], "decision_id": ["v-1"]})).to_pylist()
    ['get_risk/v-1']
    """
    names = (rows["decision"].cast(pa.string()), rows["decision_id"].cast(pa.string()))
    return as_array(pc.binary_join_element_wise(*names, "/"))


def unanswered(history: pa.Table, logged: pa.Table) -> pa.Table:
    """The requests of the past that nobody decided: where one was decided, the logged row stands.

    A request is known by its own id. A logged one without an id could be any of those that were asked since, so the
    history ends at the first such decision.

    Args:
        history: decision_id, the request's id; decided_at.
        logged: decisions that saw their features: source_event_id, null where the request has no id; decided_at.
    """
    nameless = logged.filter(logged["source_event_id"].is_null())
    asked = as_array(history["decision_id"])
    past = history.filter(
        pc.invert(pc.is_in(asked, value_set=as_array(logged["source_event_id"]).drop_null()))
    )
    if not nameless.num_rows:
        return past
    first = int(as_micros(nameless["decided_at"]).min())
    return past.filter(pa.array(as_micros(past["decided_at"]) < first))


def check_unique(table: pa.Table, name: str) -> None:
    """Every row of a set has an id of its own.

    Args:
        table: rows sorted by id.
        name: of the set.

    Raises:
        InvariantError: two rows share one; names the first and how many.
    """
    ids = as_array(table["id"])
    if len(ids) < 2:
        return
    again = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1))
    shared = ids.slice(1).filter(again)
    if len(shared):
        raise InvariantError(
            f"{len(shared)} rows of training set {name!r} have the id of another, first {shared[0].as_py()!r}.",
            where=f"training set {name}",
            mend="do not train on it; train the model again, and report this if it comes back",
        )


def count_history(table: pa.Table) -> int:
    """How many rows of a set are requests of the past that nobody decided."""
    return int(pc.sum(pc.equal(table["origin"], "history")).as_py() or 0)


def mature_labels(labels: pa.Table, label: str, *, label_cutoff: Instant, stamp: Instant) -> pa.Table:
    """The standing mature label of each decision at a cut-off: decision, decision_id, value, value_text.

    A row computed after the cut-off, or from evidence applied after the stamp, does not exist for the set. What is
    pending, provisional, censored or retracted then is no row here, least of all a negative.
    """
    by_then = pc.and_(
        pc.and_(pc.equal(labels["label"], label), pa.array(as_micros(labels["computed_at"]) <= label_cutoff)),
        pc.fill_null(pc.less_equal(labels["evidence_stamp"].cast(pa.int64()), stamp), True),
    )
    rows = labels.filter(by_then)
    if rows.num_rows:
        rows = rows.take(pa.array(newest_rows(member_ids(rows), as_micros(rows["computed_at"]))))
    mature = rows.filter(pc.equal(rows["state"], LabelState.MATURE.value))
    return mature.select(["decision", "decision_id", "value", "value_text"])


def load(manifest: TrainingSetManifest, artifacts: ArtifactReader) -> TrainingSet:
    """The frozen rows of a manifest."""
    return TrainingSet(manifest, pq.read_table(pa.BufferReader(artifacts.get(manifest.artifact))))


def verify(manifest: TrainingSetManifest, artifacts: ArtifactReader) -> None:
    """Hash the frozen rows again.

    Raises:
        CorruptionError: they are not the rows that the manifest describes.
    """
    table = load(manifest, artifacts).table
    found = merkle_root(table)
    if found != manifest.root_hash or table.num_rows != manifest.n_rows:
        raise CorruptionError(
            f"Training set {manifest.name!r} does not match its manifest.",
            where=f"root hash {found[:16]}, expected {manifest.root_hash[:16]}",
            mend="build it again from its manifest; do not train on it",
        )


class Difference(NamedTuple):
    """The ids by which two sets differ, sorted."""

    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    changed: tuple[str, ...]


def difference(before: TrainingSet, after: TrainingSet) -> Difference:
    """Which members differ, by id and content."""
    old_ids, new_ids = as_array(before.table["id"]), as_array(after.table["id"])
    at = pc.index_in(new_ids, value_set=old_ids)
    shared = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    old_rows = row_digests(before.table)[at.drop_null().to_numpy(zero_copy_only=False)]
    changed = shared[(row_digests(after.table)[shared] != old_rows).any(axis=1)]
    gone = old_ids.filter(pc.invert(pc.is_in(old_ids, value_set=new_ids)))
    return Difference(
        tuple(gone.to_pylist()),
        tuple(new_ids.filter(at.is_null()).to_pylist()),
        tuple(new_ids.take(pa.array(changed)).to_pylist()),
    )


def store_manifest(manifest: TrainingSetManifest, catalog: CatalogWriter) -> TrainingSetManifest:
    """Write a manifest to the catalog; the same set again is the same as once.

    Returns:
        The manifest that stands in the catalog.

    Raises:
        StateMismatchError: a set of this name with other content exists.
    """
    try:
        catalog.put(KIND, manifest.name, msgspec.json.encode(manifest), expected=0)
    except ConflictError:
        standing = find_manifest(manifest.name, catalog)
        if standing is None or standing.root_hash != manifest.root_hash:
            raise StateMismatchError(
                f"Training set {manifest.name!r} exists with other content.",
                where=f"root hash {standing.root_hash[:16] if standing else '?'}, new {manifest.root_hash[:16]}",
                mend="give the new set a name of its own",
            ) from None
        return standing
    return manifest


def find_manifest(name: str, catalog: CatalogReader) -> TrainingSetManifest | None:
    """The manifest of this name, or None."""
    document = catalog.find(KIND, name)
    return None if document is None else msgspec.json.decode(document.body, type=TrainingSetManifest)


def _within(rows: pa.Table, decided_from: Instant, decided_until: Instant) -> pa.Table:
    decided = as_micros(rows["decided_at"])
    return rows.filter(pa.array((decided >= decided_from) & (decided < decided_until)))


def _without(rows: pa.Table, held_out: Sequence[TrainingSet]) -> pa.Table:
    """Rows that share neither an id nor a unit with a held-out set."""
    for each in held_out:
        for column in ("id", "unit"):
            judged = as_array(each.table[column]).drop_null()
            rows = rows.filter(pc.invert(pc.is_in(as_array(rows[column]), value_set=judged)))
    return rows


def _sampled(rows: pa.Table, name: str, share: float) -> pa.Table:
    """Rows of the units whose number under the set's name lies below the share: a unit is in whole, or not at all."""
    if share >= 1.0:
        return rows
    units = pc.dictionary_encode(as_array(pc.coalesce(rows["unit"], rows["id"])))
    taken = [uniform("sample", name, unit) < share for unit in units.dictionary.to_pylist()]
    return rows.filter(pa.array(taken, pa.bool_()).take(units.indices))


def _counted(
    decisions: pa.Table,
    service: CompiledService,
    decided_from: Instant,
    decided_until: Instant,
    stamp: Instant,
) -> pa.Table:
    """Logged decisions that may become members; one row an id."""
    decided = as_micros(decisions["decided_at"])
    keep = (decided >= decided_from) & (decided < decided_until)
    names = decisions.column_names
    if "applied_at" in names:
        keep &= as_micros(decisions["applied_at"]) <= stamp
    if "mode" in names:
        keep &= _mask(pc.equal(decisions["mode"], "live"))
    if "service_version" in names:
        keep &= _mask(pc.equal(decisions["service_version"], service.version))
    if "fallback" in names:
        keep &= ~_mask(_without_features(decisions, service))
    rows = decisions.filter(pa.array(keep))  # once: it copies every column
    if "attempt" in names and rows.num_rows and pc.max(rows["attempt"]).as_py():
        first = newest_rows(member_ids(rows), -rows["attempt"].to_numpy())
        rows = rows.take(pa.array(np.sort(first)))
    return rows


def _mask(condition: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
    return mask


def _without_features(rows: pa.Table, service: CompiledService) -> pa.ChunkedArray | pa.Array:
    """The fallback answered before the features were read: nulls throughout that no model was served."""
    nothing = pc.fill_null(pc.not_equal(rows["fallback"], ""), False)
    if not pc.any(nothing).as_py():
        return nothing
    for item in service.inputs:
        nothing = pc.and_(nothing, _feature(rows, item.name).is_null())
    return nothing


def _members(
    rows: pa.Table, matured: pa.Table, service: CompiledService, label: CompiledLabel, origin: str
) -> pa.Table:
    """The rows with a mature label, in the columns of the set."""
    ids = member_ids(rows)
    at = pc.index_in(ids, value_set=member_ids(matured))
    has_label = at.is_valid()
    rows = rows.filter(has_label)
    values = matured.take(at.drop_null())
    columns = {
        "id": ids.filter(has_label),
        "decided_at": pa.array(as_micros(rows["decided_at"])).cast(INSTANT),
        "unit": _units(rows),
        "origin": pa.repeat(origin, rows.num_rows),
        "label": _label_values(values, label),
    }
    for item in service.inputs:
        columns[item.name] = _feature(rows, item.name).cast(ARROW_TYPES[item.dtype])
    return pa.table(columns)


def _units(rows: pa.Table) -> pa.ChunkedArray | pa.Array:
    """The unit of each row; null for a row that is its own."""
    if "unit" not in rows.column_names:
        return pa.nulls(rows.num_rows, pa.string())
    units = rows["unit"].cast(pa.string())
    return pc.if_else(pc.equal(units, ""), pa.scalar(None, pa.string()), units)


def _label_values(values: pa.Table, label: CompiledLabel) -> pa.ChunkedArray:
    if label.dtype is DType.STRING:
        return values["value_text"]
    numbers = values["value"]
    if label.dtype is DType.BOOL:
        return pc.not_equal(numbers, 0.0)
    return numbers.cast(ARROW_TYPES[label.dtype])


def _feature(rows: pa.Table, name: str) -> pa.ChunkedArray:
    for written in (f"feature__{name}", name):
        if written in rows.column_names:
            return rows[written]
    raise RequestError(
        f"The rows lack the feature {name!r}.",
        mend=f"columns there: {', '.join(rows.column_names)}",
    )


def _sorted(table: pa.Table) -> pa.Table:
    ids = as_array(table["id"])
    if pc.all(pc.less(ids.slice(0, max(len(ids) - 1, 0)), ids.slice(min(1, len(ids))))).as_py() is not False:
        return table.combine_chunks()
    return table.take(pc.sort_indices(ids)).combine_chunks()


def _positives(table: pa.Table) -> int:
    label = table["label"]
    return int(pc.sum(label).as_py() or 0) if pa.types.is_boolean(label.type) else 0


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    words = [
        field.name
        for field in table.schema
        if pa.types.is_string(field.type) and field.name not in ("id", "unit")
    ]
    pq.write_table(table, sink, compression="zstd", compression_level=1, use_dictionary=words)
    return bytes(sink.getvalue().to_pybytes())
