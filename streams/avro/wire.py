"""Avro's binary encoding in columns: an equivalent schema for the columnar decoder, and sizes of values.

The decoder supports records, arrays, maps, unions, text and numbers. Other types are described to it as types with the
same bytes: `bytes` as a string that is not used as text, a `fixed` as a record of doubles and floats, an enum as the
number of its symbol, a branch of a larger union as a record with one field, a reference as its type.

It accepts bytes after the end of a value, and numbers in more bytes than they need. So the size that the decoded values
need is compared with the actual size.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams.avro.matching import named_types
from streams.batch.columns import Int64, UInt64
from streams.limits import FIXED_BYTES_MAX, SCHEMA_NODES_MAX

Schema = Any
_PLAIN: Final = frozenset({"null", "boolean", "float", "double", "string"})
_UNION_BRANCHES_MAX: Final = 64
"""Up to here the number of a branch takes one byte."""
_PIECES: Final = ((8, "double"), (4, "float"))


@dataclass(frozen=True, slots=True)
class Shape:
    """The structure of a type's encoded values."""

    kind: str
    """null, boolean, long, float, double, string, bytes, fixed, enum, record, array, map or union."""
    parts: tuple["Shape", ...] = ()
    """Fields of a record, items of an array, values of a map, branches of a union."""
    nullable: bool = False
    size: int = 0
    """Bytes of a fixed, symbols of an enum."""
    null_at: int = 0
    """For a nullable type: the number of the branch that is null."""


class _NotColumnar(Exception):
    """The columnar decoder supports neither this type nor one with the same bytes."""


def wire_fields(schema: Schema) -> tuple[tuple[Shape, ...], list[dict[str, Any]]] | None:
    """Shapes of a record's fields, and the fields for the columnar decoder; None where it cannot decode them.

    The record is as `fastavro.parse_schema` gives it, without types that contain themselves; logical types are off.
    """
    maker = _WireMaker(schema)
    try:
        made = [(field["name"], *maker.make(field["type"])) for field in schema["fields"]]
    except _NotColumnar:
        return None
    return tuple(shape for _, shape, _ in made), [{"name": name, "type": wire} for name, _, wire in made]


