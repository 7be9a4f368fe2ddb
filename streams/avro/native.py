"""The optional native decoder: the same columns as `streams.avro.values`, at a fraction of the CPU time.

The library `streams_native` (the distribution `logistics-streams-native`, `native/` in the repository) interprets a
program that is made here of a plan, without the interpreter lock. It decodes a record only if it is in no doubt of it:
every other record is left to the Python decoder, whose judge is fastavro. What a program cannot express (`program_of`)
is decoded in Python as a whole. So results do not depend on whether the library is there.
"""

import functools
import hashlib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streams.avro.framing import FRAME_BYTES
from streams.avro.reads import ReaderFields
from streams.avro.resolve import Plan
from streams.avro.values import PANIC, Columns, constant_number
from streams.avro.wire import Shape
from streams.batch.columns import Bools, Int64, UInt64
from streams.batch.event_ids import AddIds
from streams.errors import UsageError
from streams.limits import NATIVE_DEPTH_MAX, SCHEMAS_MAX

Mode = Literal["auto", "off", "on"]
MODULE: Final = "streams_native"
INTERFACE: Final = 2
"""What is passed to the library and back; a library with another number is not used."""
_LONG, _NUMBER, _EXACT_NUMBER, _TEXT = range(4)
"""Where a field's values go: a column of longs, of doubles, of doubles that must hold a long exactly, of texts."""
_TIME, _SEQUENCE = range(2)
_ID, _KEY = range(2)
_NODES: Final = {"null": 0, "boolean": 1, "long": 2, "float": 3, "double": 4, "bytes": 5, "string": 6}
_FIXED, _ENUM, _RECORD, _ARRAY, _MAP, _UNION, _OPTIONAL = range(7, 14)
_NUMERIC: Final = frozenset({"boolean", "long", "float", "double", "enum"})


class _Decoded(Protocol):
    """What the library returns: one row for each record that it has decoded, in order."""

    @property
    def rows(self) -> int:
        """How many records were decoded: the length of each column."""

    @property
    def doubted(self) -> Int64:
        """Positions of the values that it leaves to Python."""

    @property
    def longs(self) -> Sequence[Int64]:
        """Time and sequence."""

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The number columns one after the other."""

    @property
    def nulls(self) -> Bools:
        """Which of them are null."""

    @property
    def texts(self) -> Sequence[tuple[NDArray[np.int32], NDArray[np.uint8], Bools]]:
        """Offsets (rows + 1), data, and which are not null: id, key, and the text fields."""

    @property
    def id_hi(self) -> UInt64:
        """Words of the ids, as `event_ids.id_words` gives them."""

    @property
    def id_lo(self) -> UInt64:
        """The second word."""

    @property
    def id_is_digest(self) -> Bools:
        """Whether the words are a digest."""


class _Program(Protocol):
    def decode(self, values: list[Any], frame: bytes, bytes_max: int) -> _Decoded | None:
        """Columns of values that all begin with `frame`; None if one does not, is longer, or is no bytes object."""


class _Library(Protocol):
    INTERFACE: int
    __version__: str

    ids_add: AddIds

    def Program(self, fields: list[Any], numbers: int, texts: int) -> _Program:  # noqa: N802 - a class of the library
        """Make a program.

        Raises:
            ValueError: it is none.

        """


@dataclass(frozen=True, slots=True)
class Native:
    """The library, and what it says of itself."""

    library: _Library
    version: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether the native decoder is used, and why not."""

    native: Native | None
    reason: str
    """In words, for the log: what was chosen and why."""


@dataclass(frozen=True, slots=True)
class NativeProgram:
    """How values of one plan become the columns of one flow, by the library."""

    plan: Plan
    program: _Program
    constants: tuple[tuple[int, float | None], ...]
    """Number columns that are the reader's default, None for null."""
    constant_texts: tuple[tuple[int, str | None], ...]
    numbers: int


@dataclass(frozen=True, slots=True)
class Part:
    """What the library has made of some values."""

    columns: Columns
    doubted: Int64
    """Positions (in the values) of the records that it leaves to the judge."""


