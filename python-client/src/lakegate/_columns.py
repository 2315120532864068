"""Columns as they travel, dictionaries among them, and as people see them."""

from __future__ import annotations

import pyarrow as pa


def plain(schema: pa.Schema) -> pa.Schema:
    """Return a schema with the values' types in place of dictionaries, which only save bytes on the way."""
    for number, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            schema = schema.set(number, field.with_type(field.type.value_type))
    return schema


def as_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch whose columns are dictionaries, or the values themselves, as a schema says."""
    if batch.schema.equals(schema):
        return batch
    columns = []
    for column, kind in zip(batch.columns, schema.types, strict=True):
        if column.type != kind and pa.types.is_dictionary(column.type):
            columns.append(column.dictionary_decode())
        elif column.type != kind and pa.types.is_dictionary(kind):
            columns.append(column.dictionary_encode())
        else:
            columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)
