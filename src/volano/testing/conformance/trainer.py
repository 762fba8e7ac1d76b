"""What every trainer must do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from volano.errors import CorruptionError, VolanoError
from volano.protocols.trainer import Trainer
from volano.testing.conformance.processes import resolve
from volano.values.schema import Scalar


class TrainerConformance:
    """Subclass it and name `trainer`, called without arguments, and `params` for a bool label.

    Override `open` when the trainer needs arguments.
    """

    trainer: ClassVar[str]
    params: ClassVar[Mapping[str, Any]]

    def open(self) -> Trainer:
        opened: Trainer = resolve(self.trainer)()
        return opened

    def trained(self, n: int = 600) -> bytes:
        """An artifact of the suite's rows."""
        features, label = rows(n)
        return self.open().fit(features, label, params=self.params, seed=7).artifact

    def test_the_same_rows_and_seed_give_the_same_bytes(self) -> None:
        """Training is deterministic on one machine."""
        assert self.trained() == self.trained()

    def test_one_row_gives_the_same_bits_as_many(self) -> None:
        """What is served is what was evaluated: `predict_one` and `predict` agree to the bit, in any order."""
        predictor = self.open().load(self.trained(), "")
        features, _ = rows(200, seed=1)
        scores = predictor.predict(features)
        assert scores.shape == (200,)
        assert scores.dtype == np.float64
        assert scores.tolist() == [predictor.predict_one(row) for row in as_requests(features)]
        assert scores[::-1].tolist() == predictor.predict(features.take(np.arange(200)[::-1])).tolist()

    def test_scores_of_a_bool_label_are_probabilities(self) -> None:
        """They lie in [0, 1], also for rows that are null throughout or hold what training never saw."""
        predictor = self.open().load(self.trained(), "")
        strange: list[tuple[Scalar, ...]] = [
            (None,) * 4,
            (1e300, 2**40, "never seen", False),
            (-1e300, 0, "", None),
        ]
        for row in strange:
            assert 0.0 <= predictor.predict_one(row) <= 1.0

    def test_no_rows_give_no_scores(self) -> None:
        """An empty table is scored, with nothing."""
        assert self.open().load(self.trained(), "").predict(rows(0)[0]).shape == (0,)

    def test_the_layout_of_columns_does_not_count(self) -> None:
        """Chunks and dictionaries are no content."""
        features, _ = rows(100)
        at = features.column_names.index("word")
        coded = features.set_column(at, "word", features["word"].dictionary_encode())
        pieces = pa.concat_tables([coded.slice(0, 33), coded.slice(33)])
        predictor = self.open().load(self.trained(), "")
        assert predictor.predict(pieces).tolist() == predictor.predict(features).tolist()

    def test_a_null_label_is_no_negative(self) -> None:
        """Nulls among the labels are refused."""
        features, label = rows(50)
        holes = pa.array([None, *label.to_pylist()[1:]])
        with pytest.raises(VolanoError):
            self.open().fit(features, holes, params=self.params, seed=7)

    @pytest.mark.parametrize("damaged", [b"", b"\x80\x04.", b"x" * 100])
    def test_foreign_bytes_are_corrupt(self, damaged: bytes) -> None:
        """What is no artifact of this trainer is told, and never unpickled."""
        with pytest.raises(CorruptionError):
            self.open().load(damaged, "model")

    def test_the_environment_names_versions(self) -> None:
        """What the result depends on is recorded as text."""
        assert all(isinstance(value, str) and value for value in self.open().environment().values())


def rows(n: int, seed: int = 0) -> tuple[pa.Table, pa.Array]:
    """Rows of a number, an integer, a text and a bool, with nulls in three of them, and a label that can be learnt."""
    random = np.random.default_rng(seed)
    x = random.normal(size=n)
    word = random.choice(["ORD", "JFK", "SFO"], n) if n else np.array([], dtype=str)
    features = pa.table(
        {
            "x": pa.array(x, mask=random.random(n) < 0.1),
            "n": pa.array(random.integers(0, 100, n)),
            "word": pa.array(word, pa.string(), mask=random.random(n) < 0.1),
            "flag": pa.array(random.random(n) < 0.5, mask=random.random(n) < 0.1),
        }
    )
    return features, pa.array(x + (word == "ORD") + random.normal(size=n) > 0.5)


def as_requests(features: pa.Table) -> list[tuple[Scalar, ...]]:
    """Rows as a request holds them."""
    return [tuple(row.values()) for row in features.to_pylist()]
