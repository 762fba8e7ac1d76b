"""Every aggregate by the name authors write. To add one: a module beside this file, a line here, a naive twin
in `kernels.oracle`."""

from __future__ import annotations

from volano.kernels.aggregates.algebra import EVERY_TYPE, LISTABLE, Aggregate, Fold, floating

_INTEGER_TOTAL = Fold("integer_total", "integer_total", 2, "int64", "int64", any_order=True)


def _extreme(module: str) -> dict[str, Fold]:
    exact = Fold(f"integer_{module}", f"integer_{module}", 1, "int64", "same", any_order=True)
    return {
        "float64": Fold(module, module, 1, "float64", "float64", any_order=True),
        "int64": exact,
        "bool": exact,
        "timestamp": exact,
    }


_ALL = (
    Aggregate("count", "count", {}, columns=(0, 1), output="int64"),
    Aggregate("sum", "fold", {**floating("total"), "int64": _INTEGER_TOTAL, "bool": _INTEGER_TOTAL}),
    Aggregate("mean", "fold", floating("mean", fold="total")),
    Aggregate(
        "rate", "fold", floating("rate", fold="total"), params=("prior", "weight"), optional_params=True
    ),
    Aggregate("ratio", "fold", floating("ratio", words=2), columns=(2,)),
    Aggregate("min", "fold", _extreme("least")),
    Aggregate("max", "fold", _extreme("greatest")),
    Aggregate("var", "fold", floating("var", fold="moments", words=3)),
    Aggregate("std", "fold", floating("std", fold="moments", words=3)),
    Aggregate("var_pop", "fold", floating("var_pop", fold="moments", words=3)),
    Aggregate("std_pop", "fold", floating("std_pop", fold="moments", words=3)),
    Aggregate("first", "first", {}, skip_nulls=False),
    Aggregate("last", "last", {}, skip_nulls=False),
    Aggregate("last_non_null", "last", {}),
    Aggregate("first_n", "first_n", {}, output="list"),
    Aggregate("last_n", "last_n", {}, output="list"),
    Aggregate("time_since_last", "since", {}, columns=(0, 1), output="float64"),
    Aggregate("count_distinct", "distinct", {}, output="int64"),
)

AGGREGATES: dict[str, Aggregate] = {a.name: a for a in _ALL}

PICKS = ("count", "first", "last", "since", "first_n", "last_n")
"""The kinds that need positions only; the place of each is the code that compiled kernels dispatch on."""

FOLDS: tuple[Fold, ...] = tuple(
    sorted({f for a in _ALL for f in a.folds.values()}, key=lambda f: (f.fold, f.module, f.output))
)
"""Every way of folding; its position is the code that compiled kernels dispatch on."""

FOLD_NAMES: tuple[str, ...] = tuple(sorted({f.fold for f in FOLDS}))

__all__ = ["AGGREGATES", "EVERY_TYPE", "FOLDS", "FOLD_NAMES", "LISTABLE", "PICKS", "Aggregate", "Fold"]
