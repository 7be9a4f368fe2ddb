"""The content of the forwarded topic: records that belong to another partition, and progress of parents.

A forwarded record has its original key, value, timestamp and headers, and two headers more: where it was read from the
source, and the epoch of the layout by which it was sent on. A progress record has no key: a parent writes it for the
partitions that have taken over some of its keys (docs/adr/0070).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Headers, Int64
from streams.batch.records import Records
from streams.engine.effects import Forwards
from streams.engine.key_hashes import KeyHashes
from streams.growth.coupling import NO_REACH
from streams.growth.forwarding import NO_KEY, NOT_FORWARDED, destinations
from streams.growth.layout import Layout
from streams.growth.stages import Progress

FROM_HEADER: Final = "forwarded.from"
EPOCH_HEADER: Final = "forwarded.epoch"
_OURS: Final = frozenset({FROM_HEADER, EPOCH_HEADER})
_UNKNOWN: Final = -1


def forwarded_headers(partition: int, offset: int, epoch: int, originals: Headers | None = None) -> Headers:
    """Headers of a record that is forwarded by the layout of `epoch`, read from the source at that place."""
    return [
        *(originals or ()),
        (FROM_HEADER, b"%d:%d" % (partition, offset)),
        (EPOCH_HEADER, b"%d" % epoch),
    ]


def progress_value(progress: Progress, child: int) -> bytes:
    """The value of a progress record for `child`."""
    return json.dumps(
        {
            "watermark": progress.watermark,
            "reach": progress.of(child),
            "idle": progress.is_idle,
            "settled": progress.is_settled,
        }
    ).encode()


@dataclass(frozen=True, slots=True)
class ForwardedRecords:
    """Records of the forwarded topic as columns; each partition in log order."""

    records: Records
    """Stragglers as they were in the source, without our headers; partition and offset are those there."""
    read_in: Int64
    """Partition of the source that each was read in; -1: not known."""
    read_at: Int64
    """Offset at which each record was read in that partition."""
    epoch: Int64
    """Epoch of the layout by which each was forwarded; `NOT_FORWARDED`: not known."""
    is_progress: Bools
    time: Int64
    """The parent's watermark in progress records."""
    reach: Int64
    idle: Bools
    settles: Bools

    def __len__(self) -> int:
        return len(self.records)

    @staticmethod
    def of(records: Records) -> "ForwardedRecords":
        """Parse records of the forwarded topic.

        Foreign records in it count as progress of nothing, or as records of unknown origin.
        """
        read = [_place(headers) for headers in _headers(records)]
        told = [
            None if key is not None else _progress(value) for key, value in zip(records.key, records.value, strict=True)
        ]
        headers = [_originals(one) for one in _headers(records)]
        stripped = Records(
            records.partition, records.offset, records.timestamp_ms, records.key, records.value,
            headers if any(headers) else None, records.headers_lost, records.broker_ms,
        )  # fmt: skip
        return ForwardedRecords(
            stripped,
            np.array([place[0] for place in read], dtype=np.int64),
            np.array([place[1] for place in read], dtype=np.int64),
            np.array([place[2] for place in read], dtype=np.int64),
            np.array([key is None for key in records.key], dtype=np.bool_),
            np.array([one.watermark if one else TIME_MIN for one in told], dtype=np.int64),
            np.array([one.of(0) if one else NO_REACH for one in told], dtype=np.int64),
            np.array([bool(one and one.is_idle) for one in told], dtype=np.bool_),
            np.array([bool(one and one.is_settled) for one in told], dtype=np.bool_),
        )

    def take(self, rows: Int64) -> "ForwardedRecords":
        """Return the records at `rows`, in that order."""
        return ForwardedRecords(
            self.records.take(rows), self.read_in[rows], self.read_at[rows], self.epoch[rows], self.is_progress[rows],
            self.time[rows], self.reach[rows], self.idle[rows], self.settles[rows],
        )  # fmt: skip

    @staticmethod
    def concat(parts: "Sequence[ForwardedRecords]") -> "ForwardedRecords":
        """The records of `parts`, one after the other."""
        if len(parts) == 1:
            return parts[0]
        columns = ("read_in", "read_at", "epoch", "is_progress", "time", "reach", "idle", "settles")
        joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
        return ForwardedRecords(Records.concat([part.records for part in parts]), **joined)


def hashes_of(records: Records, hashes: KeyHashes) -> Int64:
    """The hash of each record's key; `NO_KEY` for records that are processed where they were read.

    That includes records with unreadable headers: they could not be forwarded unchanged, and are rejected wherever they
    are processed.
    """
    found = hashes.of(records.key)
    if records.headers_lost:
        found[list(records.headers_lost)] = NO_KEY
    return found


def homes(key_hash: Int64, layout: Layout, partition: int, under: Int64 | None = None) -> Int64:
    """The partition that processes each record with a key of this hash, which the task of `partition` has read.

    `under`: see `growth.forwarding.destinations`; None: they were read from the source.
    """
    if under is None:
        under = np.full(len(key_hash), NOT_FORWARDED, dtype=np.int64)
    return destinations(layout, partition, key_hash, under)


def forwards(
    records: Records, rows: Int64, to: Int64, read_in: Int64, read_at: Int64, epoch: int
) -> Iterator[Forwards]:
    """The records at `rows` for the partitions `to` (of all records), in order for each of these."""
    for partition in np.unique(to[rows]).tolist():
        mine = rows[to[rows] == partition].tolist()
        yield Forwards(
            partition,
            [records.key[row] for row in mine],
            [records.value[row] for row in mine],
            [max(0, int(records.timestamp_ms[row])) for row in mine],
            [
                forwarded_headers(
                    int(read_in[row]),
                    int(read_at[row]),
                    epoch,
                    None if records.headers is None else records.headers[row],
                )
                for row in mine
            ],
        )


def _headers(records: Records) -> Sequence[Headers | None]:
    return [None] * len(records) if records.headers is None else records.headers


def _originals(headers: Headers | None) -> Headers | None:
    return [pair for pair in headers or () if pair[0] not in _OURS] or None


def _place(headers: Headers | None) -> tuple[int, int, int]:
    """Parse partition, offset and epoch."""
    found = {name: value for name, value in headers or () if name in _OURS}
    try:
        partition, offset = (found.get(FROM_HEADER) or b"").split(b":")
        return int(partition), int(offset), int(found.get(EPOCH_HEADER) or b"")
    except ValueError:
        return _UNKNOWN, _UNKNOWN, NOT_FORWARDED


def _progress(value: bytes | None) -> Progress | None:
    try:
        found = json.loads(value or b"")
        return Progress(
            int(found["watermark"]), {0: int(found["reach"])}, is_idle=bool(found["idle"]),
            is_settled=bool(found["settled"]),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError):
        return None
