"""scikit-learn estimators, stored as their numbers and scored by our own arithmetic: no pickle, no import to serve.

Linear models and histogram gradient boosting. `fit` takes the fitted estimator apart, then proves on the training
rows that our scores are scikit-learn's. One row and many rows go through the same operations in the same order, so
they agree to the bit. The artifact is a line of JSON and an Arrow table. Decision 0020 has the reasons.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import CorruptionError, InvariantError, UnsupportedError
from volano.protocols.trainer import Predictor, Trained
from volano.trainers.inputs import Column, RowCodec, learn_columns, to_matrix
from volano.trainers.params import raise_mistakes, refuse_unknown
from volano.values.schema import Scalar

Floats = NDArray[np.float64]

_MAGIC: Final = b"volano-sklearn-1\n"
_LINEAR: Final = {
    "LogisticRegression": "linear_model",
    "LinearRegression": "linear_model",
    "Ridge": "linear_model",
    "Lasso": "linear_model",
    "ElasticNet": "linear_model",
}
_TREES: Final = {
    "HistGradientBoostingClassifier": "ensemble",
    "HistGradientBoostingRegressor": "ensemble",
}
_CLASSIFIERS: Final = frozenset({"LogisticRegression", "HistGradientBoostingClassifier"})
_OURS: Final = frozenset(
    {"random_state", "n_jobs", "verbose", "warm_start", "categorical_features", "class_weight", "multi_class"}
)
_MOST_CATEGORIES: Final = 250
"""Histogram boosting takes at most 255 categories; rarer ones are missing."""
_PARITY_TOLERANCE: Final = 1e-9


class _Header(msgspec.Struct, frozen=True):
    estimator: str
    columns: tuple[Column, ...]
    intercept: float


class SklearnTrainer:
    """An estimator by its class name. Linear models get standardised numbers and one-hot text; nulls are allowed."""

    def fit(
        self,
        features: pa.Table,
        label: pa.Array,
        *,
        params: Mapping[str, Any],
        seed: int,
        weight: pa.Array | None = None,
    ) -> Trained:
        """Train; see `protocols.trainer.Trainer.fit`.

        Args:
            params: `estimator` and that estimator's own parameters.

        Raises:
            DefinitionError: no such estimator here, or a parameter that it does not take.
            InvariantError: our scores differ from scikit-learn's: this release of it is not understood.
        """
        name, estimator = _estimator(params, seed)
        columns = learn_columns(features)
        target = _target(name, label)
        weights = None if weight is None else weight.cast(pa.float64()).to_numpy(zero_copy_only=False)
        fit = _fit_linear if name in _LINEAR else _fit_trees
        columns, intercept, table, expected, rounds = fit(estimator, columns, features, target, weights)
        predictor = _predictor(_Header(name, columns, intercept), table)
        found = predictor.predict(features)
        if not np.allclose(found, expected, rtol=_PARITY_TOLERANCE, atol=_PARITY_TOLERANCE):
            raise InvariantError(
                f"The scores of {name} differ from scikit-learn's by up to {np.abs(found - expected).max():g}.",
                where=f"scikit-learn {version('scikit-learn')}",
                mend="use the locked version of scikit-learn, or another trainer",
            )
        header = msgspec.json.encode(_Header(name, columns, intercept))
        return Trained(_MAGIC + header + b"\n" + _ipc(table), {"rounds": float(rounds)})

    def load(self, artifact: bytes, path: str) -> Predictor:
        """A predictor of an artifact.

        Raises:
            CorruptionError: the bytes are no artifact of this trainer.
        """
        if not artifact.startswith(_MAGIC):
            raise CorruptionError("The artifact is not one of the scikit-learn trainer.", where=path)
        line, _, body = artifact[len(_MAGIC) :].partition(b"\n")
        try:
            header = msgspec.json.decode(line, type=_Header)
            with pa.ipc.open_stream(pa.BufferReader(body)) as reader:
                table = reader.read_all()
        except (msgspec.DecodeError, pa.ArrowInvalid, OSError) as error:
            raise CorruptionError("The artifact cannot be read.", where=path) from error
        return _predictor(header, table)

    def environment(self) -> Mapping[str, str]:
        """The version of scikit-learn."""
        return {"scikit-learn": version("scikit-learn")}


def _predictor(header: _Header, table: pa.Table) -> LinearPredictor | TreesPredictor:
    logistic = header.estimator in _CLASSIFIERS
    if header.estimator in _LINEAR:
        return LinearPredictor(header.columns, header.intercept, table, logistic=logistic)
    return TreesPredictor(header.columns, header.intercept, table, logistic=logistic)


class LinearPredictor:
    """intercept + Σ (x − mean) · slope over the numbers, + a constant where missing, + a constant a category."""

    def __init__(
        self, columns: tuple[Column, ...], intercept: float, table: pa.Table, *, logistic: bool
    ) -> None:
        self._columns = columns
        self._codec = RowCodec(columns)
        self._intercept = intercept
        self._logistic = logistic
        rows = table.to_pylist()
        self._terms = [(row["mean"], row["slope"], row["missing"], row["by_category"]) for row in rows]

    def predict(self, features: pa.Table) -> Floats:
        """Scores of many rows, shape (n_rows,)."""
        total = np.full(features.num_rows, self._intercept)
        for values, (mean, slope, missing, by_category) in zip(
            to_matrix(self._columns, features), self._terms, strict=True
        ):
            null = np.isnan(values)
            if by_category is None:
                total += np.where(null, missing, (values - mean) * slope)
            elif by_category:
                codes = np.where(null, 0, values).astype(np.int64)
                total += np.where(null, missing, np.asarray(by_category)[codes])
        return _scores(total, logistic=self._logistic)

    def predict_one(self, features: Sequence[Scalar]) -> float:
        """The score of one row."""
        total = self._intercept
        for value, (mean, slope, missing, by_category) in zip(
            self._codec.numbers(features), self._terms, strict=True
        ):
            if value != value:
                total += missing
            elif by_category is None:
                total += (float(value) - mean) * slope
            else:
                total += by_category[value]
        return _logistic(total) if self._logistic else total


class TreesPredictor:
    """intercept + Σ leaf values, tree by tree."""

    def __init__(
        self, columns: tuple[Column, ...], intercept: float, table: pa.Table, *, logistic: bool
    ) -> None:
        self._columns = columns
        self._codec = RowCodec(columns)
        self._intercept = intercept
        self._logistic = logistic
        self._roots = np.flatnonzero(np.diff(table["tree"].to_pylist(), prepend=-1)).tolist()
        sets = [None if items is None else frozenset(items) for items in table["categories"].to_pylist()]
        names = ("feature", "threshold", "missing_left", "left", "right", "value")
        self._rows = [
            (*node, codes)
            for *node, codes in zip(*(table[name].to_pylist() for name in names), sets, strict=True)
        ]

    def predict(self, features: pa.Table) -> Floats:
        """Scores of many rows, shape (n_rows,)."""
        matrix = to_matrix(self._columns, features)
        total = np.full(features.num_rows, self._intercept)
        everyone = np.arange(features.num_rows)
        for root in self._roots:
            self._descend(root, everyone, matrix, total)
        return _scores(total, logistic=self._logistic)

    def _descend(self, node: int, rows: NDArray[np.int64], matrix: Floats, total: Floats) -> None:
        """Add the leaf values below a node for the rows that reach it."""
        feature, threshold, missing_left, left, right, value, codes = self._rows[node]
        if feature < 0:
            total[rows] += value
            return
        values = matrix[feature][rows]
        with np.errstate(invalid="ignore"):
            goes_left = values <= threshold if codes is None else np.isin(values, list(codes))
        null = np.isnan(values)
        goes_left[null] = missing_left
        for child, side in ((left, rows[goes_left]), (right, rows[~goes_left])):
            if len(side):
                self._descend(child, side, matrix, total)

    def predict_one(self, features: Sequence[Scalar]) -> float:
        """The score of one row."""
        numbers = self._codec.numbers(features)
        total, nodes = self._intercept, self._rows
        for root in self._roots:
            feature, threshold, missing_left, left, right, value, codes = nodes[root]
            while feature >= 0:
                x = numbers[feature]
                if x != x:
                    goes_left = missing_left
                elif codes is None:
                    goes_left = x <= threshold
                else:
                    goes_left = x in codes
                feature, threshold, missing_left, left, right, value, codes = nodes[
                    left if goes_left else right
                ]
            total += value
        return _logistic(total) if self._logistic else float(total)


def _logistic(total: float) -> float:
    """1 / (1 + e^−total), without overflow. The same function for one row and for many: same bits."""
    if total >= 0:
        return 1.0 / (1.0 + math.exp(-total))
    small = math.exp(total)
    return small / (1.0 + small)


def _scores(totals: Floats, *, logistic: bool) -> Floats:
    return np.array([_logistic(total) for total in totals.tolist()]) if logistic else totals


# --- fitting -----------------------------------------------------------------------------------------------------

_Fitted = tuple[tuple[Column, ...], float, pa.Table, Floats, int]
"""Columns, intercept, what the artifact holds, scikit-learn's own scores of the training rows, rounds."""


