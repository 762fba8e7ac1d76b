"""The logical types as Arrow types: the one table. Apart from `schema`, because `import volano` loads no Arrow."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from volano.values.schema import DType

INSTANT: Final = pa.timestamp("us", tz="UTC")
"""How an `Instant` stands in a table."""

ARROW_TYPES: Final[dict[DType, pa.DataType]] = {
    DType.BOOL: pa.bool_(),
    DType.INT64: pa.int64(),
    DType.FLOAT64: pa.float64(),
    DType.STRING: pa.string(),
    DType.TIMESTAMP: INSTANT,
    DType.LIST_FLOAT64: pa.list_(pa.float64()),
    DType.LIST_INT64: pa.list_(pa.int64()),
    DType.LIST_STRING: pa.list_(pa.string()),
}
