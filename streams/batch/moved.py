"""Tombstones of rows that are in another partition since a topic has grown."""

from typing import Final

from streams.batch.columns import Headers

MOVED_HEADER: Final = "state.moved"
"""Of a tombstone: the row is not gone, but in another partition (epoch and partition). Readers that put partitions
together by key pass over it."""


def is_moved(headers: Headers | None) -> bool:
    """Whether a record without a value, with these headers, takes no row away."""
    return headers is not None and any(name == MOVED_HEADER for name, _ in headers)
