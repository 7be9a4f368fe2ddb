"""The optional native decoder: the same columns as `streams.avro.values`, at a fraction of the CPU time.

The library `streams_native` (the distribution `logistics-streams-native`, `native/` in the repository) interprets a
program that is made here of a plan, without the interpreter lock. It decodes a record only if it is certain of it: all
others are left to the Python decoder, which follows fastavro. Plans that a program cannot express (`program_of`) are
decoded in Python entirely. So results do not depend on whether the library is installed.
"""

import functools
import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streams.avro.framing import FRAME_BYTES
from streams.avro.native_check import what_is_wrong
from streams.avro.native_library import (
    ARRAY,
    ENUM,
    EXACT_NUMBER,
    FIXED,
    ID,
    KEY,
    LONG,
    MAP,
    NODES,
    NUMBER,
    OPTIONAL,
    RECORD,
    SEQUENCE,
    TEXT,
    TIME,
    UNION,
    Decoded,
    DecodingProgram,
    Library,
)  # fmt: skip
from streams.avro.reads import ReaderFields
from streams.avro.resolve import Plan
from streams.avro.values import PANIC, Columns, constant_number
from streams.avro.wire import Shape
from streams.batch.columns import Bools, Int64, UInt64
from streams.batch.refs import ByteRefs
from streams.errors import UsageError
from streams.limits import ID_BYTES_MAX, KEY_BYTES_MAX, NATIVE_DEPTH_MAX, SCHEMAS_MAX

Mode = Literal["auto", "off", "on"]
MODULE: Final = "streams_native"
INTERFACE: Final = 3
"""Version of the interface between Python and the library; a library with another number is not used."""
_NUMERIC: Final = frozenset({"boolean", "long", "float", "double", "enum"})


@dataclass(frozen=True, slots=True)
class Native:
    """The library, and its description of itself."""

    library: Library
    version: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether the native decoder is used, and why not."""

    native: Native | None
    reason: str
    """In words, for the log: what was chosen and why."""


@dataclass(frozen=True, slots=True)
class NativeProgram:
    """How the library turns values of one plan into the columns of one flow."""

    plan: Plan
    program: DecodingProgram
    constants: tuple[tuple[int, float | None], ...]
    """Number columns that are the reader's default, None for null."""
    constant_texts: tuple[tuple[int, str | None], ...]
    numbers: int
    ranges: tuple[tuple[int, float, float], ...] | None
    """For each decoded number column, the smallest and the largest valid value.

    None: a constant is invalid, and so is every record.
    """

    def frame(self) -> bytes:
        """What a framed value of the plan begins with."""
        return b"\0" + self.plan.schema_id.to_bytes(FRAME_BYTES - 1, "big", signed=True)


@dataclass(frozen=True, slots=True)
class Part:
    """What the library decoded from some values."""

    columns: Columns
    doubted: Int64
    """Positions (in the values) of the records that it leaves to fastavro."""


@functools.cache
def choose(mode: Mode) -> Choice:
    """The native decoder if it is wanted, installed, and passes its self-check; else the reason why it is not used.

    Raises:
        UsageError: the mode is `on`, and it cannot be used.

    """
    if mode == "off":
        return Choice(None, "in Python: STREAMS_NATIVE=off")
    try:
        library = importlib.import_module(MODULE)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == MODULE
        why = "logistics-streams-native is not installed" if absent else f"the native library does not load: {error}"
        return _without(mode, why)
    if (found := getattr(library, "INTERFACE", None)) != INTERFACE:
        return _without(
            mode, f"the native library has interface {found}, this version needs {INTERFACE}: install them together"
        )
    native = Native(cast("Library", library), str(library.__version__))
    if (wrong := what_is_wrong(native.library)) is not None:
        return _without(mode, f"the native library fails its check: {wrong}")
    return Choice(native, f"natively: streams_native {native.version}")


def _without(mode: Mode, why: str) -> Choice:
    if mode == "on":
        raise UsageError(f"STREAMS_NATIVE=on, but {why}")
    return Choice(None, f"in Python: {why}")


# --- programs ---------------------------------------------------------------------------------------------------------


class _NoProgram(Exception):
    """The library cannot decode this plan; Python does."""