def _fit_linear(
    estimator: Any, columns: tuple[Column, ...], features: pa.Table, target: Floats, weights: Floats | None
) -> _Fitted:
    from scipy import sparse

    blocks, scalings = [], []
    for column, values in zip(columns, to_matrix(columns, features), strict=True):
        null = np.isnan(values)
        if column.categories is None:
            known = values[~null]
            mean, scale = (float(known.mean()), float(known.std()) or 1.0) if len(known) else (0.0, 1.0)
            standard = np.where(null, 0.0, (values - mean) / scale)
            blocks.append(sparse.csr_matrix(np.column_stack([standard, null.astype(float)])))
            scalings.append((mean, scale))
        else:
            blocks.append(_one_hot(values, null, len(column.categories)))
            scalings.append((0.0, 1.0))
    matrix = sparse.hstack(blocks, format="csr")
    rounds = _fit(estimator, matrix, target, weights)
    table = _linear_terms(columns, np.ravel(estimator.coef_), scalings)
    return columns, float(np.ravel(estimator.intercept_)[0]), table, _own_scores(estimator, matrix), rounds


def _one_hot(codes: Floats, null: NDArray[np.bool_], n_categories: int) -> Any:
    """A column a category and one for missing."""
    from scipy import sparse

    at = np.where(null, n_categories, codes).astype(np.int64)
    n = len(codes)
    return sparse.csr_matrix((np.ones(n), (np.arange(n), at)), shape=(n, n_categories + 1))


