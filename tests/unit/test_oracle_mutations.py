"""Mutations of right output: an oracle that does not find one of them is no oracle.

The output of an engine that did all right is spoilt in one place each time, and every time it must be said.

Judged as a load test does it: partition by partition, in slices of their keys, without waiting for idle partitions. The
world is closed: events of a later time at the end of each partition have closed all windows.
"""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Message

from loadtest.oracle.check import judge
from loadtest.oracle.compare import Report
from loadtest.oracle.read import Share
from streams.kafka.partitioner import partition_of
from tests.integration.kafka_helpers import headers_of
from tests.unit.test_check import (
    GPS,
    LIMITS,
    MINUTES,
    PARTITIONS,
    SCHEMA_BY_ID,
    MemoryTopics,
    filled,
    framed,
    rows_of,
    write_output,
)

pytestmark = pytest.mark.thorough

RECORDS = 1_500
SLICES = 2
JUDGED = dataclasses.replace(LIMITS, is_idle_in_the_end=False, timestamp_age_ms=10**13)
"""All timestamps are recent enough to be kept."""
CLEAN, LATE, DLQ, TABLE = GPS.topics.clean, GPS.topics.late, GPS.topics.dlq, GPS.topics.table
LATER_MS = 240_000
Row = tuple[list[Message], int, dict[str, Any]]
"""A partition, a place in it, and the row that is there, decoded."""


def closing(device: str, time_ms: int) -> bytes:
    row = {"event_id": f"closing-{device}", "device_id": device, "sequence": 1, "event_time": time_ms}
    return framed(GPS.source_id, row | {"latitude": 1.0, "longitude": 1.0, "speed_kmh": None, "heading_deg": None})


def world(*, is_closed: bool) -> MemoryTopics:
    topics = filled(GPS, RECORDS)
    source = topics.logs[GPS.topics.source]
    end_ms = max(message.timestamp()[1] for log in source for message in log) + LATER_MS
    if is_closed:
        for device in (f"closing-{number}" for number in range(30)):
            topics.append(GPS.topics.source, device.encode(), closing(device, end_ms), timestamp_ms=end_ms)
        assert all((log[-1].key() or b"").startswith(b"closing") for log in source)
    write_output(GPS, topics, is_idle=False)
    return topics


@pytest.fixture(scope="module")
def closed_world() -> MemoryTopics:
    return world(is_closed=True)


@pytest.fixture(scope="module")
def open_world() -> MemoryTopics:
    return world(is_closed=False)


def judged(topics: MemoryTopics) -> Report:
    total = Report()
    for number in range(PARTITIONS):
        for part in range(SLICES):
            share = Share(number, PARTITIONS, part, SLICES)
            total.add(
                judge(topics, SCHEMA_BY_ID.get, GPS.topics, JUDGED, lambda *_: None, all_closed=False, share=share)
            )
    return total


def copied(topics: MemoryTopics) -> MemoryTopics:
    found = MemoryTopics()
    found.logs = {name: [list(log) for log in logs] for name, logs in topics.logs.items()}
    return found


def found_in(topics: MemoryTopics) -> set[str]:
    report = judged(topics)
    return {name for name in report.FAULTS if getattr(report, name)}


def changed(message: Message, **changes: Any) -> Message:
    """The message with another key, value, headers or timestamp."""
    values: dict[str, Any] = {"key": message.key(), "value": message.value(), "headers": message.headers()}
    values |= {"timestamp": message.timestamp(), **changes}
    return Message(topic=message.topic(), partition=message.partition(), offset=message.offset(), **values)


def with_header(message: Message, name: str, value: bytes | None) -> Message:
    """The message with another value of a header; without the header where that is None."""
    rest = [each for each in headers_of(message) if each[0] != name]
    return changed(message, headers=rest if value is None else [*rest, (name, value)])


