"""What an aggregate is: a small algebra over one column's values. Holds the description, no arithmetic.

An aggregate is one module with a `SPEC` and, unless it picks rows, the functions

- `init(x, y)`: the state of one row, a tuple of `words` numbers (`y` is the second column, 0.0 when there is none);
- `merge(a, b)`: the state of two adjacent runs of rows, `a` before `b`;
- `final(s, n, p0, p1)`: (value, valid) from the state of `n` rows and the two parameters.

They are compiled from their source text, so they may use arithmetic, `np` and `math`, and nothing else. `update` is
`merge(state, init(x, y))`; there is no other. No `final` and no `merge` may subtract floats that accumulated.
A module that names another's `fold` shares its `init` and `merge`, and the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Number = Literal["float64", "int64"]


@dataclass(frozen=True, slots=True)
class Fold:
    """One implementation of an aggregate for some column types.

    Args:
        module: the module under `kernels/aggregates` whose `final` it is.
        fold: the module whose `init` and `merge` it uses.
        words: how many numbers the state has.
        state: the type of those numbers, and of `init`'s arguments.
        output: the type of the value: "float64", "int64", or "same" as the column.
        any_order: whether its merge gives the same bits however rows are associated, so that no trie is needed.
    """

    module: str
    fold: str
    words: int
    state: Number
    output: Literal["float64", "int64", "same"]
    any_order: bool = False


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate as authors name it.

    Args:
        name: what authors write.
        kind: "fold" merges states; "count" counts rows; "first" and "last" pick a row, "first_n" and "last_n"
            several; "since" measures the time since the last row; "distinct" counts different values.
        folds: per column type, how it is folded; empty unless `kind` is "fold".
        columns: how many columns it takes: 0, 1 or 2.
        skip_nulls: whether rows whose column is null are left out.
        output: the value's type where no fold decides: "same" is the column's, "list" a list of the column's.
        params: the names of its parameters, at most two, in the order of `WindowFeature.params`.
        optional_params: whether the parameters may be left out.
    """

    name: str
    kind: Literal["fold", "count", "first", "last", "since", "first_n", "last_n", "distinct"]
    folds: dict[str, Fold]
    columns: tuple[int, ...] = (1,)
    skip_nulls: bool = True
    output: Literal["float64", "int64", "same", "list"] = "same"
    params: tuple[str, ...] = ()
    optional_params: bool = False


NUMBERS = ("float64", "int64", "bool")
LISTABLE = ("float64", "int64", "string")
EVERY_TYPE = ("float64", "int64", "bool", "timestamp", "string")


def floating(module: str, *, fold: str | None = None, words: int = 1) -> dict[str, Fold]:
    """The same float fold for every numeric column type."""
    return {t: Fold(module, fold or module, words, "float64", "float64") for t in NUMBERS}