def _linear_terms(
    columns: Sequence[Column], weights: Floats, scalings: Sequence[tuple[float, float]]
) -> pa.Table:
    rows: list[dict[str, Any]] = []
    at = 0
    for column, (mean, scale) in zip(columns, scalings, strict=True):
        if column.categories is None:
            slope, missing = weights[at] / scale, weights[at + 1]
            rows.append({"mean": mean, "slope": float(slope), "missing": float(missing), "by_category": None})
            at += 2
        else:
            n = len(column.categories)
            by_category = weights[at : at + n].tolist()
            rows.append(
                {"mean": 0.0, "slope": 0.0, "missing": float(weights[at + n]), "by_category": by_category}
            )
            at += n + 1
    schema = pa.schema(
        [
            ("mean", pa.float64()),
            ("slope", pa.float64()),
            ("missing", pa.float64()),
            ("by_category", pa.list_(pa.float64())),
        ]
    )
    return pa.Table.from_pylist(rows, schema)


def _fit_trees(
    estimator: Any, columns: tuple[Column, ...], features: pa.Table, target: Floats, weights: Floats | None
) -> _Fitted:
    columns = tuple(
        _most_frequent(column, values) for column, values in zip(columns, features.columns, strict=True)
    )
    # Categorical columns first: scikit-learn would move them there, and number the features anew.
    order = sorted(range(len(columns)), key=lambda at: columns[at].categories is None)
    n_categorical = sum(column.categories is not None for column in columns)
    matrix = to_matrix(columns, features)[order].T
    matrix[:, np.isnan(matrix).all(axis=0)] = (
        0.0  # scikit-learn cannot bin nothing; a constant is never split on
    )
    estimator.set_params(categorical_features=list(range(n_categorical)) or None)
    rounds = _fit(estimator, matrix, target, weights)
    nodes = _nodes(estimator, order)
    baseline = float(np.ravel(estimator._baseline_prediction)[0])
    return columns, baseline, nodes, _own_scores(estimator, matrix), rounds


