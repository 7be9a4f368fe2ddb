"""Private state in the headers of table rows: what a restore needs beyond the public row.

`state.fold` is the row of the table's own state, `state.windows` the rows of other operators that keep one for the key.
Each begins with the digest of the name and the layout that it was written with (`state.identity.row_digest`).
"""

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Final

from streams.batch.rows import RowLayout, Rows, pack_after, pack_rows
from streams.operators.changes import CarriedRows
from streams.operators.spec import KeyedState
from streams.state.identity import DIGEST_BYTES, Identity

OWN_HEADER: Final = "state.fold"
CARRIED_HEADER: Final = "state.windows"
FORGOTTEN_HEADER: Final = "state.forgotten"
"""Header of a record without a value: its key was forgotten (`streams forget`)."""
_SIZE: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct(f"<{DIGEST_BYTES}sI")
_HEAD_BYTES: Final = _HEAD.size


class RowUnknown(ValueError):
    """A row was written with an unknown layout."""


def carried_headers(carried: Sequence[CarriedRows]) -> list[bytes]:
    """The value of `state.windows` for each key: for each operator digest, size and row."""
    if not any(one.rows.dtype.hasobject for one in carried):
        return pack_after([(one.digest + _SIZE.pack(one.rows.dtype.itemsize), one.rows) for one in carried])
    columns = [[one.digest + _SIZE.pack(len(row)) + row for row in pack_rows(one.rows)] for one in carried]
    return [b"".join(parts) for parts in zip(*columns, strict=True)]


def own_headers(digest: bytes, rows: Rows) -> list[bytes]:
    """The value of `state.fold` for each key: digest and row."""
    if rows.dtype.hasobject:
        return [digest + row for row in pack_rows(rows)]
    return pack_after([(digest, rows)])


class RowReader:
    """Converts stored rows to today's layouts. `identity` knows the layouts of all written rows."""

    def __init__(self, keyed: Sequence[KeyedState], identity: Identity) -> None:
        self._layouts = identity.layouts()
        self._empty: dict[str, Rows] = {state.name: state.empty for state in keyed}
        self._rows = identity.rows

    def own(self, name: str, values: Sequence[bytes]) -> list[bytes]:
        """Rows of the table `name`, from values of `state.fold`.

        Raises:
            RowUnknown: they are not rows of the table.

        """
        return self._converted(name, [value[:DIGEST_BYTES] for value in values], [v[DIGEST_BYTES:] for v in values])

    def carried(self, keys: Sequence[bytes], values: Sequence[bytes]) -> Iterator[tuple[str, list[bytes], list[bytes]]]:
        """Name, keys and rows of each declared state, from values of `state.windows`.

        Raises:
            RowUnknown: they are not such rows.

        """
        found: dict[str, tuple[list[bytes], list[bytes], list[bytes]]] = {}
        for places in _alike(values):
            mine = [keys[place] for place in places]
            packed = [values[place] for place in places]
            for digest, start, end in _entries(packed[0]):
                name, _ = self._layout(digest)
                if name in self._rows:
                    columns = found.setdefault(name, ([], [], []))
                    columns[0].extend(mine)
                    columns[1].extend(repeat(digest, len(mine)))
                    columns[2].extend([value[start:end] for value in packed])
        for name, (mine, digests, rows) in found.items():
            yield name, mine, self._converted(name, digests, rows)

    def _converted(self, name: str, digests: Sequence[bytes], rows: Sequence[bytes]) -> list[bytes]:
        result = list(rows)
        for digest in set(digests):
            named, layout = self._layout(digest)
            if named != name:
                raise RowUnknown(f"a row of {named} is in {name}")
            if layout == self._rows.get(name):
                continue
            places = [place for place, one in enumerate(digests) if one == digest]
            converted = self._convert(name, layout, [rows[place] for place in places])
            for place, row in zip(places, converted, strict=True):
                result[place] = row
        return result

    def _convert(self, name: str, layout: RowLayout, rows: Sequence[bytes]) -> list[bytes]:
        empty = self._empty[name]
        try:
            return layout.convert(rows, empty.dtype, empty)
        except ValueError as error:
            raise RowUnknown(str(error)) from None

    def _layout(self, digest: bytes) -> tuple[str, RowLayout]:
        found = self._layouts.get(digest)
        if found is None:
            raise RowUnknown(f"the layout {digest.hex()} of a row is not known")
        return found


def _alike(values: Sequence[bytes]) -> Iterator[list[int]]:
    """Places of values that have the same digests and sizes at the same places: usually all."""
    sizes: defaultdict[int, list[int]] = defaultdict(list)
    for place, size in enumerate(map(len, values)):
        sizes[size].append(place)
    for places in sizes.values():
        left = places
        while left:
            first = values[left[0]]
            heads = [(start - _HEAD_BYTES, start) for _, start, _ in _entries(first)]
            same = left
            for start, end in heads:
                head = first[start:end]
                same = [place for place in same if values[place][start:end] == head]
            yield same
            left = sorted(set(left).difference(same))


def _entries(value: bytes) -> list[tuple[bytes, int, int]]:
    """Digest, start and end of each row."""
    found = []
    at = 0
    while at < len(value):
        start = at + _HEAD_BYTES
        if start > len(value):
            raise RowUnknown("a row is cut off")
        digest, size = _HEAD.unpack_from(value, at)
        found.append((digest, start, start + size))
        at = start + size
    return found
