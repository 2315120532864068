"""Columns as arrays of numbers that tensors are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import numpy as np

# Frameworks for tensors know these unsigned types barely or not at all.
_SIGNED = {pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.int64()}


def arrays(batch: pa.RecordBatch) -> dict[str, np.ndarray | list[Any]]:
    """Return the columns of a batch, by name.

    Numbers and booleans become writable arrays of shape (rows,); lists of numbers that all have one length, of shape
    (rows, length). Decimals become float64, `uint16` and larger the next signed type. Everything else (text, dates,
    structs) becomes a list of Python values.

    Raises
    ------
    ValueError
        For whole numbers or booleans with nulls, nulls for lists or within them, lists of different lengths, and two
        columns of one name. Nulls among floats become NaN.
    """
    if len(set(batch.schema.names)) < batch.num_columns:
        raise ValueError("two columns have the same name; rename one in the statement (as …)")
    return {field.name: _array(column, field.name) for field, column in zip(batch.schema, batch.columns, strict=True)}


def _array(column: pa.Array, name: str) -> np.ndarray | list[Any]:
    kind = column.type
    if _is_list(kind) and _is_number(kind.value_type):
        return _matrix(column, name)
    if not _is_number(kind):
        return column.to_pylist()  # type: ignore[no-any-return]
    return _numbers(column, name)


def _numbers(column: pa.Array, name: str) -> np.ndarray:
    import numpy as np

    kind = column.type
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif kind in _SIGNED:
        column = column.cast(_SIGNED[kind])
    if column.null_count and not pa.types.is_floating(column.type):
        raise ValueError(
            f"column {name} has nulls, which whole numbers and booleans cannot hold in a tensor; write "
            "coalesce(…, 0) or cast it to double (nulls become NaN) in the statement"
        )
    # A view of a file cannot be written to, and a tensor promises that it can.
    return np.array(column.to_numpy(zero_copy_only=False))


def _matrix(column: pa.Array, name: str) -> np.ndarray:
    values = column.flatten()  # leaves out what is under null
    width, odd = divmod(len(values), len(column)) if len(column) else (0, 0)
    lengths = column.value_lengths() if not pa.types.is_fixed_size_list(column.type) else None
    ragged = lengths is not None and len(lengths.unique()) > 1
    if column.null_count or ragged or odd:
        raise ValueError(
            f"column {name} has lists of different lengths, or nulls for lists; make them one length in the statement"
        )
    if values.null_count and not pa.types.is_floating(values.type):
        raise ValueError(f"column {name} has nulls in its lists")
    return _numbers(values, name).reshape(len(column), width)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )
