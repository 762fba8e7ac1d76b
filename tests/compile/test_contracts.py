"""Tables that compile shares with the kernels without importing them."""

from __future__ import annotations

from itertools import product

import pytest

from volano.compile.aggregates import RULES
from volano.compile.lower.decisions import METRICS
from volano.errors import DefinitionError
from volano.kernels.aggregates import AGGREGATES
from volano.kernels.features import WindowFeature
from volano.kernels.metrics import METRICS as KERNEL_METRICS
from volano.values.schema import DType

SCALARS = (DType.BOOL, DType.INT64, DType.FLOAT64, DType.STRING, DType.TIMESTAMP)


def test_gates_know_the_metrics_of_the_kernels():
    assert set(METRICS) == set(KERNEL_METRICS)


@pytest.mark.parametrize(("name", "dtype"), list(product(sorted(set(RULES) & set(AGGREGATES)), SCALARS)))
def test_aggregates_take_and_give_the_types_of_the_kernels(name, dtype):
    over = "x" if name == "ratio" else None
    n = 3 if name.endswith("_n") else None
    feature = WindowFeature("f", name, "x", window_us=1, over=over, n=n)
    try:
        expected = DType(feature.output_type({"x": dtype.value}))
    except DefinitionError:
        expected = None
    assert RULES[name].output(dtype) == expected
