"""The functions that `kernels.compiled` writes from the aggregate files; here only their shape and meaning."""

from __future__ import annotations

from volano.kernels.arrays import F64, I64, U8, F64r, F64x2, I32x2, I64r, I64x2

ENTRY = ("build_states",)


def build_states(
    fold: int,
    xf: F64,
    xi: I64,
    y: F64,
    starts: I64,
    k0: int,
    k1: int,
    links: I32x2,
    sf: F64x2,
    si: I64x2,
    w: int,
) -> int:
    """Fill the states of all nodes of keys [k0, k1): words w, w+1, ... of `sf` or `si` (one memory), node
    number as column."""
    raise NotImplementedError("written by kernels.compiled")


def lift(
    fold: int,
    w: int,
    a: int,
    b: int,
    buf: I64r,
    floats: F64r,
    rows: I64,
    lane_rows: I64,
    x_cell: int,
    y_cell: int,
    integers: int,
    sf: F64x2,
    si: I64x2,
) -> None:
    """States of packed rows [a, b) of a lane; bit 0 of `integers` says that x is stored as an integer, bit 1
    that y is."""
    raise NotImplementedError("written by kernels.compiled")


def fold_block(
    fold: int,
    w: int,
    sf: F64x2,
    si: I64x2,
    at: I64,
    middle: I64,
    count: int,
    ids: I64,
    pops: U8,
    stack_f: F64x2,
    stack_i: I64x2,
    request_x: F64x2,
    request_xi: I64x2,
    request_y: F64x2,
    request_row: int,
    queries: I64x2,
    n: int,
    state_f: F64x2,
    state_i: I64x2,
) -> None:
    """Run a block of programs over one fold's states into `state_f` or `state_i`.

    Program b is the pieces [at[b], at[b + 1]); it folds from both ends towards `middle[b]`, or by `pops` when
    that is -1. Piece -1 is the request's own event, its values found by the caller's place.
    """
    raise NotImplementedError("written by kernels.compiled")


def fold_windows(
    fold: int,
    w: int,
    sf: F64x2,
    si: I64x2,
    begins: I64,
    ends: I64,
    b0: int,
    b1: int,
    gaps: I64,
    levels: I64,
    asked: I64,
    own_gaps: I64,
    own_x: float,
    own_xi: int,
    own_y: float,
    stack_f: F64x2,
    stack_i: I64x2,
    state_f: F64x2,
    state_i: I64x2,
) -> None:
    """Fold the rows of windows [b0, b1) over one fold's states into `state_f` or `state_i`.

    `gaps[r]` is the level between rows r - 1 and r, `own_gaps[b]` between the last row and the request's own event,
    which takes part where `asked`; `levels` and the stack are scratch.
    """
    raise NotImplementedError("written by kernels.compiled")


def finish(
    final: int,
    state_f: F64x2,
    state_i: I64x2,
    total: I64,
    count: int,
    p0: float,
    p1: float,
    out_f: F64,
    out_i: I64,
    ok: U8,
    n: int,
) -> None:
    """One `final` over a block of states of `total` rows each, into the outputs from n on."""
    raise NotImplementedError("written by kernels.compiled")


def finish_one(
    final: int,
    f0: float,
    f1: float,
    f2: float,
    f3: float,
    i0: int,
    i1: int,
    i2: int,
    i3: int,
    total: int,
    p0: float,
    p1: float,
) -> tuple[int, int]:
    """One `final` of one state, given as scalars of both types: the value's bits, and whether it is valid."""
    raise NotImplementedError("written by kernels.compiled")