class Spoiler:
    """Spoils topics in one place, which the seed picks."""

    def __init__(self, topics: MemoryTopics, seed: int = 1) -> None:
        self.topics = topics
        self.rng = random.Random(seed)

    def log(self, topic: str) -> list[Message]:
        """A partition with some records in it."""
        return self.rng.choice([log for log in self.topics.logs[topic] if len(log) > 2])

    def place(self, log: list[Message]) -> int:
        return self.rng.randrange(1, len(log) - 1)

    def drop(self, topic: str) -> Message:
        log = self.log(topic)
        return log.pop(self.place(log))

    def twice(self, topic: str) -> None:
        log = self.log(topic)
        log.append(log[self.place(log)])

    def change(self, topic: str, change: Callable[[Any], Any]) -> None:
        log = self.log(topic)
        place = self.place(log)
        log[place] = change(log[place])

    def add_letter(self, **headers: bytes | None) -> None:
        """A dead letter like another one, with other coordinates (None: without)."""
        log = self.log(DLQ)
        letter = log[self.place(log)]
        for name, value in headers.items():
            letter = with_header(letter, f"__streams.errors.{name}", value)
        log.append(letter)

    def move_letter(self, **headers: bytes | None) -> None:
        log = self.log(DLQ)
        place = self.place(log)
        for name, value in headers.items():
            log[place] = with_header(log[place], f"__streams.errors.{name}", value)

    def change_row(
        self,
        topic: str,
        schema_id: int,
        change: Callable[[Any], Any],
        *,
        pick: Callable[[list[Row]], Row] | None = None,
    ) -> None:
        """Another row in place of one; `pick` chooses among (log, place, row)."""
        rows: list[Row] = []
        for log in self.topics.logs[topic]:
            for place, message in enumerate(log):
                rows.append((log, place, row_of(schema_id, message)))
        log, place, row = (pick or self.rng.choice)(rows)
        log[place] = changed(log[place], value=framed(schema_id, change(row)))


def row_of(schema_id: int, message: Message) -> dict[str, Any]:
    one = MemoryTopics()
    one.logs = {TABLE: [[message]]}
    return next(iter(rows_of(dataclasses.replace(GPS, table_id=schema_id), one)))


def first_of_several(rows: list[Row]) -> Row:
    """The first row of a vehicle's window that has a further row, or is complete by itself."""
    return next(each for each in rows if each[2]["speed_max_kmh"] is not None and each[2]["distance_km"] > 0)


def newest(rows: list[Row]) -> Row:
    """A row of the newest window of some vehicle, with a further row after it: alone it is a part of the window."""
    last: dict[tuple[str, int], list[Row]] = {}
    for each in rows:
        last.setdefault((each[2]["device_id"], each[2]["window_start"]), []).append(each)
    starts: dict[str, int] = {}
    for device, start in last:
        starts[device] = max(starts.get(device, start), start)
    return next(
        found[0] for (device, start), found in last.items()
        if start == starts[device] and len(found) > 1 and found[0][2]["speed_max_kmh"] is not None
    )  # fmt: skip


def lose_device(spoiler: Spoiler) -> None:
    key = spoiler.log(CLEAN)[0].key()
    for log in spoiler.topics.logs[CLEAN]:
        log[:] = [message for message in log if message.key() != key]


