"""Restore of tables: the newest row of each key is written once, whatever the layouts of the others were."""

import struct
from typing import Any

import numpy as np
import pytest

from streams.batch.rows import RowLayout
from streams.engine.changelog_rows import CARRIED_HEADER, FORGOTTEN_HEADER, OWN_HEADER, RowReader, RowUnknown
from streams.engine.log import LogRow
from streams.engine.newest_rows import NewestRows
from streams.state.identity import DIGEST_BYTES

SMALL, LARGE, GONE = (bytes([mark]) * DIGEST_BYTES for mark in (1, 2, 3))


class Layouts:
    """What a reader asks of an identity: two states, and one that is declared no longer."""

    def __init__(self) -> None:
        self.rows = {
            "small": RowLayout.of(np.dtype([("a", "<i4")])),
            "large": RowLayout.of(np.dtype([("b", "<i8")])),
        }

    def layouts(self) -> dict[bytes, tuple[str, RowLayout]]:
        return {
            SMALL: ("small", self.rows["small"]),
            LARGE: ("large", self.rows["large"]),
            GONE: ("gone", self.rows["large"]),
        }


def reader() -> RowReader:
    identity: Any = Layouts()
    return RowReader([], identity)


def packed(*rows: tuple[bytes, bytes]) -> bytes:
    return b"".join(digest + struct.pack("<I", len(row)) + row for digest, row in rows)


def row(offset: int, key: bytes | None, own: bytes | None, carried: bytes | None = None) -> LogRow:
    headers = [(OWN_HEADER, own), (CARRIED_HEADER, carried)]
    return LogRow(offset, key, b"public", [pair for pair in headers if pair[1] is not None])


def test_rows_of_other_operators_are_found_in_whichever_order_and_number_each_record_has_them() -> None:
    values = [
        packed((SMALL, b"aaaa"), (LARGE, b"bbbbbbbb")),
        packed((LARGE, b"cccccccc"), (SMALL, b"dddd")),
        packed((SMALL, b"eeee")),
        packed((GONE, b"gggggggg"), (SMALL, b"ffff")),
        packed((SMALL, b"hhhh"), (LARGE, b"iiiiiiii")),
        b"",
    ]
    keys = [b"k%d" % number for number in range(len(values))]

    found = {name: dict(zip(mine, rows, strict=True)) for name, mine, rows in reader().carried(keys, values)}

    assert found == {
        "small": {b"k0": b"aaaa", b"k1": b"dddd", b"k2": b"eeee", b"k3": b"ffff", b"k4": b"hhhh"},
        "large": {b"k0": b"bbbbbbbb", b"k1": b"cccccccc", b"k4": b"iiiiiiii"},
    }


@pytest.mark.parametrize("value", [packed((SMALL, b"aaaa"))[: DIGEST_BYTES + 2], packed((b"?" * DIGEST_BYTES, b"x"))])
def test_what_is_no_row_is_refused(value: bytes) -> None:
    with pytest.raises(RowUnknown):
        list(reader().carried([b"k"], [value]))


def test_only_the_newest_row_of_a_key_is_kept_and_all_are_counted() -> None:
    newest = NewestRows("vehicles.state.v1-0")
    newest.take([row(5, b"a", b"1", b"x"), row(6, b"b", b"2", b"y"), row(7, None, b"0"), row(8, b"b", None)])
    newest.take([row(20, b"a", b"3")])

    assert newest.rows == {b"a": (b"3", None), b"b": (b"2", b"y")}
    assert 3 == newest.taken
    assert newest.where == "vehicles.state.v1-0, offsets 5 to 20"

    newest.clear()
    newest.take([row(21, b"c", b"4")])
    assert newest.rows == {b"c": (b"4", None)}
    assert newest.where == "vehicles.state.v1-0, offsets 21 to 21"


def test_a_key_that_was_forgotten_is_left_out_until_it_comes_again() -> None:
    newest = NewestRows("vehicles.state.v1-0")
    newest.take([row(0, b"a", b"1"), row(1, b"b", b"2")])
    forgotten = [LogRow(2, key, None, [(FORGOTTEN_HEADER, b"")]) for key in (b"a", b"c", None)]

    assert newest.without(forgotten) == [b"a", b"c"]
    assert newest.rows == {b"b": (b"2", None)}
    newest.take([row(3, b"a", b"3")])
    assert newest.rows == {b"b": (b"2", None), b"a": (b"3", None)}


def test_what_is_kept_is_bounded_by_keys_and_by_bytes() -> None:
    fewer, many, large = NewestRows("t-0"), NewestRows("t-0"), NewestRows("t-0")
    fewer.take([row(number, b"%d" % number, b"") for number in range(19_999)])
    assert not fewer.is_full
    many.take([row(number, b"%d" % number, b"") for number in range(20_000)])
    assert many.is_full
    large.take([row(0, b"a", bytes(1 << 24))])
    assert large.is_full
