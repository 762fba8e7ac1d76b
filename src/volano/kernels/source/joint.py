"""Reading the chunks of one request in one call: several keys, each under a layout and features of its own."""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import F64, I64, I64r
from volano.kernels.source.bits import borrowed
from volano.kernels.source.packed import check, read_key

ENTRY = ("read_joint",)


def read_joint(
    buf: I64r,
    key_at: I64,
    q: int,
    spec_at: I64,
    specs: I64,
    param_at: I64,
    params: F64,
    out_at: I64,
    out: I64,
) -> int:
    """Every feature of every key.

    Args (in `kernels.joint_reader` terms): key k has the words [key_at[k], key_at[k + 1]) of `buf`, and likewise its
    own part of `specs`, `params` and `out`, each as `read_one` takes it.

    Returns:
        0, or -1 - key when its bytes are of another definition or out of order.
    """
    n_most = 0
    n_states = 0
    n_windows = 0
    for k in range(key_at.shape[0] - 1):
        spec = specs[spec_at[k] : spec_at[k + 1]]
        n_rows = check(buf, key_at[k], key_at[k + 1], spec)
        if n_rows < 0:
            return -1 - k
        n_most = max(n_most, n_rows)
        n_states = max(n_states, spec[5])
        n_windows = max(n_windows, spec[12])
    indices = np.empty((7, n_most), np.int64)
    states = np.empty((n_states, n_most), np.float64)
    small = np.empty((6, n_windows + 80), np.int64)
    stack = np.empty((n_windows + 80, 4), np.float64)
    nothing = np.empty(0, np.int64)
    no_request = np.empty((0, 1), np.int64)
    for k in range(key_at.shape[0] - 1):
        read_key(
            borrowed(buf),
            key_at[k],
            key_at[k + 1],
            q,
            9223372036854775807,
            0,
            0,
            0,
            0,
            borrowed(no_request),
            borrowed(nothing),
            borrowed(specs)[spec_at[k] : spec_at[k + 1]],
            borrowed(params)[param_at[k] : param_at[k + 1]],
            borrowed(out)[out_at[k] : out_at[k + 1]],
            borrowed(indices),
            borrowed(states),
            borrowed(small),
            borrowed(stack),
        )
    # What is borrowed is held until here.
    return 0 * (
        indices.shape[0]
        + states.shape[0]
        + small.shape[0]
        + stack.shape[0]
        + nothing.shape[0]
        + no_request.shape[0]
    )
