"""Flows that join two sources, and what must come of random logs of these: by models of plain loops."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from streams import Flow, join_interval, join_latest, join_table, source, table
from streams.batch.columns import Objects
from streams.batch.rows import Rows
from streams.flow.builder import Stream
from streams.testing import FlowDriver
from tests.merged import LATENESS_MS, NAMES, SEEN, Fed, of_partition

JOINED = SEEN
NONE = -1
KEYLESS = 100
"""Left events of this sequence, or a larger one, have no key of the join: nothing matches them."""

Joined = tuple[str, int, int, int]
"""Key, time and sequence of the left event, and which right one: its time and sequence as one number."""


def place_of(time: int, sequence: int) -> int:
    """Stands for a right event of a key."""
    return time * 10 + sequence


def streams_of(*, by_note: bool = False) -> dict[str, Stream]:
    """`by_note`: left events are joined by their note."""
    found = {
        name: source(
            f"{name}.v1", key="key", fields=("value",), texts=("note",), out_of_orderness=f"{LATENESS_MS}ms", idle="1m",
            skew="1h",
        ).deduplicate("1m").reorder()
        for name in NAMES
    }  # fmt: skip
    if by_note:
        found["left"] = found["left"].key_by("note")
    return found


def columns(keys: Objects, rows: Rows) -> pa.RecordBatch:
    """Of the schema of `tests.merged.SEEN`: `input` says whether there is a right event, `watermark` which one.

    The value of a right event is its sequence and 1, as `Fed.event` makes it.
    """
    matched = np.ascontiguousarray(rows["matched"])
    time, value = np.where(matched, rows["right.event_time"], 0), np.where(matched, rows["right.value"], 1)
    assert not np.isnan(rows["left.value"]).any()
    if "left.note" in (rows.dtype.names or ()) and "left.key" in (rows.dtype.names or ()) and keys.tolist() != [b"key"]:
        notes, sequences = rows["left.note"].tolist(), rows["sequence"].tolist()
        assert all(
            (key == b"") == (sequence >= KEYLESS) for key, sequence in zip(keys.tolist(), sequences, strict=True)
        )
        assert all(not note or note == key for key, note in zip(keys.tolist(), notes, strict=True))
    assert np.isnan(rows["right.value"][~matched]).all()
    if "right.event_id" in (rows.dtype.names or ()):
        assert [one is not None for one in rows["right.event_id"].tolist()] == matched.tolist()
    return pa.RecordBatch.from_pydict(
        {
            "key": pa.array(keys, pa.binary()).cast(pa.string()),
            "input": pa.array(matched.astype(np.int64)),
            "time": pa.array(np.ascontiguousarray(rows["event_time"])),
            "sequence": pa.array(np.ascontiguousarray(rows["sequence"])),
            "watermark": pa.array(np.where(matched, time * 10 + value.astype(np.int64) - 1, NONE)),
        }
    )


def rows_of(driver: FlowDriver) -> list[Joined]:
    """What was written, partition after partition."""
    found = [record.fields for record in driver.read(JOINED)]
    return [(row["key"], row["time"], row["sequence"], row["watermark"]) for row in found]


@dataclass(frozen=True)
class Latest:
    """The as-of join, by one merged event at a time."""

    within_ms: int
    grace_ms: int = 0
    outer: bool = True

    def flow(self, *, by_note: bool = False) -> Flow:
        """As it is declared."""
        given: dict[str, Any] = streams_of(by_note=by_note) | {
            "within": f"{self.within_ms}ms",
            "grace": f"{self.grace_ms}ms",
        }
        return Flow("pair", join_latest(**given, to=JOINED, columns=columns, outer=self.outer))

    def due(self, logs: Mapping[str, Sequence[Fed]], partitions: int) -> list[Joined]:
        """What must be written."""
        return [row for number in range(partitions) for row in self._of_partition(logs, number, partitions)]

    def _of_partition(self, logs: Mapping[str, Sequence[Fed]], number: int, partitions: int) -> Iterator[Joined]:
        known: list[tuple[str, int, int]] = []
        for watermark, (name, key, time, sequence) in of_partition(logs, number, partitions)[0]:
            if name == "right":
                known.append((key, time, sequence))
                continue
            if sequence >= KEYLESS:
                yield "", time, sequence, NONE
                continue
            kept_from = watermark - self.within_ms - self.grace_ms
            found = [
                place_of(its, order)
                for of, its, order in known
                if of == key and time - self.within_ms <= its <= time and its >= kept_from
            ]
            if found or self.outer:
                yield key, time, sequence, found[-1] if found else NONE


@dataclass(frozen=True)
class Interval:
    """The join of all events that are near each other, by one merged event at a time."""

    before_ms: int
    after_ms: int
    grace_ms: int = 0
    outer: bool = True
    matches_max: int = 100

    def flow(self, *, by_note: bool = False) -> Flow:
        """As it is declared."""
        given: dict[str, Any] = streams_of(by_note=by_note) | {
            "before": f"{self.before_ms}ms",
            "after": f"{self.after_ms}ms",
            "grace": f"{self.grace_ms}ms",
        }
        joined: Any = join_interval(
            **given,
            to=JOINED,
            columns=columns,
            outer=self.outer,
            matches_max=self.matches_max,
        )
        return Flow("pair", joined)

    def due(self, logs: Mapping[str, Sequence[Fed]], partitions: int) -> list[Joined]:
        """What must be written."""
        return [row for number in range(partitions) for row in self._of_partition(logs, number, partitions)]

    def _of_partition(self, logs: Mapping[str, Sequence[Fed]], number: int, partitions: int) -> Iterator[Joined]:
        events, end = of_partition(logs, number, partitions)
        seen: dict[str, list[tuple[str, int, int]]] = {"left": [], "right": []}
        waiting: list[tuple[int, int, tuple[str, int, int], list[bool]]] = []
        for place, (watermark, (name, key, time, sequence)) in enumerate(events):
            yield from self._closed(waiting, watermark)
            if name == "left" and sequence >= KEYLESS:
                yield "", time, sequence, NONE
                continue
            own, other = (key, time, sequence), seen["right" if name == "left" else "left"]
            back, ahead, kept = self.before_ms, self.after_ms, self.before_ms
            if name == "right":
                back, ahead, kept = self.after_ms, self.before_ms, self.after_ms
            near = [
                one
                for one in other
                if one[0] == key
                and time - back <= one[1] <= time + ahead
                and one[1] >= watermark - kept - self.grace_ms
            ]
            seen[name].append(own)
            if name == "left":
                waiting.append((time + self.after_ms + self.grace_ms + 1, place, own, [bool(near)]))
            else:
                for _, _, left, matched in waiting:
                    matched[0] |= left in near
            for one in near[-self.matches_max :]:
                left, right = (own, one) if name == "left" else (one, own)
                yield *left, place_of(*right[1:])
        yield from self._closed(waiting, end)

    def _closed(
        self, waiting: list[tuple[int, int, tuple[str, int, int], list[bool]]], watermark: int
    ) -> Iterator[Joined]:
        for one in sorted((each for each in waiting if each[0] <= watermark), key=lambda each: each[:2]):
            waiting.remove(one)
            _, _, left, matched = one
            if self.outer and not matched[0]:
                yield *left, NONE


@dataclass(frozen=True)
class Table:
    """The join with a table, by one merged event at a time."""

    as_of: str = "event_time"
    history_ms: int = 0
    ttl_ms: int = 0
    outer: bool = True

    def flow(self, *, by_note: bool = False) -> Flow:
        """As it is declared."""
        rows = table(
            "right.v1", key="key", time="event_time", order="sequence", fields=("value",), texts=("note",),
            out_of_orderness=f"{LATENESS_MS}ms", idle="1m",
        )  # fmt: skip
        joined = join_table(
            left=streams_of(by_note=by_note)["left"], right=rows, to=JOINED, columns=columns, as_of=self.as_of,
            outer=self.outer, history=f"{self.history_ms}ms", ttl=f"{self.ttl_ms}ms",
        )  # fmt: skip
        return Flow("pair", joined)

    def due(self, logs: Mapping[str, Sequence[Fed]], partitions: int) -> list[Joined]:
        """What must be written."""
        return [row for number in range(partitions) for row in self._of_partition(logs, number, partitions)]

    def _of_partition(self, logs: Mapping[str, Sequence[Fed]], number: int, partitions: int) -> Iterator[Joined]:
        rows: dict[str, list[tuple[int, int]]] = {}
        for watermark, (name, key, time, sequence) in of_partition(logs, number, partitions, ("right",))[0]:
            if name == "right":
                rows.setdefault(key, []).append((time, sequence))
                continue
            if sequence >= KEYLESS:
                yield "", time, sequence, NONE
                continue
            found = rows.get(key, [])
            asked = max(time, watermark)
            if self.as_of == "event_time":
                asked = max(time, watermark - self.history_ms)
                found = [row for row in found if row[0] <= asked]
            matches = bool(found) and (not self.ttl_ms or found[-1][0] >= asked - self.ttl_ms)
            if matches or self.outer:
                yield key, time, sequence, place_of(*found[-1]) if matches else NONE


Model = Latest | Interval | Table
