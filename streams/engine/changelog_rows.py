"""Private state in the headers of table rows: what a restore needs and the public row alone does not have.

`state.fold` is the row of the table's fold, `state.windows` the key's newest window of each declaration. Each begins
with the digest of the topic and the layout that it was written with (`state.identity.row_digest`).
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from streams.batch.rows import RowLayout, Rows, empty_rows, pack_rows
from streams.engine.keys import windows_of
from streams.flow.declaration import Pipeline, Window
from streams.state.identity import DIGEST_BYTES, Identity, window_digest

FOLD_HEADER: Final = "state.fold"
WINDOWS_HEADER: Final = "state.windows"
_SIZE: Final = struct.Struct("<I")


class RowUnknown(ValueError):
    """A row was written with a layout that nothing is known of."""


def windows_headers(windows: Sequence[tuple[Window, Rows]]) -> list[bytes]:
    """The value of `state.windows` for each key: of each window digest, size and row."""
    columns = []
    for window, rows in windows:
        packed = pack_rows(rows)
        digest = window_digest(window)
        columns.append([digest + _SIZE.pack(len(row)) + row for row in packed])
    return [b"".join(parts) for parts in zip(*columns, strict=True)]


class RowReader:
    """Brings stored rows to today's layouts. `identity` knows the layouts of all that was written."""

    def __init__(self, pipeline: Pipeline, identity: Identity) -> None:
        self._layouts = identity.layouts()
        self._empty: dict[str, Rows] = {table.topic: empty_rows(table.aggregate.dtype, 1) for table in pipeline.tables}
        operators = zip(pipeline.windows, windows_of(pipeline), strict=True)
        self._empty |= {window.topic: operator.empty(1) for window, operator in operators}
        self._rows = identity.rows

    def folds(self, topic: str, values: Sequence[bytes]) -> list[bytes]:
        """Rows of the table of `topic`, from values of `state.fold`.

        Raises:
            RowUnknown: they are not rows of the table.

        """
        return self._converted(topic, [value[:DIGEST_BYTES] for value in values], [v[DIGEST_BYTES:] for v in values])

    def windows(self, keys: Sequence[bytes], values: Sequence[bytes]) -> Iterator[tuple[str, list[bytes], list[bytes]]]:
        """Topic, keys and rows of each declared window, from values of `state.windows`.

        Raises:
            RowUnknown: they are not rows of windows.

        """
        found: dict[str, tuple[list[bytes], list[bytes], list[bytes]]] = {}
        for key, value in zip(keys, values, strict=True):
            for digest, row in _entries(value):
                topic = self._layout(digest)[0]
                if topic in self._rows:
                    columns = found.setdefault(topic, ([], [], []))
                    for column, one in zip(columns, (key, digest, row), strict=True):
                        column.append(one)
        for topic, (mine, digests, rows) in found.items():
            yield topic, mine, self._converted(topic, digests, rows)

    def _converted(self, topic: str, digests: Sequence[bytes], rows: Sequence[bytes]) -> list[bytes]:
        result = list(rows)
        for digest in set(digests):
            named, layout = self._layout(digest)
            if named != topic:
                raise RowUnknown(f"a row of {named} is in {topic}")
            if layout == self._rows.get(topic):
                continue
            places = [place for place, one in enumerate(digests) if one == digest]
            converted = self._convert(topic, layout, [rows[place] for place in places])
            for place, row in zip(places, converted, strict=True):
                result[place] = row
        return result

    def _convert(self, topic: str, layout: RowLayout, rows: Sequence[bytes]) -> list[bytes]:
        empty = self._empty[topic]
        try:
            return layout.convert(rows, empty.dtype, empty)
        except ValueError as error:
            raise RowUnknown(str(error)) from None

    def _layout(self, digest: bytes) -> tuple[str, RowLayout]:
        found = self._layouts.get(digest)
        if found is None:
            raise RowUnknown(f"the layout {digest.hex()} of a row is not known")
        return found


def _entries(value: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(value):
        digest = value[at : at + DIGEST_BYTES]
        at += DIGEST_BYTES
        if at + _SIZE.size > len(value):
            raise RowUnknown("a row is cut off")
        (size,) = _SIZE.unpack_from(value, at)
        at += _SIZE.size
        yield digest, value[at : at + size]
        at += size
