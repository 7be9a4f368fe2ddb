"""Rows of a range that one worker has found, and putting those of several together. Pure.

A portion has each row of its partitions up to and including the key `through`, or of the whole range. Those of several
workers together are complete up to the smallest of these keys: what is beyond it is left for the next request.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

KEY: Final = "streams_key"
"""Column of keys in a portion: bytes."""
_KEY_FIELD: Final = pa.field(KEY, pa.binary(), nullable=False)


@dataclass(frozen=True, slots=True)
class Part:
    """Keys whose murmur2 hash gives `partition` when it is divided by `of`."""

    partition: int
    of: int


@dataclass(frozen=True, slots=True)
class Portion:
    """Rows, in the order of their keys."""

    rows: pa.RecordBatch
    """The column `KEY`, then those that were asked for."""
    parts: frozenset[Part]
    """Which keys it was looked for."""
    through: bytes | None = None
    """Up to which key nothing is missing; None: up to the end of the range."""


def with_keys(keys: Sequence[bytes], rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows with their keys before them."""
    arrays = [pa.array(keys, pa.binary()), *rows.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([_KEY_FIELD, *rows.schema]))


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """No rows of a table with this schema."""
    return pa.RecordBatch.from_pylist([], schema=pa.schema([_KEY_FIELD, *schema]))


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of all batches (at least one), one after the other."""
    whole = pa.Table.from_batches(batches).combine_chunks()
    return whole.to_batches()[0] if whole.num_rows else batches[0].slice(0, 0)


def merged(portions: Sequence[Portion], *, limit: int) -> Portion:
    """What all of them say together (at least one), at most `limit` rows. A key that two have is there once."""
    parts = frozenset(part for one in portions for part in one.parts)
    through = min((one.through for one in portions if one.through is not None), default=None)
    batch = joined([one.rows for one in portions])
    if len(portions) > 1 and batch.num_rows:
        batch = batch.take(pc.sort_indices(batch.column(KEY)))
        keys = batch.column(KEY)
        is_first = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1))
        batch = batch.filter(pa.concat_arrays([pa.array([True]), is_first]))
    if through is not None and batch.num_rows:
        batch = batch.filter(pc.less_equal(batch.column(KEY), pa.scalar(through, pa.binary())))
    if batch.num_rows > limit:
        batch = batch.slice(0, limit)
        through = batch.column(KEY)[limit - 1].as_py()
    return Portion(batch, parts, through)


def uncovered(parts: Iterable[Part], partitions: int) -> list[int]:
    """Partitions, by a division of keys by `partitions`, that none of the parts covers.

    Parts may be of another layout of the topic: one of a division by 3 covers four of a division by 12.
    """
    known = list(parts)
    of = max([partitions, *(part.of for part in known)])
    missing = [number for number in range(of) if not any(number % part.of == part.partition for part in known)]
    return sorted({number % partitions for number in missing})