def program_of(native: Native, plan: Plan, reads: ReaderFields) -> NativeProgram | None:
    """The program for a plan; None where there is none: its records are decoded in Python."""
    if plan.bare_json is None or plan.columns is None:
        return None
    try:
        return _program(native, plan, reads)
    except (_NoProgram, ValueError, OverflowError):
        return None


def _program(native: Native, plan: Plan, reads: ReaderFields) -> NativeProgram:
    resolved = plan.columns or {}
    sinks: dict[int, list[tuple[int, int]]] = {}
    constants: list[tuple[int, float | None]] = []
    constant_texts: list[tuple[int, str | None]] = []

    def add(name: str, kind: int, column: int) -> None:
        place = resolved[name].position
        if place is not None:
            _require(plan.shapes[place], kind, is_nullable=kind in {NUMBER, EXACT_NUMBER} or column > KEY)
            sinks.setdefault(place, []).append((kind, column))
        elif kind in {NUMBER, EXACT_NUMBER}:
            constants.append((column, constant_number(plan, name)))
        elif kind == TEXT and column > KEY:
            constant_texts.append((column, resolved[name].default))
        else:
            raise _NoProgram

    add(reads.time_field, LONG, TIME)
    add(reads.sequence_field, LONG, SEQUENCE)
    add(reads.id_field, TEXT, ID)
    add(reads.key_field, TEXT, KEY)
    for column, name in enumerate(reads.payload_fields):
        add(name, EXACT_NUMBER if name in plan.longs else NUMBER, column)
    for column, name in enumerate(reads.text_fields, KEY + 1):
        add(name, TEXT, column)
    read = {column.position for column in resolved.values()}
    codes = {column.position: column.codes for column in resolved.values() if column.codes is not None}
    fields = [
        (list(_words(shape, 0, codes.get(place), is_read=place in read)), sinks.get(place, []))
        for place, shape in enumerate(plan.shapes)
    ]
    program = native.library.Program(fields, len(reads.payload_fields), KEY + 1 + len(reads.text_fields))
    return NativeProgram(
        plan,
        program,
        tuple(constants),
        tuple(constant_texts),
        len(reads.payload_fields),
        _ranges(reads, dict(constants), dict(constant_texts)),
    )


def _ranges(
    reads: ReaderFields, constants: Mapping[int, float | None], constant_texts: Mapping[int, str | None]
) -> tuple[tuple[int, float, float], ...] | None:
    found: list[tuple[int, float, float]] = []
    for column, name in enumerate(reads.payload_fields):
        least, greatest = reads.field_ranges.get(name, (-math.inf, math.inf))
        if column not in constants:
            found.append((column, least, greatest))
        elif (number := constants[column]) is not None and not (math.isfinite(number) and least <= number <= greatest):
            return None
    if any(len((text or "").encode()) > ID_BYTES_MAX for text in constant_texts.values()):
        return None
    return tuple(found)


def _require(shape: Shape, kind: int, *, is_nullable: bool) -> None:
    kinds = {LONG: {"long"}, TEXT: {"string"}}.get(kind, _NUMERIC)
    if shape.kind not in kinds or (shape.nullable and not is_nullable):
        raise _NoProgram


def _words(shape: Shape, depth: int, codes: tuple[int, ...] | None, *, is_read: bool) -> Iterator[int]:
    """A type in preorder, for the library. Unread text need not be UTF-8: it counts as bytes."""
    if depth > NATIVE_DEPTH_MAX:
        raise _NoProgram
    if shape.nullable:
        yield from (OPTIONAL, shape.null_at)
        depth += 1
    match shape.kind:
        case "fixed":
            yield from (FIXED, shape.size)
        case "enum":
            yield from (ENUM, shape.size, *(range(shape.size) if codes is None else codes))
        case "array":
            yield ARRAY
        case "map":
            yield from (MAP, int(is_read))
        case "record":
            yield from (RECORD, len(shape.parts))
        case "union":
            yield from (UNION, len(shape.parts))
        case "string" if not is_read:
            yield NODES["bytes"]
        case kind:
            yield NODES[kind]
    for part in shape.parts:
        yield from _words(part, depth + 1, None, is_read=is_read)


