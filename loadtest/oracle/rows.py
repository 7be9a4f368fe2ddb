"""Rows as they are in a topic: decoded by the schema that each record names, without logical types."""

import io
from collections.abc import Callable
from typing import Any

import fastavro

from loadtest.oracle.decode import SchemaById, plain_schema
from streams.errors import StreamsError


def row_reader(schema_by_id: SchemaById) -> Callable[[bytes], dict[str, Any]]:
    """Rows of a topic from its records, times in milliseconds. It raises StreamsError where a schema is unknown."""
    schemas: dict[int, Any] = {}

    def read_row(value: bytes) -> dict[str, Any]:
        schema_id = int.from_bytes(value[1:5], "big")
        if schema_id not in schemas:
            text = schema_by_id(schema_id)
            if text is None:
                raise StreamsError(f"the registry has no schema {schema_id}, with which a table row is written")
            schemas[schema_id] = plain_schema(text)
        row: dict[str, Any] = fastavro.schemaless_reader(io.BytesIO(value[5:]), schemas[schema_id], None)
        return row

    return read_row
