"""Names for the array types that kernels exchange. Holds no code that runs.

Type checkers see NumPy arrays of a number type. `kernels.compiled` reads more from the names: without a
suffix one dimension, `x2` a matrix, `r` read-only; all are C-contiguous.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

I64: TypeAlias = npt.NDArray[np.int64]
I32: TypeAlias = npt.NDArray[np.int32]
F64: TypeAlias = npt.NDArray[np.float64]
U8: TypeAlias = npt.NDArray[np.uint8]
I64r: TypeAlias = I64
F64r: TypeAlias = F64
I64x2: TypeAlias = I64
I32x2: TypeAlias = I32
F64x2: TypeAlias = F64
U8x2: TypeAlias = U8
U64: TypeAlias = npt.NDArray[np.uint64]
Bools: TypeAlias = npt.NDArray[np.bool_]
AnyArray: TypeAlias = npt.NDArray[Any]
Array = TypeVar("Array", bound=AnyArray)

NEVER = 2**63 - 1
"""The instant that has not come: `visible_until` of a row that nothing has superseded."""

ALWAYS = -(2**63)
"""The instant before all others: `visible_from` of a row that was always known."""

FARTHEST = 2**61
"""Instants and durations stay within ±FARTHEST µs (73,000 years), so that no window arithmetic overflows."""
