"""Makes batches for a target from decoded rows: with a key, only the last row or deletion of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from streams.batch.columns import Int64
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.sink.decoding import DecodedRows
from streams.sinks.target import TargetBatch

Place = tuple[int, int]
"""Partition and offset of a record."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch for the target, the rejects found while it was made, and how many records it stands for."""

    batch: TargetBatch
    rejects: list[Reject]


def prepared(
    records: Records, decoded: DecodedRows, key: Sequence[str], *, without: Mapping[Place, str] | None = None
) -> Prepared:
    """The batch of a micro-batch's rows, except those that the target refuses: `without`, by place, with the reason.

    With a key: of several rows of a key the one of the highest partition, and there the last one. A topic that grows in
    place moves a key to a partition of a higher number, so this is the newest one.
    """
    without = without or {}
    rejects: list[Reject] = []
    rows, row = decoded.rows, decoded.row
    if without:
        kept, refused = _split(records, row, without)
        rejects += refused
        rows, row = rows.take(pa.array(kept)), row[kept]
    deleted: list[str] = []
    gone: Int64 = np.empty(0, dtype=np.int64)
    if key:
        rows, row, deleted, gone = _last_of_each(records, rows, row, decoded.tombstones, key, rejects)
    batch = TargetBatch(
        rows=rows,
        partition=records.partition[row],
        offset=records.offset[row],
        offsets=offsets_after(records),
        deleted=deleted,
        deleted_partition=records.partition[gone],
        deleted_offset=records.offset[gone],
    )
    return Prepared(batch, rejects)


def offsets_after(records: Records) -> dict[int, int]:
    """By partition, the offset after its last record."""
    return {
        number: int(records.offset[records.partition == number].max()) + 1
        for number in np.unique(records.partition).tolist()
    }


def _split(records: Records, row: Int64, without: Mapping[Place, str]) -> tuple[Int64, list[Reject]]:
    kept, refused = [], []
    places = zip(records.partition[row].tolist(), records.offset[row].tolist(), strict=True)
    for at, place in enumerate(places):
        if (why := without.get(place)) is None:
            kept.append(at)
        else:
            refused.append(Reject(int(row[at]), Reason.REFUSED_BY_OUTPUT, why))
    return np.array(kept, dtype=np.int64), refused


def _last_of_each(
    records: Records,
    rows: pa.RecordBatch,
    row: Int64,
    tombstones: Int64,
    key: Sequence[str],
    rejects: list[Reject],
) -> tuple[pa.RecordBatch, Int64, list[str], Int64]:
    keys = list(zip(*(rows.column(name).to_pylist() for name in key), strict=True))
    entries: list[tuple[int, int, Any, int, int]] = []
    """Partition, offset, key, position in `rows` (-1: a deletion), and record."""
    partition, offset = records.partition, records.offset
    for at, (values, record) in enumerate(zip(keys, row.tolist(), strict=True)):
        if None in values:
            rejects.append(Reject(record, Reason.INVALID, f"{key[values.index(None)]} is null, and rows go by it"))
            continue
        entries.append((int(partition[record]), int(offset[record]), values, at, record))
    for record in tombstones.tolist():
        text = _text(records.key[record])
        if text is None:
            rejects.append(Reject(record, Reason.INVALID, "a record without a value, whose key is no text"))
            continue
        entries.append((int(partition[record]), int(offset[record]), (text,), -1, record))
    entries.sort(key=lambda entry: entry[:2])
    last = {entry[2]: entry for entry in entries}
    kept = sorted((at, record) for _, _, _, at, record in last.values() if at >= 0)
    removed = sorted((record, values[0]) for _, _, values, at, record in last.values() if at < 0)
    left: Int64 = np.array([at for at, _ in kept], dtype=np.int64)
    return (
        rows if len(left) == len(row) else rows.take(pa.array(left)),
        row[left],
        [text for _, text in removed],
        np.array([record for record, _ in removed], dtype=np.int64),
    )


def _text(key: bytes | None) -> str | None:
    try:
        return None if key is None else key.decode()
    except UnicodeDecodeError:
        return None
