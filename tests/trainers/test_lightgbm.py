"""The LightGBM trainer: deterministic, the same bits one by one and in batch, and what the package itself would say."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from volano.errors import CorruptionError, DefinitionError, StateMismatchError, UnsupportedError
from volano.trainers.lightgbm import LightGbmTrainer

TRAINER = LightGbmTrainer()
QUICK = {"objective": "binary", "n_estimators": 12, "num_threads": 1}


def rows(n: int = 3_000, seed: int = 0) -> tuple[pa.Table, pa.Array]:
    random = np.random.default_rng(seed)
    x, z = random.normal(size=n), random.normal(size=n)
    word = random.choice(["ORD", "JFK", "SFO"], n)
    table = pa.table(
        {
            "x": pa.array(x, mask=random.random(n) < 0.1),
            "n": pa.array(random.integers(0, 2**40, n)),
            "word": pa.array(word, mask=random.random(n) < 0.1),
            "flag": pa.array(random.random(n) < 0.5, mask=random.random(n) < 0.1),
            "at": pa.array(random.integers(0, 10**15, n), pa.timestamp("us", "UTC")),
        }
    )
    return table, pa.array(x + (word == "ORD") + z > 0.5)


TABLE, LABEL = rows()
ARTIFACT = TRAINER.fit(TABLE, LABEL, params=QUICK, seed=3).artifact


def python_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    at = table.column_names.index("at")
    plain = table.set_column(at, "at", table["at"].cast(pa.int64()))  # instants are integers in a request
    return [tuple(row.values()) for row in plain.to_pylist()]


def test_same_rows_parameters_and_seed_give_the_same_bytes() -> None:
    assert TRAINER.fit(TABLE, LABEL, params=QUICK, seed=3).artifact == ARTIFACT


def test_the_number_of_threads_changes_no_tree() -> None:
    two = TRAINER.fit(TABLE, LABEL, params={**QUICK, "num_threads": 2}, seed=3).artifact
    trees = [artifact.partition(b"Tree=0")[2].partition(b"end of trees")[0] for artifact in (ARTIFACT, two)]
    assert trees[0]
    assert trees[0] == trees[1]


def test_the_layout_of_a_column_changes_no_tree() -> None:
    at = TABLE.column_names.index("word")
    coded = TABLE.set_column(at, "word", TABLE["word"].dictionary_encode())
    pieces = pa.concat_tables([coded.slice(0, 7), coded.slice(7)])
    assert TRAINER.fit(pieces, LABEL, params=QUICK, seed=3).artifact == ARTIFACT


def test_one_row_gives_the_same_bits_as_many() -> None:
    predictor = TRAINER.load(ARTIFACT, "")
    fresh, _ = rows(500, seed=9)
    one_by_one = [predictor.predict_one(row) for row in python_rows(fresh)]
    assert predictor.predict(fresh).tolist() == one_by_one


def test_scores_equal_the_package_s_own() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    text = ARTIFACT.split(b"\n", 2)[2].decode()
    words = ["JFK", "ORD", "SFO"]
    matrix = np.column_stack(
        [
            TABLE["x"].fill_null(np.nan).to_numpy(),
            TABLE["n"].to_numpy().astype(float),
            [words.index(word) if word else np.nan for word in TABLE["word"].to_pylist()],
            [np.nan if flag is None else float(flag) for flag in TABLE["flag"].to_pylist()],
            TABLE["at"].cast(pa.int64()).to_numpy().astype(float),
        ]
    )
    expected = lightgbm.Booster(model_str=text).predict(matrix)
    assert TRAINER.load(ARTIFACT, "").predict(TABLE).tolist() == expected.tolist()


def test_it_learns_from_numbers_and_from_categories() -> None:
    predictor = TRAINER.load(ARTIFACT, "")
    low, high, other = (-1.0, 5, "SFO", True, 0), (1.0, 5, "SFO", True, 0), (-1.0, 5, "ORD", True, 0)
    scores = [predictor.predict_one(row) for row in (low, high, other)]
    assert scores[0] < scores[1]
    assert scores[0] < scores[2]


def test_a_category_never_seen_is_as_good_as_missing() -> None:
    predictor = TRAINER.load(ARTIFACT, "")
    assert predictor.predict_one((0.0, 1, "???", True, 0)) == predictor.predict_one((0.0, 1, None, True, 0))


def test_nulls_throughout_still_get_a_score() -> None:
    assert 0.0 < TRAINER.load(ARTIFACT, "").predict_one((None, None, None, None, None)) < 1.0


def test_no_rows_give_no_scores() -> None:
    assert TRAINER.load(ARTIFACT, "").predict(TABLE.slice(0, 0)).shape == (0,)


def test_many_threads_share_a_predictor() -> None:
    predictor = TRAINER.load(ARTIFACT, "")
    wanted = python_rows(TABLE.slice(0, 200))
    expected = [predictor.predict_one(row) for row in wanted]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: [predictor.predict_one(row) for row in wanted], range(16)))
    assert all(result == expected for result in results)


def test_a_weight_counts_like_copies_of_the_row() -> None:
    weight = pa.array(np.where(np.arange(3_000) % 2, 1.0, 3.0))
    weighted = TRAINER.load(TRAINER.fit(TABLE, LABEL, params=QUICK, seed=3, weight=weight).artifact, "")
    assert weighted.predict(TABLE).tolist() != TRAINER.load(ARTIFACT, "").predict(TABLE).tolist()


def test_regression_learns_a_number() -> None:
    target = pa.array(np.nan_to_num(TABLE["x"].to_numpy()) * 100)
    trained = TRAINER.fit(TABLE, target, params={**QUICK, "objective": "regression"}, seed=1)
    scores = TRAINER.load(trained.artifact, "").predict(TABLE)
    assert np.corrcoef(scores, target.to_numpy())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "'objective' is missing"),
        ({"objective": "multiclass"}, "gives no single score"),
        ({"objective": "binary", "num_leafs": 31}, "did you mean 'num_leaf'"),
        ({"objective": "binary", "deterministic": False}, "set by the platform"),
        ({"objective": "binary", "data": "x.csv"}, "set by the platform"),
        ({"objective": "binary", "num_leaves": 9, "max_leaves": 8}, "same parameter"),
        ({"objective": "binary", "num_leaves": object()}, "pass a number"),
        ({"objective": "binary", "n_estimators": 0}, "whole number from 1"),
        ({"objective": "binary", "num_leaves": 1}, "num_leaves"),
    ],
)
def test_a_wrong_parameter_is_the_author_s_mistake(params: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        TRAINER.fit(TABLE, LABEL, params=params, seed=0)


def test_a_list_column_is_refused_by_name() -> None:
    table = pa.table({"seen": pa.array([[1.0]])})
    with pytest.raises(UnsupportedError, match="'seen'"):
        TRAINER.fit(table, pa.array([True]), params=QUICK, seed=0)


def test_a_row_of_another_width_names_the_inputs() -> None:
    predictor = TRAINER.load(ARTIFACT, "")
    with pytest.raises(StateMismatchError, match="reads 5 inputs and was given 2"):
        predictor.predict_one((1.0, 2))
    with pytest.raises(StateMismatchError):
        predictor.predict(TABLE.select(["x"]))


@pytest.mark.parametrize(
    "artifact", [b"", b"pickle", ARTIFACT[:18] + b"{\n", ARTIFACT[:200], ARTIFACT[:1_000]]
)
def test_bytes_that_are_no_artifact_are_corrupt(artifact: bytes) -> None:
    with pytest.raises(CorruptionError):
        TRAINER.load(artifact, "model")


def test_a_null_label_is_refused_and_never_a_negative() -> None:
    with pytest.raises(UnsupportedError, match="null"):
        TRAINER.fit(TABLE.slice(0, 2), pa.array([True, None]), params=QUICK, seed=0)


def test_serving_never_imports_the_package() -> None:
    script = (
        "import sys; from volano.trainers.lightgbm import LightGbmTrainer\n"
        "predictor = LightGbmTrainer().load(open(sys.argv[1], 'rb').read(), '')\n"
        "print(predictor.predict_one((0.0, 1, 'ORD', True, 0)))\n"
        "assert not {'lightgbm', 'sklearn', 'pandas', 'scipy'} & set(sys.modules)\n"
    )
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(ARTIFACT)
        file.flush()
        answer = subprocess.run(
            [sys.executable, "-c", script, file.name], capture_output=True, text=True, check=True
        ).stdout
    assert float(answer) == TRAINER.load(ARTIFACT, "").predict_one((0.0, 1, "ORD", True, 0))
