"""Self-check of the native library with known records, ids and columns, run once before it is used."""

import hashlib
from typing import Final

import numpy as np

from streams.avro.native_library import (
    ARRAY,
    ENUM,
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
    Library,
)

_CHECKED: Final[tuple[tuple[list[int], list[tuple[int, int]]], ...]] = (
    ([NODES["string"]], [(TEXT, ID), (TEXT, KEY)]),
    ([NODES["long"]], [(LONG, TIME), (LONG, SEQUENCE)]),
    ([OPTIONAL, 0, NODES["double"]], [(NUMBER, 0)]),
    ([ENUM, 2, 1, 0], [(NUMBER, 1)]),
    ([ARRAY, RECORD, 1, OPTIONAL, 1, FIXED, 2], []),
    ([MAP, 1, UNION, 2, NODES["boolean"], NODES["float"]], []),
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


def what_is_wrong(library: Library) -> str | None:
    """What the library gets wrong, in words; None if nothing."""
    return _wrong_values(library) or _wrong_ids(library) or _wrong_refs(library)


def _wrong_values(library: Library) -> str | None:
    """What the library gets wrong about a known record; None if nothing."""
    short, foreign = _CHECK_VALUE[:-1], b"\1" + _CHECK_VALUE[1:]
    try:
        program = library.Program([([*words], sinks) for words, sinks in _CHECKED], 2, 2)
        found = program.decode([_CHECK_VALUE, short], _CHECK_FRAME, len(_CHECK_VALUE))
        refused = [
            program.decode([foreign], _CHECK_FRAME, len(foreign)),
            program.decode([_CHECK_VALUE], _CHECK_FRAME, len(short)),
            program.decode([None], _CHECK_FRAME, len(short)),
        ]
    except (ValueError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    if found is None or refused != [None, None, None]:
        return "it refuses valid records, or accepts invalid ones"
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


def _wrong_ids(library: Library) -> str | None:
    """What the library gets wrong about known ids; None if nothing."""
    hi, lo, word = (np.zeros(8, np.uint64) for _ in range(3))
    column, zeros = np.array([1, 2, 1, 3], np.uint64), np.zeros(4, np.uint64)
    try:
        new = library.ids_add(hi, lo, word, 0, column, zeros, column).tolist()
    except (ValueError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None if new == [True, True, False, True] else f"of known ids these are new: {new}"


def _wrong_refs(library: Library) -> str | None:
    """What the library gets wrong about a known column by reference; None if nothing."""
    good, name = _CHECK_VALUE.replace(b"\x7f", b"\x0e", 1), "éa".encode()  # the time is 7
    given, named = [None, good, _CHECK_VALUE, good[:-1], good, good], [name, name, name, name, b"k", None]
    try:
        program = library.Program([([*words], sinks) for words, sinks in _CHECKED], 2, 2)
        values, keys = library.ByteRefs.of(given), library.ByteRefs.of(named)
        results = [
            program.decode_refs(values, keys, np.full(6, limit_ms), _CHECK_FRAME, bytes_max, [(0, 0.0, greatest)], 3, 3)
            for limit_ms, bytes_max, greatest in ((7, len(good), 1.5), (6, 99, 9.0), (7, 9, 9.0), (7, 99, 1.0))
        ]
        slots, new = library.KeyMap().slots(library.ByteRefs.concat([keys[:5], values[1:2]]))
        packed = keys[3:5].pack()
        moved = values.take(np.array([5, 0, 2])).compact()
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        return f"{type(error).__name__}: {error}"
    found = results[0]
    if found is None or [None if one is None else one.rows.tolist() for one in results] != [[1], [], [], []]:
        return "of known records others are valid than should be"
    hi, lo = np.frombuffer(_CHECK_DIGEST, ">u8").astype(np.uint64)
    read = (
        found.others.tolist(), found.event_id.tolist(), [column.tolist() for column in found.longs],
        found.numbers.tolist(), [column.tolist() for column in (found.id_hi, found.id_lo, found.id_word)],
        slots.tolist(), new, packed, moved.tolist(), moved.sizes().tolist(),
    )  # fmt: skip
    wanted = (
        [0, 2, 3, 4, 5], [name], [[7], [7]], [1.5, 0.0], [[hi], [lo], [16]],
        [0, 0, 0, 0, 1, 2], [name, b"k", good], b"\3\0\0\0\1\0\0\0" + name + b"k",
        [good, None, _CHECK_VALUE], [len(good), 0, len(good)],
    )  # fmt: skip
    return None if read == wanted else f"known records by reference are read as {read}"
