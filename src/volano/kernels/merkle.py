"""The content hash of a table: canonical row bytes, a digest a row, and a Merkle root over the digests.

Equal content gives an equal root, whatever the chunks, dictionaries or file it came from. A digest a row (not
a column or a block) lets a set say exactly which members differ or were deleted, and still prove the rest: a
removed row's digest at its place keeps the root. Sorts nothing: the caller orders the rows.

Canonical bytes of a row: for each column one byte (1 valid, 0 null) and a fixed field: 8 bytes little-endian
for a number, a bool or an instant (0 when null; one NaN; −0.0 as 0.0), 32 bytes for text and lists (SHA-256
of the UTF-8, or of the canonical JSON of a list). Leaf = SHA-256(0x00 ‖ row); node = SHA-256(0x01 ‖ up to 256
children); root = SHA-256(0x02 ‖ canonical JSON of the column names, types and the number of rows ‖ top node).
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]

_FANOUT: Final = 256
_DIGEST: Final = 32
_BLOCK: Final = 4096
_SAMPLE: Final = 1000
_ONE_NAN: Final = np.float64(np.nan)
_JSON: Final = msgspec.json.Encoder(order="deterministic")


def merkle_root(table: pa.Table) -> str:
    """The root hash of a table in the row order given: 64 hex characters.

    >>> a = pa.table({"id": ["a", "b"], "x": [0.0, None]})
    >>> b = pa.table({"id": pa.array(["a", "b"]).dictionary_encode(), "x": [-0.0, None]})
    >>> merkle_root(a) == merkle_root(b)
    True
    """
    return root_of(row_digests(table), table.schema)


def row_digests(table: pa.Table) -> Bytes:
    """The digest of each row, shape (n_rows, 32).

    Raises:
        TypeError: a column's type has no canonical bytes.
    """
    fields = [_canonical(column) for column in table.columns]
    width = 1 + sum(1 + values.shape[1] for _, values in fields)
    sha256 = hashlib.sha256
    digests = []
    for first in range(0, table.num_rows, _BLOCK):
        block = slice(first, min(first + _BLOCK, table.num_rows))
        view = memoryview(_rows(fields, block, width).tobytes())
        digests += [sha256(view[start : start + width]).digest() for start in range(0, len(view), width)]
    return _joined(digests)


def _rows(fields: list[tuple[NDArray[np.bool_], Bytes]], block: slice, width: int) -> Bytes:
    """The canonical bytes of some rows. A block at a time, so that what is written stays in the cache."""
    rows = np.zeros((block.stop - block.start, width), dtype=np.uint8)
    at = 1
    for valid, values in fields:
        size = values.shape[1]
        rows[:, at] = valid[block]
        rows[:, at + 1 : at + 1 + size] = values[block]
        at += 1 + size
    return rows


def _joined(digests: list[bytes]) -> Bytes:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), _DIGEST)


def root_of(digests: Bytes, schema: pa.Schema) -> str:
    """The root over row digests, shape (n_rows, 32), of a table with this schema.

    Only names and logical types of the schema count: a dictionary of text is text.
    """
    level = digests.tobytes()
    step = _FANOUT * _DIGEST
    while len(level) > _DIGEST:
        level = b"".join(
            hashlib.sha256(b"\x01" + level[start : start + step]).digest()
            for start in range(0, len(level), step)
        )
    header = [[(field.name, _logical(field.type)) for field in schema], len(digests)]
    return hashlib.sha256(b"\x02" + _JSON.encode(header) + level).hexdigest()


def _logical(dtype: pa.DataType) -> str:
    if pa.types.is_dictionary(dtype):
        return _logical(dtype.value_type)
    if pa.types.is_boolean(dtype):
        return "bool"
    if pa.types.is_integer(dtype):
        return "int64"
    if pa.types.is_floating(dtype):
        return "float64"
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return "string"
    if pa.types.is_timestamp(dtype):
        return "timestamp"
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return f"list<{_logical(dtype.value_type)}>"
    raise TypeError(f"a column of type {dtype} has no canonical bytes")


def _canonical(column: pa.ChunkedArray) -> tuple[NDArray[np.bool_], Bytes]:
    """Validity, shape (n,), and value bytes, shape (n, 8) or (n, 32), of one column."""
    kind = _logical(column.type)
    valid = column.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    if kind == "float64":
        numbers = (
            column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
        )  # −0.0 + 0.0 is 0.0
        numbers[np.isnan(numbers)] = _ONE_NAN
        return valid, _as_bytes(numbers.astype("<f8", copy=False))
    if kind == "string":
        return valid, _text_digests(column)
    if kind.startswith("list<"):
        return valid, _list_digests(column)
    whole = column.cast(pa.timestamp("us", column.type.tz)) if kind == "timestamp" else column
    integers = whole.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return valid, _as_bytes(integers.astype("<i8", copy=False))


def _as_bytes(values: NDArray[Any]) -> Bytes:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), 8)


def _text_digests(column: pa.ChunkedArray) -> Bytes:
    text = column.cast(pa.large_string()).combine_chunks()
    if (
        len(pc.unique(text.slice(0, _SAMPLE))) > _SAMPLE // 2
    ):  # mostly distinct: a dictionary would gain nothing
        digests = _word_digests(pc.fill_null(text, ""))
        digests[text.is_null().to_numpy(zero_copy_only=False)] = 0
        return digests
    encoded = pc.dictionary_encode(text)
    null = np.zeros((1, _DIGEST), dtype=np.uint8)
    words = np.concatenate([_word_digests(encoded.dictionary), null])
    chosen: Bytes = words[encoded.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)]
    return chosen


def _word_digests(words: pa.Array) -> Bytes:
    """The digest of each text of an array without nulls, from Arrow's own buffers."""
    _, offsets, data = words.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[words.offset : words.offset + len(words) + 1].tolist()
    text, sha256 = memoryview(data or b""), hashlib.sha256
    digests = [sha256(text[ends[at] : ends[at + 1]]).digest() for at in range(len(words))]
    owned: Bytes = _joined(digests).copy()
    return owned


def _list_digests(column: pa.ChunkedArray) -> Bytes:
    empty = bytes(_DIGEST)
    parts = [
        empty if items is None else hashlib.sha256(_JSON.encode([_item(item) for item in items])).digest()
        for items in column.to_pylist()
    ]
    return _joined(parts)


def _item(item: Any) -> Any:
    """One list item as JSON can tell it apart: a float by its canonical bits, anything else as it is."""
    if isinstance(item, float):
        return struct.pack("<d", float("nan") if item != item else item + 0.0).hex()
    return item
