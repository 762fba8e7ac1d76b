"""Reading the chunks of one request in one call: several keys, each under a layout and features of its own."""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import F64, I64, U8
from volano.kernels.source.packed import read_chunks

ENTRY = {"read_joint": "R I i I I FF F I U -> i"}


def block(specs: I64, at: int, n: int, width: int) -> I64:
    """The matrix of n rows that begins at a word."""
    return specs[at : at + n * width].reshape(n, width)


def read_joint(
    buf: I64, key_at: I64, q: int, spec_at: I64, specs: I64, params: F64, out_f: F64, out_i: I64, ok: U8
) -> int:
    """Every feature of every key.

    Args (in `kernels.joint_reader` terms): `key_at` are word offsets per key; key k is read by the spec at word
    spec_at[k] of `specs`: six numbers of the layout; how many lanes, windows, states, folds, finals, picks and
    distincts; its first row in `params`; its first and last+1 output; then those matrices, as `read_chunks` takes
    them. `out_f` and `out_i` are the same memory.

    Returns:
        0, or -1 - key when its bytes are of another definition or out of order.
    """
    at_q = np.empty(1, np.int64)
    at_q[0] = q
    as_of = np.empty(1, np.int64)
    as_of[0] = 9223372036854775807
    exclude = np.zeros((1, 3), np.int64)
    nothing = np.empty(0, np.int64)
    for k in range(key_at.shape[0] - 1):
        a = spec_at[k]
        n_lanes, n_windows, n_states, n_folds = specs[a + 6], specs[a + 7], specs[a + 8], specs[a + 9]
        n_finals, n_picks, n_distincts = specs[a + 10], specs[a + 11], specs[a + 12]
        first_param, first_out, last_out = specs[a + 13], specs[a + 14], specs[a + 15]
        lanes = a + 16
        windows = lanes + 7 * n_lanes
        states = windows + 7 * n_windows
        folds = states + 5 * n_states
        finals = folds + 6 * n_folds
        picks = finals + 2 * n_finals
        distincts = picks + 5 * n_picks
        done = read_chunks(
            buf,
            key_at[k : k + 2],
            at_q,
            as_of,
            exclude,
            nothing.reshape(0, specs[a + 1]),
            nothing,
            specs[a : a + 6],
            block(specs, lanes, n_lanes, 7),
            block(specs, windows, n_windows, 7),
            block(specs, states, n_states, 5),
            block(specs, folds, n_folds, 6),
            params[first_param : first_param + n_finals],
            block(specs, finals, n_finals, 2),
            block(specs, picks, n_picks, 5),
            block(specs, distincts, n_distincts, 4),
            out_f[first_out:last_out].reshape(last_out - first_out, 1),
            out_i[first_out:last_out].reshape(last_out - first_out, 1),
            ok[first_out:last_out].reshape(last_out - first_out, 1),
        )
        if done < 0:
            return -1 - k
    return 0
