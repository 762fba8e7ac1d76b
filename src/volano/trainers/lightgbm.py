"""LightGBM through its C interface: trains deterministically, serves one row in a few microseconds.

The Python package is never imported (that takes a second and more); only the shared library that it ships is loaded.
The artifact is one line of JSON (columns, categories) and LightGBM's own model text: readable for ever, no pickle.
Decision 0020 has the reasons.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volano.errors import CorruptionError, MissingExtraError, UnsupportedError
from volano.protocols.trainer import Trained
from volano.trainers.inputs import Column, RowCodec, learn_columns, to_matrix
from volano.trainers.params import raise_mistakes, refuse_unknown
from volano.values.identities import digest
from volano.values.schema import Scalar

_MAGIC: Final = b"volano-lightgbm-1\n"
_FLOAT32: Final = 0
_FLOAT64: Final = 1
_NORMAL_SCORE: Final = 0
_LIBRARIES: Final = ("lib_lightgbm.so", "lib_lightgbm.dylib", "lib_lightgbm.dll")

_OBJECTIVES: Final = frozenset(
    """binary cross_entropy xentropy cross_entropy_lambda regression l2 mse mean_squared_error l2_root rmse
    root_mean_squared_error regression_l1 l1 mae mean_absolute_error huber fair poisson quantile mape gamma
    tweedie""".split()  # noqa: SIM905 - a line a name would fill a page
)
_FIXED: Final = {
    "deterministic": "true",
    "force_row_wise": "true",
    "force_col_wise": "false",
    "verbosity": "-1",
    "feature_pre_filter": "false",
}
_OURS: Final = frozenset(
    """config task data valid tree_learner device_type num_machines local_listen_port time_out machines
    machine_list_filename seed input_model output_model saved_feature_importance_type snapshot_freq header two_round
    label_column weight_column group_column ignore_column categorical_feature save_binary output_result
    convert_model_language convert_model parser_config_file gpu_platform_id gpu_device_id gpu_device_id_list gpu_use_dp
    metric early_stopping_round early_stopping_min_delta num_class""".split()  # noqa: SIM905 - as above
)
"""Parameters that the platform sets, or that make no sense inside it."""


class _Header(msgspec.Struct, frozen=True):
    """First line of an artifact. LightGBM crashes on a damaged text, so its digest is checked first."""

    columns: tuple[Column, ...]
    text_digest: str


class LightGbmTrainer:
    """Gradient-boosted trees. Two threads unless `num_threads` says otherwise; their number changes no tree."""

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
            params: LightGBM's own, under any of its aliases; `objective` is needed.

        Raises:
            DefinitionError: a parameter is unknown, reserved, or has a value that LightGBM refuses.
            UnsupportedError: a column is a list.
        """
        settings = _settings(params, seed)
        columns = learn_columns(features)
        settings["categorical_feature"] = ",".join(
            str(at) for at, column in enumerate(columns) if column.categories is not None
        )
        rounds = int(settings["num_iterations"])
        text = _train(to_matrix(columns, features), _floats(label), weight, settings, rounds)
        header = msgspec.json.encode(_Header(columns, digest(text)))
        return Trained(_MAGIC + header + b"\n" + text, {"rounds": float(rounds)})

    def load(self, artifact: bytes, path: str) -> LightGbmPredictor:
        """A predictor of an artifact.

        Raises:
            CorruptionError: the bytes are no artifact of this trainer.
        """
        if not artifact.startswith(_MAGIC):
            raise CorruptionError("The artifact is not one of the LightGBM trainer.", where=path)
        line, _, text = artifact[len(_MAGIC) :].partition(b"\n")
        try:
            header = msgspec.json.decode(line, type=_Header)
        except msgspec.DecodeError as error:
            raise CorruptionError("The artifact's header cannot be read.", where=path) from error
        if digest(text) != header.text_digest:
            raise CorruptionError("The artifact's model does not match its digest.", where=path)
        return LightGbmPredictor(header.columns, text)

    def environment(self) -> Mapping[str, str]:
        """The version of LightGBM."""
        _library()
        return {"lightgbm": version("lightgbm")}


