"""Types of the native library, and the numbers that stand for types and columns in its interface."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from streams.batch import refs
from streams.batch.columns import Bools, Int64, UInt64
from streams.batch.event_ids import AddIds

LONG, NUMBER, EXACT_NUMBER, TEXT = range(4)
"""Where a field's values go: a column of longs, of doubles, of doubles that must hold a long exactly, of texts."""
TIME, SEQUENCE = range(2)
ID, KEY = range(2)
NODES: Final = {"null": 0, "boolean": 1, "long": 2, "float": 3, "double": 4, "bytes": 5, "string": 6}
FIXED, ENUM, RECORD, ARRAY, MAP, UNION, OPTIONAL = range(7, 14)


class Decoded(Protocol):
    """What the library returns: one row for each record that it has decoded, in order."""

    @property
    def rows(self) -> int:
        """How many records were decoded: the length of each column."""

    @property
    def doubted(self) -> Int64:
        """Positions of the values that it leaves to Python."""

    @property
    def longs(self) -> Sequence[Int64]:
        """Columns of numbers without fractions: event time and sequence."""

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The number columns one after the other."""

    @property
    def nulls(self) -> Bools:
        """Which values of the number columns are null."""

    @property
    def texts(self) -> Sequence[tuple[NDArray[np.int32], NDArray[np.uint8], Bools]]:
        """Offsets (rows + 1), data, and which are not null: id, key, and the text fields."""

    @property
    def id_hi(self) -> UInt64:
        """Words of the ids, as `event_ids.id_words` gives them."""

    @property
    def id_lo(self) -> UInt64:
        """Second word of each event's identity."""

    @property
    def id_is_digest(self) -> Bools:
        """Whether the words of each identity are a digest of the event id."""


class DecodedRefs(Protocol):
    """What the library returns of a column by reference: one row for each record that is decoded and valid."""

    @property
    def rows(self) -> Int64:
        """Positions of the values of decoded records, in order."""

    @property
    def others(self) -> Int64:
        """Positions of the values that it leaves to Python, in order."""

    @property
    def event_id(self) -> refs.ByteRefs:
        """The event ids."""

    @property
    def longs(self) -> Sequence[Int64]:
        """Columns of numbers without fractions: event time and sequence."""

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The number columns one after the other."""

    @property
    def texts(self) -> Sequence[tuple[NDArray[np.int32], NDArray[np.uint8], Bools]]:
        """As of `Decoded`, without id and key."""

    @property
    def id_hi(self) -> UInt64:
        """Words of the identities, as `event_ids` has them."""

    @property
    def id_lo(self) -> UInt64:
        """Second word of each event's identity."""

    @property
    def id_word(self) -> UInt64:
        """The third one, with the event time."""


class DecodingProgram(Protocol):
    """How records of one writer become columns (`streams_native.Program`)."""

    def decode(self, values: list[Any], frame: bytes, bytes_max: int) -> Decoded | None:
        """Columns of values that all begin with `frame`; None if one does not, is longer, or is no bytes object."""

    def decode_refs(
        self,
        values: refs.ByteRefs,
        keys: refs.ByteRefs,
        limits_ms: Int64,
        frame: bytes,
        bytes_max: int,
        ranges: Sequence[tuple[int, float, float]],
        id_bytes_max: int,
        key_bytes_max: int,
    ) -> DecodedRefs | None:
        """Columns of the values that are valid events; None if the program cannot say that."""


class Library(Protocol):
    """The module `streams_native`, as far as any mode uses it."""

    INTERFACE: int
    __version__: str

    ids_add: AddIds
    ByteRefs: type[refs.ByteRefs]

    def KeyMap(self) -> refs.KeyMap:  # noqa: N802 - a class of the library
        """Make an empty map."""

    def Program(self, fields: list[Any], numbers: int, texts: int) -> DecodingProgram:  # noqa: N802 - a class of the library
        """Make a program.

        Raises:
            ValueError: it is none.

        """