def _most_frequent(column: Column, values: pa.ChunkedArray) -> Column:
    if column.categories is None or len(column.categories) <= _MOST_CATEGORIES:
        return column
    counts = pc.value_counts(values.cast(pa.string()).drop_null()).to_pylist()
    kept = sorted(counts, key=lambda item: (-item["counts"], item["values"]))[:_MOST_CATEGORIES]
    return Column(column.name, tuple(sorted(item["values"] for item in kept)))


def _nodes(estimator: Any, order: Sequence[int]) -> pa.Table:
    """Every tree's nodes in one table; a leaf has feature −1, and children are row numbers."""
    rows: list[dict[str, Any]] = []
    for number, (tree,) in enumerate(estimator._predictors):
        start = len(rows)
        for node in tree.nodes:
            leaf = bool(node["is_leaf"])
            categories = None
            if not leaf and node["is_categorical"]:
                categories = _members(tree.raw_left_cat_bitsets[node["bitset_idx"]])
            rows.append(
                {
                    "tree": number,
                    "feature": -1 if leaf else order[int(node["feature_idx"])],
                    "threshold": float(node["num_threshold"]),
                    "missing_left": bool(node["missing_go_to_left"]),
                    "left": start + int(node["left"]),
                    "right": start + int(node["right"]),
                    "value": float(node["value"]),
                    "categories": categories,
                }
            )
    schema = pa.schema(
        [
            ("tree", pa.int32()),
            ("feature", pa.int32()),
            ("threshold", pa.float64()),
            ("missing_left", pa.bool_()),
            ("left", pa.int32()),
            ("right", pa.int32()),
            ("value", pa.float64()),
            ("categories", pa.list_(pa.int32())),
        ]
    )
    return pa.Table.from_pylist(rows, schema)


def _members(bitset: Any) -> list[int]:
    return [32 * word + bit for word, bits in enumerate(bitset) for bit in range(32) if int(bits) >> bit & 1]


def _fit(estimator: Any, matrix: Any, target: Floats, weights: Floats | None) -> int:
    """Fit; the number of rounds it took. An author's wrong value is the author's mistake."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: the evaluation shows what it is worth
        try:
            estimator.fit(matrix, target, sample_weight=weights)
        except (ValueError, TypeError) as error:
            raise_mistakes("sklearn", [str(error).split("\n")[0]])
    return int(np.max(getattr(estimator, "n_iter_", 1) or 1))


def _own_scores(estimator: Any, matrix: Any) -> Floats:
    if hasattr(estimator, "predict_proba"):
        scores: Floats = estimator.predict_proba(matrix)[:, 1]
        return scores
    return np.asarray(estimator.predict(matrix), dtype=np.float64)


def _target(name: str, label: pa.Array) -> Floats:
    plain = label.cast(pa.int8()) if pa.types.is_boolean(label.type) else label
    if plain.null_count:
        raise UnsupportedError("A label is null.", mend="train on mature labels only")
    target: Floats = plain.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if name in _CLASSIFIERS and not np.isin(target, (0.0, 1.0)).all():
        raise_mistakes("sklearn", [f"{name} needs a bool label, or 0 and 1"])
    return target


def _estimator(params: Mapping[str, Any], seed: int) -> tuple[str, Any]:
    """The estimator's name and an unfitted one.

    Raises:
        DefinitionError: an unknown estimator or parameter.
    """
    known = _LINEAR | _TREES
    name = params.get("estimator")
    if name not in known:
        said = "'estimator' is missing" if name is None else f"{name!r} is no estimator of this trainer"
        raise_mistakes("sklearn", [f"{said}; use one of {', '.join(sorted(known))}"])
    kind = getattr(importlib.import_module(f"sklearn.{known[str(name)]}"), str(name))
    takes = set(kind().get_params())
    given = {key: value for key, value in params.items() if key != "estimator"}
    refuse_unknown("sklearn", given, takes)
    ours = sorted(_OURS & given.keys())
    if ours:
        raise_mistakes("sklearn", [f"{key!r} is set by the platform" for key in ours])
    if "random_state" in takes:
        given["random_state"] = seed % 2**31
    return str(name), kind(**given)


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