class LightGbmPredictor:
    """A loaded booster. Each thread has its own row buffer; the booster itself is only read."""

    def __init__(self, columns: tuple[Column, ...], text: bytes) -> None:
        self._library = _library()
        self._columns = columns
        self._codec = RowCodec(columns)
        self._rows = threading.local()
        self._booster = ctypes.c_void_p()
        rounds = ctypes.c_int()
        _call("LGBM_BoosterLoadModelFromString", text, ctypes.byref(rounds), ctypes.byref(self._booster))

    def predict(self, features: pa.Table) -> NDArray[np.float64]:
        """Scores of many rows, shape (n_rows,)."""
        matrix = to_matrix(self._columns, features)
        n_columns, n_rows = matrix.shape
        scores = np.empty(n_rows)
        if not n_rows:
            return scores
        written = ctypes.c_int64()
        _call(
            "LGBM_BoosterPredictForMat",
            self._booster,
            matrix.ctypes.data_as(ctypes.c_void_p),
            _FLOAT64,
            ctypes.c_int32(n_rows),
            ctypes.c_int32(n_columns),
            0,  # column-major
            _NORMAL_SCORE,
            0,
            -1,
            b"num_threads=2",
            ctypes.byref(written),
            scores.ctypes.data_as(ctypes.c_void_p),
        )
        return scores

    def predict_one(self, features: Sequence[Scalar]) -> float:
        """The score of one row."""
        try:
            row: _Row = self._rows.row
        except AttributeError:
            row = self._rows.row = _Row(self._booster, len(self._columns))
        return row.score(self._codec.numbers(features))

    def __del__(self) -> None:
        if getattr(self, "_booster", None):
            self._library.LGBM_BoosterFree(self._booster)


class _Row:
    """One thread's buffers for the single-row call, prepared once."""

    def __init__(self, booster: ctypes.c_void_p, n_columns: int) -> None:
        self._buffer = (ctypes.c_double * n_columns)()
        self._pack = struct.Struct(f"{n_columns}d").pack_into
        self._score = ctypes.c_double()
        self._fast = ctypes.c_void_p()
        written = ctypes.c_int64()
        _call(
            "LGBM_BoosterPredictForMatSingleRowFastInit",
            booster,
            _NORMAL_SCORE,
            0,
            -1,
            _FLOAT64,
            ctypes.c_int32(n_columns),
            b"num_threads=1",
            ctypes.byref(self._fast),
        )
        # The call takes a microsecond: releasing and taking back the interpreter's lock would cost as much.
        self._call = _library_with_lock().LGBM_BoosterPredictForMatSingleRowFast
        self._free = _library().LGBM_FastConfigFree
        self._keep = written
        self._arguments = (self._fast, self._buffer, ctypes.byref(written), ctypes.byref(self._score))

    def score(self, numbers: list[Any]) -> float:
        self._pack(self._buffer, 0, *numbers)
        if self._call(*self._arguments):
            raise _failure("LGBM_BoosterPredictForMatSingleRowFast")
        return self._score.value

    def __del__(self) -> None:
        if getattr(self, "_free", None):
            self._free(self._fast)


def _train(
    matrix: NDArray[np.float64],
    label: NDArray[np.float32],
    weight: pa.Array | None,
    settings: Mapping[str, str],
    rounds: int,
) -> bytes:
    n_columns, n_rows = matrix.shape
    text = " ".join(f"{name}={value}" for name, value in settings.items() if value).encode()
    dataset, booster = ctypes.c_void_p(), ctypes.c_void_p()
    try:
        _call(
            "LGBM_DatasetCreateFromMat",
            matrix.ctypes.data_as(ctypes.c_void_p),
            _FLOAT64,
            ctypes.c_int32(n_rows),
            ctypes.c_int32(n_columns),
            0,  # column-major
            text,
            None,
            ctypes.byref(dataset),
        )
        _set_field(dataset, b"label", label)
        if weight is not None:
            _set_field(dataset, b"weight", _floats(weight))
        _call("LGBM_BoosterCreate", dataset, text, ctypes.byref(booster))
        finished = ctypes.c_int()
        for _ in range(rounds):
            _call("LGBM_BoosterUpdateOneIter", booster, ctypes.byref(finished))
            if finished.value:  # no split is worth it any more
                break
        return _model_text(booster)
    except UnsupportedError as error:
        raise_mistakes("lightgbm", [error.what])
        raise
    finally:
        if booster:
            _library().LGBM_BoosterFree(booster)
        if dataset:
            _library().LGBM_DatasetFree(dataset)


def _set_field(dataset: ctypes.c_void_p, name: bytes, values: NDArray[np.float32]) -> None:
    _call(
        "LGBM_DatasetSetField",
        dataset,
        name,
        values.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int(len(values)),
        _FLOAT32,
    )


