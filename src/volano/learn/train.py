"""Training: from a training set and a trainer to an immutable model version with its lineage.

A version is named `delay-0007`: the model and a running number. Training again from the same rows, code, parameters and
seed is recognised by its lineage and gives the version that already exists, so a job that was killed anywhere may run
again. Every version carries a parity test, inputs and the scores they must give, which `load_version` runs.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.errors import ConflictError, CorruptionError, InvariantError, NotReadyError, UnknownNameError
from volano.learn.evaluate import measure_all
from volano.learn.training_set import TrainingSet
from volano.plan.definitions import CompiledModel
from volano.protocols.artifact_store import ArtifactReader, ArtifactWriter
from volano.protocols.catalog import CatalogReader, CatalogWriter
from volano.protocols.trainer import Predictor, Trainer
from volano.records.learning import ModelVersion
from volano.values.identities import content_hash
from volano.values.instants import Instant, format_instant
from volano.values.schema import Scalar

KIND: Final = "model_version"
"""The catalog's kind of model versions."""
PARITY_ROWS: Final = 64
PARITY_TOLERANCE: Final = 1e-9
"""How far a score may be from the stored one: another machine's exponential may differ in the last bits."""

_EXPECTED: Final = "__expected"


def train(
    model: CompiledModel,
    training_set: TrainingSet,
    trainer: Trainer,
    *,
    bundle: str,
    trained_at: Instant,
    artifacts: ArtifactWriter,
    catalog: CatalogWriter,
    evaluation_set: TrainingSet | None = None,
    weight: pa.Array | None = None,
) -> ModelVersion:
    """Train, store the artifact and its parity test, and write the version to the catalog.

    Args:
        training_set: its rows in their order.
        trainer: the one that `model.trainer` names.
        bundle: digest of the code that declares the model.
        trained_at: instant that the record names; part of no identity.
        evaluation_set: rows to measure on, never trained on; `metrics` is empty without it.
        weight: one a row of the training set.

    Returns:
        The version as it stands in the catalog: a new one, or the one of the same lineage.

    Raises:
        NotReadyError: the training set has no rows, or only one class of a bool label.
        InvariantError: the trainer's predictor scores one row otherwise than many.
    """
    _refuse_too_little(training_set)
    lineage = _lineage(model, training_set, bundle, weight)
    existing = _versions(catalog, model.name)
    known = _of_lineage(existing, lineage)
    if known is not None:
        return known
    features = training_set.features
    trained = trainer.fit(
        features, training_set.label, params=model.trainer.params, seed=model.seed, weight=weight
    )
    artifact = artifacts.put(trained.artifact)
    predictor = trainer.load(trained.artifact, artifacts.path(artifact))
    metrics = {f"training_{name}": float(value) for name, value in trained.facts.items()}
    if evaluation_set is not None and evaluation_set.table.num_rows:
        metrics |= measure(predictor, evaluation_set)
    version = ModelVersion(
        version="",
        model=model.name,
        bundle=bundle,
        service_version=training_set.manifest.service_version,
        trainer=model.trainer.kind,
        artifact=artifact,
        training_set=training_set.manifest.name,
        training_set_hash=training_set.manifest.root_hash,
        trained_at=trained_at,
        trained_until=training_set.manifest.decided_until,
        seed=model.seed,
        features=training_set.manifest.features,
        parity=artifacts.put(_parity_test(predictor, features)),
        metrics=metrics,
        params={**model.trainer.params},
        environment={**trainer.environment(), "python": platform.python_version()},
    )
    return _register(version, lineage, catalog)


def measure(predictor: Predictor, rows: TrainingSet) -> dict[str, float]:
    """Every metric of a predictor on the rows of a set."""
    return measure_all(
        predictor.predict(rows.features), label_numbers(rows), binary=pa.types.is_boolean(rows.label.type)
    )


