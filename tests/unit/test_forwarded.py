"""What is forwarded comes as it was, what parents tell is understood, and what is neither harms nobody."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streams.avro.native import choose
from streams.batch.columns import TIME_MIN, Headers, Int64
from streams.batch.key_hash import murmur2
from streams.batch.lanes import lane_of
from streams.batch.records import Records
from streams.engine.effects import Forwards
from streams.engine.forwarded import (
    EPOCH_HEADER,
    FROM_HEADER,
    ForwardedRecords,
    forwarded_headers,
    forwards,
    hashes_of,
    homes,
    progress_value,
)
from streams.engine.key_hashes import KeyHashes
from streams.engine.placing import placed
from streams.engine.telling import INTERVAL_MS, Ends, Reading, Telling
from streams.growth.coupling import NO_REACH
from streams.growth.layout import Growth, Layout
from streams.growth.stages import Progress
from streams.sinks.base import TopicRecords
from streams.sources.base import Idle

TO_6 = Growth(Layout(1, 3), Layout(2, 6))
KEYS = [b"device-%d" % number for number in range(50)]


def records(keys: list[bytes | None], partition: int = 1) -> Records:
    count = len(keys)
    return Records(
        np.full(count, partition),
        np.arange(10, 10 + count),
        np.arange(count) - 1,
        keys,
        [b"v%d" % number for number in range(count)],
        [[("own", b"1")] if number % 2 else None for number in range(count)],
    )


def as_read(found: Forwards, first_offset: int = 0) -> Records:
    count = len(found)
    return Records(
        np.full(count, found.partition),
        np.arange(first_offset, first_offset + count),
        np.array(found.timestamps_ms),
        list(found.keys),
        list(found.values),
        list(found.headers),
    )


def hashed(read: Records) -> Int64:
    return hashes_of(read, KeyHashes(None))


def test_a_record_is_forwarded_as_it_was_with_the_place_where_it_was_read() -> None:
    read = records([*KEYS])
    to = homes(hashed(read), Layout(2, 6), 1)
    assert to.tolist() == [murmur2(key) % 6 for key in KEYS]
    away = np.flatnonzero(to == 4)
    [sent] = forwards(read, away, to, read.partition, read.offset, 2)
    came = ForwardedRecords.of(as_read(sent, 70))
    assert sent.partition == 4
    assert came.records.key == [KEYS[row] for row in away]
    assert came.records.value == [read.value[row] for row in away.tolist()]
    assert read.headers is not None
    assert came.records.headers == [read.headers[row] for row in away]
    assert came.records.offset.tolist() == list(range(70, 70 + len(away)))
    assert came.records.timestamp_ms.tolist() == [max(0, int(at)) for at in read.timestamp_ms[away]]
    assert came.read_in.tolist() == [1] * len(away)
    assert came.read_at.tolist() == read.offset[away].tolist()
    assert came.epoch.tolist() == [2] * len(away)
    assert not came.is_progress.any()


def test_a_record_without_a_key_or_with_headers_that_cannot_be_read_stays() -> None:
    read = records([None, *KEYS])
    broken = replace(read, headers_lost=dict.fromkeys(range(1, len(read)), 1))
    assert homes(hashed(read), Layout(2, 6), 1)[0] == 1
    assert homes(hashed(broken), Layout(2, 6), 1).tolist() == [1] * len(read)


def test_a_record_that_was_forwarded_in_this_layout_stays() -> None:
    under = np.full(len(KEYS), 2)
    assert homes(hashed(records([*KEYS])), Layout(2, 6), 1, under).tolist() == [1] * len(KEYS)


def test_hashes_that_are_kept_are_those_that_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    native = choose("auto").native
    if native is None:
        pytest.skip("no native library")
    known, computed = KeyHashes(native.library.KeyMap), KeyHashes(None)
    monkeypatch.setattr("streams.engine.key_hashes._KEPT_BYTES_MAX", 3_000)
    columns: list[list[bytes | None]] = [
        [*KEYS],
        [None, b"", *KEYS[::-1]],
        [b"", None],
        [b"other-%d" % number for number in range(40)],
        [*KEYS],
    ]
    for keys in columns:
        column = native.library.ByteRefs.of(keys)
        assert known.of(column).tolist() == computed.of(keys).tolist()
        assert known.of(keys).tolist() == computed.of(keys).tolist()
    assert computed.of([b"device-1", None]).tolist() == [murmur2(b"device-1"), -1]


def test_progress_is_told_and_understood() -> None:
    said = Progress(123, {4: 55}, is_idle=True, is_settled=True)
    headers = forwarded_headers(1, 40, 2)
    read = Records(np.array([4]), np.array([0]), np.array([9]), [None], [progress_value(said, 4)], [headers])
    came = ForwardedRecords.of(read)
    assert (came.time[0], came.reach[0], came.idle[0], came.settles[0]) == (123, 55, True, True)
    assert (came.is_progress[0], came.read_in[0], came.epoch[0]) == (True, 1, 2)
    assert came.records.headers is None


def test_what_something_else_has_written_there_says_nothing() -> None:
    odd: list[Headers | None] = [
        None,
        [(FROM_HEADER, b"x")],
        [(FROM_HEADER, None), (EPOCH_HEADER, b"2")],
        [(FROM_HEADER, b"1:2:3")],
    ]
    keys: list[bytes | None] = [None, None, b"a", b"b"]
    values: list[bytes | None] = [b"junk", b'{"watermark": 1}', b"1", b"2"]
    came = ForwardedRecords.of(Records(np.full(4, 4), np.arange(4), np.zeros(4, np.int64), keys, values, odd))
    assert came.read_in.tolist() == [-1] * 4
    assert came.time.tolist() == [TIME_MIN] * 4
    assert came.reach.tolist() == [NO_REACH] * 4
    assert not came.settles.any()


# --- what a parent tells ----------------------------------------------------------------------------------------------


def due(
    telling: Telling, watermark: int, idle: Idle | None, ends: Ends | None, *, now_ms: int, **more: int
) -> Progress | None:
    reading = Reading(watermark, more.get("offset_next", 0), more.get("strays", 0), idle)
    told = telling.due([reading], ends, adopted=True, now_ms=now_ms, idle_ms=[100], quiet_ms=5_000)
    assert told.keys() <= {4}
    return told.get(4)


def test_a_parent_says_that_it_stands_at_its_end_only_by_ends_that_were_known_before() -> None:
    telling = Telling(TO_6, 1, now_ms=0, strays=[0])
    ends = Ends(50, {4: 9})
    assert due(telling, 1, None, ends, now_ms=1) == Progress(1, {})
    assert due(telling, 2, Idle(10, 50), ends, now_ms=2) == Progress(2, {})  # it may have been asked later
    assert due(telling, 3, Idle(10, 51), ends, now_ms=3) == Progress(3, {4: 9})
    assert due(telling, 4, None, ends, now_ms=4) == Progress(4, {})


def test_what_children_know_is_not_told_again_and_how_far_an_end_reaches_only_now_and_then() -> None:
    telling = Telling(TO_6, 1, now_ms=0, strays=[0])
    assert due(telling, 1, None, None, now_ms=0) is not None
    assert due(telling, 1, None, None, now_ms=4_000) is None
    assert due(telling, 1, Idle(1, 60), Ends(50, {4: 9}), now_ms=INTERVAL_MS - 1) is None
    assert due(telling, 1, Idle(1, 60), Ends(50, {4: 9}), now_ms=INTERVAL_MS) == Progress(1, {4: 9})


def test_a_coupling_ends_after_a_time_without_stragglers() -> None:
    telling = Telling(TO_6, 1, now_ms=0, strays=[0])
    idle = Idle(1, 60)
    assert due(telling, 1, idle, None, now_ms=4_000, strays=1) == Progress(1, {})
    assert due(telling, 2, idle, None, now_ms=8_999, strays=1) == Progress(2, {})
    assert due(telling, 3, None, None, now_ms=9_000, strays=1) == Progress(3, {})  # it is not at its end
    assert due(telling, 3, idle, None, now_ms=9_001, strays=1) == Progress(3, {}, is_settled=True)


def test_a_coupling_whose_end_is_told_with_the_open_cycle_stays_ended_whatever_comes_before_the_commit() -> None:
    telling = Telling(TO_6, 1, now_ms=0, strays=[0])
    assert due(telling, 3, Idle(1, 60), None, now_ms=9_001) == Progress(3, {}, is_settled=True)
    assert due(telling, 4, None, None, now_ms=9_002) == Progress(4, {}, is_settled=True)


def test_the_coupling_of_several_inputs_ends_in_all_of_them_at_once() -> None:
    telling = Telling(TO_6, 1, now_ms=0, strays=[0, 0])
    idle, busy = Reading(1, 5, 0, Idle(1, 60)), Reading(7, 9, 0, None)
    given: Any = {"adopted": True, "now_ms": 9_001, "idle_ms": [100, 30], "quiet_ms": 5_000}
    first, second = lane_of(0, 4), lane_of(1, 4)
    assert telling.due([idle, busy], None, **given) == {first: Progress(1, {}), second: Progress(7, {})}
    ends = Ends(9_000, {lane_of(1, 1): 9, second: 3})
    assert telling.due([idle, busy], ends, **given) == {
        first: Progress(1, {}, is_settled=True), second: Progress(7, {}, is_settled=True),
    }  # fmt: skip


def test_traffic_that_never_ceases_ends_a_coupling_once_the_end_of_a_quiet_time_is_processed() -> None:
    telling = Telling(TO_6, 1, now_ms=0, strays=[0])

    def settles(now_ms: int, known_ms: int, *, strays: int, offset_next: int) -> bool:
        """The watermark is another one each time, so that there is something to be told."""
        ends = Ends(known_ms, {1: 70, 4: 9})
        told = due(telling, now_ms, None, ends, now_ms=now_ms, strays=strays, offset_next=offset_next)
        assert told is not None
        return told.is_settled

    assert not settles(4_000, 4_000, strays=1, offset_next=80)
    assert not settles(9_001, 8_999, strays=1, offset_next=80), "what had come by then may have been a straggler"
    assert not settles(9_002, 9_001, strays=1, offset_next=69)
    assert not settles(9_500, 9_400, strays=2, offset_next=75), "there was one in it"
    assert not settles(14_000, 9_600, strays=2, offset_next=90)
    assert settles(14_600, 14_500, strays=2, offset_next=90)


# --- where records go -------------------------------------------------------------------------------------------------


def made(keys: list[bytes]) -> TopicRecords:
    return TopicRecords("out", keys, [key + b"!" for key in keys], list(range(len(keys))), [None] * len(keys))


def test_records_go_where_the_layout_says_in_their_order() -> None:
    found = list(placed(made(KEYS), 6, 1, is_home=False))
    assert [one.partition for one in found] == sorted({murmur2(key) % 6 for key in KEYS})
    for one in found:
        rows = [row for row, key in enumerate(KEYS) if murmur2(key) % 6 == one.partition]
        assert (list(one.keys), list(one.timestamps_ms)) == ([KEYS[row] for row in rows], rows)
        assert list(one.values) == [KEYS[row] + b"!" for row in rows]


def test_where_nothing_is_known_of_a_layout_the_producer_decides() -> None:
    [found] = placed(made(KEYS), 0, 1, is_home=False)
    assert found.partition is None
    [found] = placed(made(KEYS), 6, 1, is_home=True)
    assert (found.partition, found.keys) == (1, KEYS)