def _model_text(booster: ctypes.c_void_p) -> bytes:
    size = 1 << 20
    while True:
        buffer, needed = ctypes.create_string_buffer(size), ctypes.c_int64()
        _call(
            "LGBM_BoosterSaveModelToString",
            booster,
            0,
            -1,
            0,
            ctypes.c_int64(size),
            ctypes.byref(needed),
            buffer,
        )
        if needed.value <= size:
            return buffer.value
        size = needed.value


def _floats(values: pa.Array) -> NDArray[np.float32]:
    plain = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
    if plain.null_count:
        raise UnsupportedError("A label or a weight is null.", mend="train on mature labels only")
    numbers = plain.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(numbers, dtype=np.float32)


def _settings(params: Mapping[str, Any], seed: int) -> dict[str, str]:
    """Every parameter by its canonical name, the author's beside ours."""
    canonical, names = _parameter_names()
    refuse_unknown("lightgbm", params, names)
    settings = {"num_iterations": "100", "num_threads": "2"}
    mistakes = []
    seen: dict[str, str] = {}
    for name, value in params.items():
        main = canonical[name]
        if main in _OURS or main in _FIXED:
            mistakes.append(f"{name!r} is set by the platform")
        elif main in seen:
            mistakes.append(f"{name!r} and {seen[main]!r} are the same parameter")
        elif not isinstance(value, bool | int | float | str | list | tuple):
            mistakes.append(
                f"{name!r} is a {type(value).__name__}; pass a number, a bool, text or a list of them"
            )
        else:
            settings[main] = _written(value)
        seen[main] = name
    mistakes += _objective_mistakes(settings)
    if not settings["num_iterations"].isdigit() or int(settings["num_iterations"]) < 1:
        mistakes.append(
            f"num_iterations is {settings['num_iterations']}; it must be a whole number from 1 on"
        )
    if mistakes:
        raise_mistakes("lightgbm", mistakes)
    # A seed is a C int; the author's may be any integer.
    return settings | _FIXED | {"seed": str(seed % 2**31)}


def _objective_mistakes(settings: Mapping[str, str]) -> list[str]:
    objective = settings.get("objective")
    if objective in _OBJECTIVES:
        return []
    said = "'objective' is missing" if objective is None else f"objective {objective!r} gives no single score"
    return [f"{said}; use binary, regression, or another one of {', '.join(sorted(_OBJECTIVES))}"]


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(_written(item) for item in value)
    return str(value).replace(" ", "")


@cache
def _parameter_names() -> tuple[dict[str, str], frozenset[str]]:
    """Alias -> canonical name, from the library itself, and all names."""
    size = 1 << 16
    buffer, needed = ctypes.create_string_buffer(size), ctypes.c_int64()
    _call("LGBM_DumpParamAliases", ctypes.c_int64(size), ctypes.byref(needed), buffer)
    aliases: dict[str, list[str]] = msgspec.json.decode(buffer.value)
    canonical = {name: main for main, names in aliases.items() for name in (main, *names)}
    return canonical, frozenset(canonical)


def _call(function: str, *arguments: Any) -> None:
    if getattr(_library(), function)(*arguments):
        raise _failure(function)


def _failure(function: str) -> UnsupportedError:
    return UnsupportedError(f"LightGBM: {_library().LGBM_GetLastError().decode()}", where=function)


@cache
def _library() -> ctypes.CDLL:
    path = _library_path()
    with _patient_threads():
        library = ctypes.CDLL(path)
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library


@contextmanager
def _patient_threads() -> Iterator[None]:
    """OpenMP reads its waiting policy when it is loaded. By default a thread that waits spins, and when anything else
    wants the core, training takes ten times as long (measured: 36 s against 3 s). So it sleeps; a policy that the
    environment already names stands."""
    named = os.environ.get("OMP_WAIT_POLICY")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        yield
    finally:
        if named is None:
            del os.environ["OMP_WAIT_POLICY"]


@cache
def _library_with_lock() -> ctypes.PyDLL:
    _library()  # loads it with the right policy
    return ctypes.PyDLL(_library_path())


def _library_path() -> str:
    spec = importlib.util.find_spec("lightgbm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in _LIBRARIES:
            path = Path(folder) / "lib" / name
            if path.exists():
                return str(path)
    raise MissingExtraError(
        "LightGBM is not installed, or without its shared library.", mend="pip install 'volano[lightgbm]'"
    )