def label_numbers(rows: TrainingSet) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The labels of a set as numbers, shape (n_rows,): 0 and 1 for a bool."""
    label = rows.label.cast(pa.int8()) if pa.types.is_boolean(rows.label.type) else rows.label
    numbers: np.ndarray[Any, np.dtype[np.float64]] = label.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def load_version(version: ModelVersion, trainer: Trainer, artifacts: ArtifactReader) -> Predictor:
    """A version's predictor, after its artifact's digest and its parity test were checked.

    Raises:
        UnknownNameError: the artifact is gone.
        CorruptionError: the artifact is damaged, or scores the stored inputs otherwise than when it was trained.
    """
    predictor = trainer.load(artifacts.get(version.artifact), artifacts.path(version.artifact))
    if version.parity:
        _check_parity(version, predictor, artifacts.get(version.parity))
    return predictor


def get_version(catalog: CatalogReader, name: str) -> ModelVersion:
    """A version by its name.

    Raises:
        UnknownNameError: there is none.
    """
    document = catalog.find(KIND, name)
    if document is None:
        known = ", ".join(item.name for item in catalog.documents(KIND)[-5:]) or "none"
        raise UnknownNameError(
            f"There is no model version {name!r}.", where="catalog", mend=f"newest known: {known}"
        )
    return msgspec.json.decode(document.body, type=ModelVersion)


def _refuse_too_little(rows: TrainingSet) -> None:
    name = rows.manifest.name
    if not rows.table.num_rows:
        raise NotReadyError(
            f"Training set {name!r} has no rows.",
            where=_span(rows),
            mend="wait until labels are mature, or declare a history; see `volano status`",
        )
    if pa.types.is_boolean(rows.label.type) and len(pc.unique(rows.label)) < 2:
        raise NotReadyError(
            f"All {rows.table.num_rows:,} labels of training set {name!r} are the same.",
            where=_span(rows),
            mend="train on a longer span, or check the label's value expression",
        )


def _span(rows: TrainingSet) -> str:
    since, until = rows.manifest.decided_from, rows.manifest.decided_until
    return f"decisions from {format_instant(since)} until {format_instant(until)}"


def _lineage(model: CompiledModel, training_set: TrainingSet, bundle: str, weight: pa.Array | None) -> str:
    """Hash of all that the artifact follows from."""
    return content_hash(
        [
            model.name,
            model.trainer,
            model.seed,
            bundle,
            training_set.manifest.root_hash,
            training_set.manifest.features,
            None if weight is None else content_hash(weight.to_pylist()),
        ]
    )


class _Registered(msgspec.Struct, frozen=True):
    """How a version lies in the catalog: its record, and the lineage beside it."""

    lineage: str


def _versions(catalog: CatalogReader, model: str) -> list[tuple[ModelVersion, str]]:
    """Every version of a model with its lineage, by number."""
    found = []
    for document in catalog.documents(KIND):
        if document.name.rpartition("-")[0] == model:
            version = msgspec.json.decode(document.body, type=ModelVersion)
            found.append((version, msgspec.json.decode(document.body, type=_Registered).lineage))
    return sorted(found, key=lambda item: _number(item[0].version))


def _number(version: str) -> int:
    return int(version.rpartition("-")[2])


def _of_lineage(existing: Sequence[tuple[ModelVersion, str]], lineage: str) -> ModelVersion | None:
    return next((version for version, known in existing if known == lineage), None)


def _register(version: ModelVersion, lineage: str, catalog: CatalogWriter) -> ModelVersion:
    """Give the version the next free number; another process may be doing the same."""
    while True:
        existing = _versions(catalog, version.model)
        known = _of_lineage(existing, lineage)
        if known is not None:
            return known
        number = _number(existing[-1][0].version) + 1 if existing else 1
        named = msgspec.structs.replace(version, version=f"{version.model}-{number:04d}")
        body = msgspec.json.encode({**msgspec.to_builtins(named), "lineage": lineage})
        try:
            catalog.put(KIND, named.version, body, expected=0)
        except ConflictError:
            continue
        return named


def _parity_test(predictor: Predictor, features: pa.Table) -> bytes:
    """Arrow IPC: rows spread over the training set, and the scores they got, one by one and together."""
    n = features.num_rows
    sample = features.take(np.unique(np.linspace(0, n - 1, min(PARITY_ROWS, n)).astype(np.int64)))
    expected = predictor.predict(sample)
    single = np.array([predictor.predict_one(row) for row in _rows(sample)])
    if not np.array_equal(expected, single, equal_nan=True):
        raise InvariantError(
            "The predictor scores a row by itself otherwise than among others.",
            mend="serving would differ from evaluation; mend the trainer",
        )
    sink = pa.BufferOutputStream()
    table = sample.append_column(_EXPECTED, pa.array(expected))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _check_parity(version: ModelVersion, predictor: Predictor, stored: bytes) -> None:
    with pa.ipc.open_stream(pa.BufferReader(stored)) as reader:
        table = reader.read_all()
    found = predictor.predict(table.drop_columns([_EXPECTED]))
    expected = table[_EXPECTED].to_numpy()
    if not np.allclose(found, expected, rtol=PARITY_TOLERANCE, atol=PARITY_TOLERANCE, equal_nan=True):
        at = int(np.nanargmax(np.abs(found - expected)))
        raise CorruptionError(
            f"Model version {version.version!r} fails its parity test: it scores {found[at]!r} where training gave "
            f"{expected[at]!r}.",
            where=f"row {at} of {len(expected)}; trained with {_environment(version.environment)}",
            mend="install the libraries it was trained with, or train again",
        )


def _rows(table: pa.Table) -> list[tuple[Scalar, ...]]:
    """Rows as a request has them: an instant is an integer."""
    plain = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in table.columns
    ]
    return list(zip(*(column.to_pylist() for column in plain), strict=True))


def _environment(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