def swap(spoiler: Spoiler) -> None:
    log = spoiler.log(CLEAN)
    key = log[len(log) // 2].key()
    first, second = [place for place, message in enumerate(log) if message.key() == key][3:5]
    log[first], log[second] = log[second], log[first]


def exchange_rows(spoiler: Spoiler) -> None:
    log = spoiler.log(TABLE)
    log[0], log[1] = changed(log[0], value=log[1].value()), changed(log[1], value=log[0].value())


def late_into_clean(spoiler: Spoiler) -> None:
    letter = spoiler.drop(LATE)
    spoiler.topics.append(CLEAN, letter.key(), letter.value(), timestamp_ms=letter.timestamp()[1])


def clean_into_late(spoiler: Spoiler) -> None:
    event = spoiler.drop(CLEAN)
    spoiler.topics.append(LATE, event.key(), event.value(), headers=[("late.reason", b"late"), ("late.by_ms", b"7")])


def misplace_window(spoiler: Spoiler) -> None:
    log = spoiler.log(MINUTES.topic)
    row = log.pop(0)
    spoiler.topics.append(
        MINUTES.topic, row.key(), row.value(), partition=(partition_of(row.key() or b"", PARTITIONS) + 1) % PARTITIONS
    )


def flipped(message: Message) -> Message:
    value = bytearray(message.value() or b"")
    value[-3] ^= 0x01
    return changed(message, value=bytes(value))


def stranger(spoiler: Spoiler, topic: str, value: bytes | None, **more: Any) -> None:
    spoiler.topics.append(topic, b"nobody", value, **more)


def window_row(**changes: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: row | {name: change(row[name]) for name, change in changes.items()}


MUTATIONS: dict[str, tuple[Callable[[Spoiler], object], str]] = {
    "clean: an event is lost": (lambda s: s.drop(CLEAN), "lost"),
    "clean: the last event of a partition is lost": (lambda s: s.log(CLEAN).pop(), "lost"),
    "clean: a device is lost": (lose_device, "lost"),
    "clean: an event is there twice": (lambda s: s.twice(CLEAN), "duplicated"),
    "clean: a stretch is written again": (lambda s: (log := s.log(CLEAN)).extend(log[-30:]), "duplicated"),
    "clean: two events of a device are swapped": (swap, "out_of_order"),
    "clean: a bit is flipped": (lambda s: s.change(CLEAN, flipped), "altered"),
    "clean: an event has the key of another device": (
        lambda s: s.change(CLEAN, lambda m: changed(m, key=b"truck-999999")), "lost",
    ),
    "clean: an event comes from nowhere": (
        lambda s: stranger(s, CLEAN, closing("nobody", 1_750_000_000_000)), "unexpected",
    ),
    "clean: bytes that are no event": (lambda s: stranger(s, CLEAN, b"junk"), "unexpected"),
    "clean: a timestamp is off by a millisecond": (
        lambda s: s.change(CLEAN, lambda m: changed(m, timestamp=(1, m.timestamp()[1] + 1))), "timestamps_wrong",
    ),
    "clean: a timestamp is that of the write": (
        lambda s: s.change(CLEAN, lambda m: changed(m, timestamp=(1, 1_800_000_000_000))), "timestamps_wrong",
    ),
    "clean: an event went to late": (clean_into_late, "misplaced"),
    "late: an event is lost": (lambda s: s.drop(LATE), "missing_late"),
    "late: an event went to clean": (late_into_clean, "misplaced"),
    "late: an event is there twice": (lambda s: s.twice(LATE), "duplicated"),
    "late: another reason": (
        lambda s: s.change(LATE, lambda m: with_header(m, "late.reason", b"beyond_horizon")), "late_headers_wrong",
    ),
    "late: by a millisecond more": (
        lambda s: s.change(LATE, lambda m: with_header(m, "late.by_ms", b"1")), "late_headers_wrong",
    ),
    "dead letters: one is lost": (lambda s: s.drop(DLQ), "rejects_missing"),
    "dead letters: one is there twice": (lambda s: s.twice(DLQ), "rejects_surplus"),
    "dead letters: another reason": (
        lambda s: s.change(DLQ, lambda m: with_header(m, "dlq.reason", b"other")), "rejects_wrong",
    ),
    "dead letters: other bytes": (
        lambda s: s.change(DLQ, lambda m: changed(m, value=m.value() + b"!")), "rejects_wrong",
    ),
    "dead letters: without its key": (lambda s: s.change(DLQ, lambda m: changed(m, key=None)), "rejects_missing"),
    "dead letters: a further one without coordinates": (
        lambda s: s.add_letter(partition=None, offset=None), "rejects_surplus",
    ),
    "dead letters: a further one of a partition that there is not": (
        lambda s: s.add_letter(partition=b"999"), "rejects_surplus",
    ),
    "dead letters: a further one of another topic": (lambda s: s.add_letter(topic=b"other.v1"), "rejects_surplus"),
    "dead letters: a further one without a topic": (lambda s: s.add_letter(topic=None), "rejects_surplus"),
    "dead letters: a further one of a good record": (lambda s: s.add_letter(offset=b"0"), "rejects_surplus"),
    "dead letters: coordinates that are no numbers": (lambda s: s.move_letter(offset=b"x"), "rejects_missing"),
    "dead letters: a further one of an offset beyond the end": (
        lambda s: s.add_letter(offset=b"99999999"), "rejects_surplus",
    ),
    "table: a row is missing": (lambda s: s.drop(TABLE), "table_mismatches"),
    "table: rows are exchanged": (exchange_rows, "table_mismatches"),
    "table: an event was not folded": (
        lambda s: s.change_row(TABLE, 8, window_row(events=lambda n: n - 1)), "table_mismatches",
    ),
    "table: a metre is missing": (
        lambda s: s.change_row(TABLE, 8, window_row(odometer_km=lambda km: km - 0.001)), "table_mismatches",
    ),
    "table: a row of nobody": (
        lambda s: stranger(s, TABLE, s.log(TABLE)[0].value()), "table_mismatches",
    ),
    "windows: the last row is lost": (lambda s: s.log(MINUTES.topic).pop(), "window_mismatches"),
    "windows: the first row is lost": (lambda s: s.log(MINUTES.topic).pop(0), "window_mismatches"),
    "windows: a row is there twice": (lambda s: s.twice(MINUTES.topic), "window_duplicates"),
    "windows: a millimetre": (
        lambda s: s.change_row(MINUTES.topic, 9, window_row(distance_km=lambda km: km + 2e-6)), "window_mismatches",
    ),
    "windows: another maximum": (
        lambda s: s.change_row(
            MINUTES.topic, 9, window_row(speed_max_kmh=lambda kmh: kmh + 200.0), pick=first_of_several
        ),
        "window_mismatches",
    ),
    "windows: an event was not folded": (
        lambda s: s.change_row(MINUTES.topic, 9, window_row(events=lambda n: n + 1)), "window_mismatches",
    ),
    "windows: a revision is left out": (
        lambda s: s.change_row(MINUTES.topic, 9, window_row(revision=lambda n: n + 1)), "window_mismatches",
    ),
    "windows: a row is in another partition": (misplace_window, "window_mismatches"),
}  # fmt: skip


def test_what_is_right_has_no_faults_and_every_window_had_to_be_complete(closed_world: MemoryTopics) -> None:
    report = judged(closed_world)
    assert report.ok, report.details
    assert report.events == RECORDS + 30 == report.clean + report.late + report.rejected + report.duplicates + 30
    assert report.windows > 30
    assert report.windows_checked_share == 1.0
    assert min(report.late, report.rejected, report.duplicates) >= 5


def test_slices_find_what_a_whole_partition_does(closed_world: MemoryTopics) -> None:
    topics = copied(closed_world)
    Spoiler(topics).drop(CLEAN)
    whole = judge(topics, SCHEMA_BY_ID.get, GPS.topics, JUDGED, lambda *_: None, all_closed=False)
    assert {**judged(topics).as_dict(), "details": None} == {**whole.as_dict(), "details": None}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_found(closed_world: MemoryTopics, name: str) -> None:
    spoil, fault = MUTATIONS[name]
    topics = copied(closed_world)
    spoil(Spoiler(topics))
    assert fault in found_in(topics)


# --- windows that nothing has closed yet ------------------------------------------------------------------------------


def test_rows_of_an_open_window_may_be_missing(open_world: MemoryTopics) -> None:
    topics = copied(open_world)
    rows = [(log, place, row_of(9, m)) for log in topics.logs[MINUTES.topic] for place, m in enumerate(log)]
    log, place, row = newest(rows)
    keep = log[place]
    log[:] = [
        m for m in log if m is keep or (row_of(9, m)["device_id"], row_of(9, m)["window_start"])
        != (row["device_id"], row["window_start"])
    ]  # fmt: skip
    report = judged(topics)
    assert report.ok, report.details
    assert report.windows_open == 1
    assert 0 < (report.windows_checked_share or 0) < 1


@pytest.mark.parametrize(
    "change",
    [
        {"distance_km": lambda km: km + 2e-6},
        {"speed_max_kmh": lambda kmh: kmh + 200.0},
        {"events": lambda n: n + 1},
        {"distance_km": lambda _: 0.0},
    ],
    ids=["a millimetre", "the maximum", "events", "no distance at all"],
)
def test_what_is_there_of_an_open_window_must_be_right_all_the_same(
    open_world: MemoryTopics, change: dict[str, Callable[[Any], Any]]
) -> None:
    topics = copied(open_world)
    rows = [(log, place, row_of(9, m)) for log in topics.logs[MINUTES.topic] for place, m in enumerate(log)]
    log, place, row = newest(rows)
    keep = log[place] = changed(log[place], value=framed(9, window_row(**change)(row)))
    log[:] = [
        m for m in log if m is keep or (row_of(9, m)["device_id"], row_of(9, m)["window_start"])
        != (row["device_id"], row["window_start"])
    ]  # fmt: skip
    assert "window_mismatches" in found_in(topics)


def test_there_are_at_least_thirty_mutations() -> None:
    assert len(MUTATIONS) >= 30
