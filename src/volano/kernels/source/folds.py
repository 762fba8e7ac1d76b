"""The functions that `kernels.compiled` writes from the aggregate files; here only their shape and meaning."""

from __future__ import annotations

from volano.kernels.arrays import F64, I32, I64, U8

ENTRY = {"build_states": "i F I F I i i W W W FF II i -> i"}


def build_states(
    fold: int,
    xf: F64,
    xi: I64,
    y: F64,
    starts: I64,
    k0: int,
    k1: int,
    left: I32,
    right: I32,
    order: I32,
    sf: F64,
    si: I64,
    w: int,
) -> int:
    """Fill states of all nodes of keys [k0, k1): words w, w+1, ... of `sf` or `si` (one memory), node number
    as column."""
    raise NotImplementedError("written by kernels.compiled")


def finish(
    fold: int,
    w: int,
    ids: I64,
    pops: U8,
    m: int,
    sf: F64,
    si: I64,
    stack_f: F64,
    stack_i: I64,
    rxf: float,
    rxi: int,
    ry: float,
    n: int,
    finals: I64,
    f0: int,
    f1: int,
    params: F64,
    out_f: F64,
    out_i: I64,
    ok: U8,
    at: int,
) -> None:
    """Run the program of m pieces over one fold's states, then every `final` in [f0, f1) of it into column `at`."""
    raise NotImplementedError("written by kernels.compiled")


def lift(
    fold: int,
    w: int,
    a: int,
    b: int,
    buf: I64,
    floats: F64,
    rows: I64,
    lane_rows: I64,
    x_cell: int,
    y_cell: int,
    integers: int,
    sf: F64,
    si: I64,
) -> None:
    """States of packed rows [a, b) of a lane; bit 0 of `integers` says that x is stored as an integer, bit 1
    that y is."""
    raise NotImplementedError("written by kernels.compiled")