class Programs:
    """The programs of a flow's plans, each made when its plan is first used."""

    def __init__(self, native: Native, reads: ReaderFields) -> None:
        self._native = native
        self._reads = reads
        self._made: dict[int, tuple[Plan, NativeProgram | None]] = {}
        """By schema id; an id may get another plan later."""

    def of(self, plan: Plan) -> NativeProgram | None:
        """The program of a plan; None where it has none."""
        found = self._made.get(plan.schema_id)
        if found is None or found[0] is not plan:
            if len(self._made) >= SCHEMAS_MAX:
                self._made.clear()
            found = self._made[plan.schema_id] = (plan, program_of(self._native, plan, self._reads))
        return found[1]


# --- decoding ---------------------------------------------------------------------------------------------------------


def decode_natively(
    program: NativeProgram, values: list[Any], rows: Int64, *, framed: bool, bytes_max: int
) -> Part | None:
    """The columns of `values`, which are at `rows` of the batch, and the ones that fastavro has to decide.

    None when they are for the Python decoder as a whole: one is no bytes object, is longer than `bytes_max`, or
    (`framed`) does not begin with the frame of the plan's schema.
    """
    frame = program.frame() if framed else b""
    try:
        decoded = program.program.decode(values, frame, bytes_max)
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        return None  # a bad record must affect only itself: the Python decoder finds what is wrong
    return None if decoded is None else Part(_columns(program, decoded, rows), decoded.doubted)


@dataclass(frozen=True, slots=True)
class PartByReference:
    """What the library has made of a column by reference: the valid events, and which values they are of."""

    rows: Int64
    """Positions of the values that are valid events."""
    others: Int64
    """Positions of all other records."""
    event_id: ByteRefs
    event_time: Int64
    sequence: Int64
    words: tuple[UInt64, UInt64, UInt64]
    """The third identity words, with the event time."""
    payload: NDArray[np.float64]
    texts: list[pa.Array]


def decode_by_reference(
    program: NativeProgram, values: ByteRefs, keys: ByteRefs, limits_ms: Int64, *, bytes_max: int
) -> PartByReference | None:
    """The valid events among framed values; each has its key in `keys`, and a time up to its `limits_ms`.

    None when all are for the Python decoder. It has to decode invalid ones again, to find the reason.
    """
    if program.ranges is None:
        return None
    try:
        decoded = program.program.decode_refs(
            values, keys, limits_ms, program.frame(), bytes_max, program.ranges, ID_BYTES_MAX, KEY_BYTES_MAX
        )
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        return None
    if decoded is None:
        return None
    count = len(decoded.rows)
    payload = decoded.numbers.reshape(program.numbers, count)
    for column, number in program.constants:
        payload[column] = np.nan if number is None else number
    texts = [_text(count, *found) for found in decoded.texts]
    for column, text in program.constant_texts:
        texts[column - KEY - 1] = pa.array([text] * count, pa.string())
    return PartByReference(
        rows=decoded.rows,
        others=decoded.others,
        event_id=decoded.event_id,
        event_time=decoded.longs[TIME],
        sequence=decoded.longs[SEQUENCE],
        words=(decoded.id_hi, decoded.id_lo, decoded.id_word),
        payload=payload,
        texts=texts,
    )


def _columns(program: NativeProgram, decoded: Decoded, rows: Int64) -> Columns:
    count = decoded.rows
    payload = decoded.numbers.reshape(program.numbers, count)
    nulls = decoded.nulls.reshape(program.numbers, count)
    for column, number in program.constants:
        payload[column] = np.nan if number is None else number
        nulls[column] = number is None
    texts = [_text(count, *found) for found in decoded.texts]
    for column, text in program.constant_texts:
        texts[column] = pa.array([text] * count, pa.string())
    return Columns(
        rows=np.delete(rows, decoded.doubted) if len(decoded.doubted) else rows,
        event_id=texts[ID],
        key_field=texts[KEY],
        event_time=decoded.longs[TIME],
        sequence=decoded.longs[SEQUENCE],
        payload=payload,
        nulls=nulls,
        texts=texts[KEY + 1 :],
        words=(decoded.id_hi, decoded.id_lo, decoded.id_is_digest),
    )


def _text(count: int, offsets: NDArray[np.int32], data: NDArray[np.uint8], is_valid: Bools) -> pa.Array:
    nulls = count - int(np.count_nonzero(is_valid))
    bitmap = pa.py_buffer(np.packbits(is_valid, bitorder="little")) if nulls else None
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data), bitmap, nulls)