@functools.cache
def choose(mode: Mode) -> Choice:
    """The native decoder if it is wanted, there, and passes a check of itself; else the reason why it is not used.

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
    native = Native(cast("_Library", library), str(library.__version__))
    if (wrong := _wrong(native) or _wrong_ids(native)) is not None:
        return _without(mode, f"the native library fails its check: {wrong}")
    return Choice(native, f"natively: streams_native {native.version}")


def _without(mode: Mode, why: str) -> Choice:
    if mode == "on":
        raise UsageError(f"STREAMS_NATIVE=on, but {why}")
    return Choice(None, f"in Python: {why}")


# --- check ------------------------------------------------------------------------------------------------------------

_CHECKED: Final[tuple[tuple[list[int], list[tuple[int, int]]], ...]] = (
    ([_NODES["string"]], [(_TEXT, _ID), (_TEXT, _KEY)]),
    ([_NODES["long"]], [(_LONG, _TIME), (_LONG, _SEQUENCE)]),
    ([_OPTIONAL, 0, _NODES["double"]], [(_NUMBER, 0)]),
    ([_ENUM, 2, 1, 0], [(_NUMBER, 1)]),
    ([_ARRAY, _RECORD, 1, _OPTIONAL, 1, _FIXED, 2], []),
    ([_MAP, 1, _UNION, 2, _NODES["boolean"], _NODES["float"]], []),
)
"""Fields of a record with every kind of type, for the check."""
_CHECK_FRAME: Final = b"\0\0\0\0\x07"
_CHECK_VALUE: Final = (
    _CHECK_FRAME
    + b"\x06\xc3\xa9a"  # "éa"
    + b"\x7f"  # -64
    + b"\x02\0\0\0\0\0\0\xf8\x3f"  # 1.5
    + b"\x02"  # symbol 1
    + b"\x04\x00ab\x02\x00"  # a fixed, a null
    + b"\x02\x02k\x00\x01\x00"  # {"k": true}
)
_CHECK_DIGEST: Final = hashlib.blake2b("éa".encode(), digest_size=16).digest()


def _wrong(native: Native) -> str | None:
    """What the library makes of a known record that it should not; None if all is well."""
    short, foreign = _CHECK_VALUE[:-1], b"\1" + _CHECK_VALUE[1:]
    try:
        program = native.library.Program([([*words], sinks) for words, sinks in _CHECKED], 2, 2)
        found = program.decode([_CHECK_VALUE, short], _CHECK_FRAME, len(_CHECK_VALUE))
        refused = [
            program.decode([foreign], _CHECK_FRAME, len(foreign)),
            program.decode([_CHECK_VALUE], _CHECK_FRAME, len(short)),
            program.decode([None], _CHECK_FRAME, len(short)),
        ]
    except (ValueError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    if found is None or refused != [None, None, None]:
        return "it refuses what is right, or the reverse"
    texts = [(offsets.tolist(), data.tobytes(), is_valid.tolist()) for offsets, data, is_valid in found.texts]
    values = (
        found.rows, found.doubted.tolist(), [column.tolist() for column in found.longs], found.numbers.tolist(),
        found.nulls.tolist(), texts, found.id_hi.tobytes() + found.id_lo.tobytes(), found.id_is_digest.tolist(),
    )  # fmt: skip
    hi, lo = np.frombuffer(_CHECK_DIGEST, ">u8").astype(np.uint64)
    wanted = (
        1, [1], [[-64], [-64]], [1.5, 0.0], [False, False], [([0, 3], "éa".encode(), [True])] * 2,
        hi.tobytes() + lo.tobytes(), [True],
    )  # fmt: skip
    return None if values == wanted else f"a known record is read as {values}"


def _wrong_ids(native: Native) -> str | None:
    """What it makes of known ids that it should not; None if all is well."""
    hi, lo, word = (np.zeros(8, np.uint64) for _ in range(3))
    column, zeros = np.array([1, 2, 1, 3], np.uint64), np.zeros(4, np.uint64)
    try:
        new = native.library.ids_add(hi, lo, word, 0, column, zeros, column).tolist()
    except (ValueError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None if new == [True, True, False, True] else f"of known ids these are new: {new}"


# --- programs ---------------------------------------------------------------------------------------------------------


class _NoProgram(Exception):
    """The library cannot decode this plan; Python does."""


def program_of(native: Native, plan: Plan, reads: ReaderFields) -> NativeProgram | None:
    """The program for a plan; None where it has none: its records are decoded in Python."""
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
            _require(plan.shapes[place], kind, is_nullable=kind in {_NUMBER, _EXACT_NUMBER} or column > _KEY)
            sinks.setdefault(place, []).append((kind, column))
        elif kind in {_NUMBER, _EXACT_NUMBER}:
            constants.append((column, constant_number(plan, name)))
        elif kind == _TEXT and column > _KEY:
            constant_texts.append((column, resolved[name].default))
        else:
            raise _NoProgram

    add(reads.time_field, _LONG, _TIME)
    add(reads.sequence_field, _LONG, _SEQUENCE)
    add(reads.id_field, _TEXT, _ID)
    add(reads.key_field, _TEXT, _KEY)
    for column, name in enumerate(reads.payload_fields):
        add(name, _EXACT_NUMBER if name in plan.longs else _NUMBER, column)
    for column, name in enumerate(reads.text_fields, _KEY + 1):
        add(name, _TEXT, column)
    read = {column.position for column in resolved.values()}
    codes = {column.position: column.codes for column in resolved.values() if column.codes is not None}
    fields = [
        (list(_words(shape, 0, codes.get(place), is_read=place in read)), sinks.get(place, []))
        for place, shape in enumerate(plan.shapes)
    ]
    program = native.library.Program(fields, len(reads.payload_fields), _KEY + 1 + len(reads.text_fields))
    return NativeProgram(plan, program, tuple(constants), tuple(constant_texts), len(reads.payload_fields))


def _require(shape: Shape, kind: int, *, is_nullable: bool) -> None:
    kinds = {_LONG: {"long"}, _TEXT: {"string"}}.get(kind, _NUMERIC)
    if shape.kind not in kinds or (shape.nullable and not is_nullable):
        raise _NoProgram


def _words(shape: Shape, depth: int, codes: tuple[int, ...] | None, *, is_read: bool) -> Iterator[int]:
    """A type in preorder, for the library. Text that is not read need not be UTF-8: there it is bytes."""
    if depth > NATIVE_DEPTH_MAX:
        raise _NoProgram
    if shape.nullable:
        yield from (_OPTIONAL, shape.null_at)
        depth += 1
    match shape.kind:
        case "fixed":
            yield from (_FIXED, shape.size)
        case "enum":
            yield from (_ENUM, shape.size, *(range(shape.size) if codes is None else codes))
        case "array":
            yield _ARRAY
        case "map":
            yield from (_MAP, int(is_read))
        case "record":
            yield from (_RECORD, len(shape.parts))
        case "union":
            yield from (_UNION, len(shape.parts))
        case "string" if not is_read:
            yield _NODES["bytes"]
        case kind:
            yield _NODES[kind]
    for part in shape.parts:
        yield from _words(part, depth + 1, None, is_read=is_read)


class Programs:
    """The programs of a flow's plans, each made when its plan is first met."""

    def __init__(self, native: Native, reads: ReaderFields) -> None:
        self._native = native
        self._reads = reads
        self._made: dict[int, tuple[Plan, NativeProgram | None]] = {}
        """By schema id: an id may get another plan."""

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
    """The columns of `values`, which stand at `rows` of the batch, and which of them the judge is to see.

    None when they are for the Python decoder as a whole: one is no bytes object, is longer than `bytes_max`, or
    (`framed`) does not begin with the frame of the plan's schema.
    """
    frame = b"\0" + program.plan.schema_id.to_bytes(FRAME_BYTES - 1, "big", signed=True) if framed else b""
    try:
        decoded = program.program.decode(values, frame, bytes_max)
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        return None  # whatever a record holds, it is that record's matter: the Python decoder says what it is
    return None if decoded is None else Part(_columns(program, decoded, rows), decoded.doubted)


def _columns(program: NativeProgram, decoded: _Decoded, rows: Int64) -> Columns:
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
        event_id=texts[_ID],
        key_field=texts[_KEY],
        event_time=decoded.longs[_TIME],
        sequence=decoded.longs[_SEQUENCE],
        payload=payload,
        nulls=nulls,
        texts=texts[_KEY + 1 :],
        words=(decoded.id_hi, decoded.id_lo, decoded.id_is_digest),
    )


def _text(count: int, offsets: NDArray[np.int32], data: NDArray[np.uint8], is_valid: Bools) -> pa.Array:
    nulls = count - int(np.count_nonzero(is_valid))
    bitmap = pa.py_buffer(np.packbits(is_valid, bitorder="little")) if nulls else None
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data), bitmap, nulls)
