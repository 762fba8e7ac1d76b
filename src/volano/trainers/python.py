"""An author's own trainer: two functions of the bundle, bytes in between. The author chooses the format of the bytes.

`train(features, label, params, seed) -> bytes` and `predict(artifact, features) -> scores`; `features` is an Arrow
table whose columns are the model's inputs, in order. The functions come wrapped: what they raise is an AuthorCodeError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volano.errors import AuthorCodeError, CorruptionError, UnsupportedError
from volano.protocols.trainer import Trained
from volano.values.schema import Scalar

Train = Callable[[pa.Table, pa.Array, Mapping[str, Any], int], bytes]
Predict = Callable[[bytes, pa.Table], Any]

_MAGIC: Final = b"volano-python-1\n"
_LENGTH_BYTES: Final = 8


class PythonTrainer:
    """Calls an author's functions and holds them to their contract.

    Args:
        train: makes the artifact.
        predict: scores with it.
    """

    def __init__(self, train: Train, predict: Predict) -> None:
        self._train = train
        self._predict = predict

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

        Raises:
            AuthorCodeError: the function raised, or returned no bytes.
            UnsupportedError: weights were given; the function takes none.
        """
        if weight is not None:
            raise UnsupportedError("An author's trainer takes no weights.", mend="use another trainer")
        made = self._train(features, label, dict(params), seed)
        if not isinstance(made, bytes):
            raise AuthorCodeError(
                f"The trainer returned {type(made).__name__}; it must return bytes.",
                where=getattr(self._train, "__qualname__", "train"),
                mend="return the model in a format of your choice, such as JSON or ONNX; not a pickle",
            )
        schema = features.schema.serialize().to_pybytes()
        return Trained(_MAGIC + len(schema).to_bytes(_LENGTH_BYTES, "big") + schema + made, {})

    def load(self, artifact: bytes, path: str) -> PythonPredictor:
        """A predictor of an artifact.

        Raises:
            CorruptionError: the bytes are no artifact of this trainer.
        """
        if not artifact.startswith(_MAGIC):
            raise CorruptionError("The artifact is not one of an author's trainer.", where=path)
        start = len(_MAGIC) + _LENGTH_BYTES
        end = start + int.from_bytes(artifact[len(_MAGIC) : start], "big")
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(artifact[start:end]))
        except (pa.ArrowInvalid, OSError, EOFError) as error:
            raise CorruptionError("The artifact's header cannot be read.", where=path) from error
        return PythonPredictor(schema, artifact[end:], self._predict)

    def environment(self) -> Mapping[str, str]:
        """Nothing that we know of: the bundle holds the project's lock."""
        return {}


class PythonPredictor:
    """Calls the author's `predict`; one row is a table of one row."""

    def __init__(self, schema: pa.Schema, model: bytes, predict: Predict) -> None:
        self._schema = schema
        self._model = model
        self._predict = predict

    def predict(self, features: pa.Table) -> NDArray[np.float64]:
        """Scores of many rows, shape (n_rows,).

        Raises:
            AuthorCodeError: the function raised, or returned something else than one number a row.
        """
        answer = self._predict(self._model, features)
        try:
            scores = np.asarray(answer, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self._wrong(f"{type(answer).__name__}", features.num_rows) from error
        if scores.shape != (features.num_rows,):
            raise self._wrong(f"an array of shape {scores.shape}", features.num_rows)
        return scores

    def predict_one(self, features: Sequence[Scalar]) -> float:
        """The score of one row."""
        columns = [pa.array([value], field.type) for value, field in zip(features, self._schema, strict=True)]
        return float(self.predict(pa.table(columns, schema=self._schema))[0])

    def _wrong(self, what: str, n_rows: int) -> AuthorCodeError:
        return AuthorCodeError(
            f"The predictor returned {what} for {n_rows} rows.",
            where=getattr(self._predict, "__qualname__", "predict"),
            mend="return one number a row",
        )