class _WireMaker:
    """Makes shapes and wire types, with a new name for each record, since a type may be used more than once."""

    def __init__(self, schema: Schema) -> None:
        self._named = {each["name"]: each for each in named_types(schema)}
        self._made = 0

    def make(self, schema: Schema) -> tuple[Shape, Schema]:  # noqa: PLR0911 - one for each kind of type
        """Shape and wire type of a type.

        Raises:
            _NotColumnar: there is none.

        """
        self._made += 1
        if self._made > SCHEMA_NODES_MAX:  # references spelt out may double with each level
            raise _NotColumnar
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return self._by_name(schema)
        match schema["type"]:
            case "record":
                made = [self.make(field["type"]) for field in schema["fields"]]
                if not made:
                    raise _NotColumnar
                return Shape("record", tuple(shape for shape, _ in made)), self._record([wire for _, wire in made])
            case "array":
                shape, wire = self.make(schema["items"])
                return Shape("array", (shape,)), {"type": "array", "items": wire}
            case "map":
                shape, wire = self.make(schema["values"])
                return Shape("map", (shape,)), {"type": "map", "values": wire}
            case "enum":
                return Shape("enum", size=len(schema["symbols"])), "long"
            case "fixed":
                return self._fixed(schema["size"])
            case inner:
                return self.make(inner)

    def _by_name(self, name: str) -> tuple[Shape, Schema]:
        if name in {"int", "long"}:
            return Shape("long"), "long"  # an int out of range is not cut to 32 bits but read as fastavro reads it
        if name == "bytes":
            return Shape("bytes"), "string"
        if name in _PLAIN:
            return Shape(name), name
        if name not in self._named:
            raise _NotColumnar
        return self.make(self._named[name])

    def _fixed(self, size: int) -> tuple[Shape, Schema]:
        if not 0 < size <= FIXED_BYTES_MAX:
            raise _NotColumnar
        pieces: list[str] = []
        rest = size
        for width, kind in _PIECES:
            pieces += [kind] * (rest // width)
            rest %= width
        if rest:
            raise _NotColumnar
        return Shape("fixed", size=size), self._record(pieces)

    def _union(self, branches: list[Schema]) -> tuple[Shape, Schema]:
        if len(branches) == 2 and "null" in branches:
            shape, wire = self.make(next(branch for branch in branches if branch != "null"))
            made_nullable = dataclasses.replace(shape, nullable=True, null_at=branches.index("null"))
            return made_nullable, [wire if each != "null" else "null" for each in branches]
        if not 2 <= len(branches) <= _UNION_BRANCHES_MAX:
            raise _NotColumnar
        made = [self.make(branch) for branch in branches]
        wires = ["null" if shape.kind == "null" else self._record([wire]) for shape, wire in made]
        return Shape("union", tuple(shape for shape, _ in made)), wires

    def _record(self, types: Sequence[Schema]) -> Schema:
        self._made += len(types)
        fields = [{"name": f"f{position}", "type": each} for position, each in enumerate(types)]
        return {"type": "record", "name": f"wire_{self._made}", "fields": fields}


# --- sizes ------------------------------------------------------------------------------------------------------------


def encoded_sizes(columns: Sequence[pa.Array], shapes: Sequence[Shape]) -> Int64:
    """Bytes that Avro's binary encoding needs for each record of `columns`."""
    total: Int64 = np.zeros(len(columns[0]), dtype=np.int64)
    for column, shape in zip(columns, shapes, strict=True):
        total += _sizes(column, shape)
    return total


def _sizes(column: pa.Array, shape: Shape) -> Int64 | int:
    size = _value_sizes(column, shape)
    if not shape.nullable:
        return size
    return np.where(column.is_valid().to_numpy(zero_copy_only=False), size, 0) + 1


def _value_sizes(column: pa.Array, shape: Shape) -> Int64 | int:  # noqa: PLR0911 - one for each kind of type
    match shape.kind:
        case "string" | "bytes":
            lengths = np.diff(text_offsets(column))
            return lengths + _varint_sizes(lengths.astype(np.uint64) << np.uint64(1))
        case "long" | "enum":
            numbers = column.fill_null(0) if column.null_count else column
            return _long_sizes(numbers.cast(pa.int64()).to_numpy(zero_copy_only=False))
        case "double":
            return 8
        case "float":
            return 4
        case "boolean":
            return 1
        case "null":
            return 0
        case "fixed":
            return shape.size
        case "record":
            return sum((_sizes(column.field(i), part) for i, part in enumerate(shape.parts)), 0)
        case "union":
            return _union_sizes(column, shape)
        case _:
            return _block_sizes(column, shape)


def _union_sizes(column: pa.Array, shape: Shape) -> Int64:
    codes = column.type_codes.to_numpy()
    total: Int64 = np.ones(len(codes), dtype=np.int64)
    for branch, part in enumerate(shape.parts):
        if part.kind != "null":
            total += np.where(codes == branch, _sizes(column.field(branch).field(0), part), 0)
    return total


def _block_sizes(column: pa.Array, shape: Shape) -> Int64:
    """Sizes of arrays and maps written as one block each: that is usual, except for very long ones."""
    offsets = column.offsets.to_numpy()
    counts = np.diff(offsets)
    if shape.kind == "array":
        each = _sizes(column.values, shape.parts[0])
    else:
        each = _sizes(column.keys, Shape("string")) + _sizes(column.items, shape.parts[0])
    inner = counts * each if isinstance(each, int) else _sums(each, offsets)
    filled = counts > 0
    return inner + np.where(filled, _varint_sizes(counts.astype(np.uint64) << np.uint64(1)), 0) + 1


def _sums(values: Int64, offsets: Int64) -> Int64:
    """Sums of the runs of `values` between `offsets`."""
    running = np.concatenate(([0], np.cumsum(values)))
    return np.asarray(running[offsets[1:]] - running[offsets[:-1]])


def _long_sizes(values: Int64) -> Int64:
    return _varint_sizes(((values << 1) ^ (values >> 63)).view(np.uint64))


def _varint_sizes(values: UInt64) -> Int64:
    """Bytes of each unsigned number in base-128."""
    sizes = np.ones(len(values), dtype=np.int64)
    if len(values) == 0:
        return sizes
    top, shift = int(values.max()), 7
    while top >> shift:
        sizes += values >= np.uint64(1 << shift)
        shift += 7
    return sizes


def text_offsets(column: pa.Array) -> Int64:
    """Offsets (n + 1) of a text column's values in its data."""
    if len(column) == 0:
        return np.zeros(1, dtype=np.int64)
    buffer = np.frombuffer(column.buffers()[1], dtype=np.int32)
    return buffer[column.offset : column.offset + len(column) + 1].astype(np.int64)


# --- what sizes do not show -------------------------------------------------------------------------------------------


def are_symbols(column: pa.Array, shape: Shape) -> bool:
    """Whether the numbers of all enums are positions of symbols."""
    for part, values in _leaves(column, shape):
        if part.kind == "enum":
            bounds = pc.min_max(values).as_py()
            if bounds["min"] is not None and not 0 <= bounds["min"] <= bounds["max"] < part.size:
                return False
    return True


def are_texts(column: pa.Array, shape: Shape) -> bool:
    """Whether all strings are UTF-8: the columnar decoder accepts any bytes."""
    try:
        for part, values in _leaves(column, shape):
            if part.kind == "string":
                values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _leaves(column: pa.Array, shape: Shape) -> Iterator[tuple[Shape, pa.Array]]:
    """Return the columns that have values and no parts."""
    match shape.kind:
        case "record":
            for i, part in enumerate(shape.parts):
                yield from _leaves(column.field(i), part)
        case "union":
            for i, part in enumerate(shape.parts):
                if part.kind != "null":
                    yield from _leaves(column.field(i).field(0), part)
        case "array":
            yield from _leaves(column.values, shape.parts[0])
        case "map":
            yield Shape("string"), column.keys
            yield from _leaves(column.items, shape.parts[0])
        case _:
            yield shape, column
