"""Tombstones of rows that are in another partition since a topic has grown."""

from typing import Final

from streams.batch.columns import Headers

MOVED_HEADER: Final = "state.moved"
"""Header of a tombstone whose row is not gone, but in another partition (epoch and partition).

Readers that combine partitions by key ignore it.
"""


def is_moved(headers: Headers | None) -> bool:
    """Whether a record with these headers is such a tombstone, which removes no row."""
    return headers is not None and any(name == MOVED_HEADER for name, _ in headers)
