"""Requests to an endpoint: rows as JSON, in bounded requests, each with its own id. Pure."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from streams.sinks.target import TargetBatch

Place = tuple[int, int]
"""Partition and offset of a record."""


@dataclass(frozen=True, slots=True)
class Change:
    """A changed row, or a deletion."""

    place: Place
    body: dict[str, Any]


def changes_of(batch: TargetBatch, *, sink: str, topic: str, key: Sequence[str]) -> list[Change]:
    """The rows and deletions of a batch in the order in which they were read.

    Each has an `id` that is the same whenever the record is sent again, an `op` (`upsert`, `insert` or `delete`), and
    the row. Times are ISO 8601 in UTC, decimals and NaN text, bytes hexadecimal digits.
    """
    found: list[Change] = []
    op = "upsert" if key else "insert"
    places = zip(batch.partition.tolist(), batch.offset.tolist(), strict=True)
    for row, place in zip(batch.rows.to_pylist(), places, strict=True):
        plain = {name: _plain(value) for name, value in row.items()}
        found.append(Change(place, {"id": _id(sink, topic, place), "op": op, "row": plain}))
    if batch.deleted_partition is not None and batch.deleted_offset is not None:
        gone = zip(batch.deleted_partition.tolist(), batch.deleted_offset.tolist(), strict=True)
        for text, place in zip(batch.deleted, gone, strict=True):
            found.append(Change(place, {"id": _id(sink, topic, place), "op": "delete", "row": {key[0]: text}}))
    return sorted(found, key=lambda change: change.place)


def body_of(changes: Sequence[Change]) -> bytes:
    """The body of a request."""
    return json.dumps(
        {"rows": [change.body for change in changes]}, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    ).encode()


def idempotency_key(changes: Sequence[Change]) -> str:
    """The same for the same changes, so that an endpoint may drop a request that it has carried out already."""
    ids = ",".join(change.body["id"] for change in changes)
    return hashlib.blake2b(ids.encode(), digest_size=16).hexdigest()


def portions(changes: Sequence[Change], rows_max: int) -> Iterator[Sequence[Change]]:
    """At most `rows_max` changes at a time."""
    for first in range(0, len(changes), rows_max):
        yield changes[first : first + rows_max]


def _id(sink: str, topic: str, place: Place) -> str:
    return f"{sink}:{topic}-{place[0]}@{place[1]}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    isoformat = getattr(value, "isoformat", None)
    return str(value) if isoformat is None else isoformat()
