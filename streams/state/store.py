"""The store protocol: an ordered key-value store with atomic write batches, one per partition of a flow."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True)
class WriteBatch:
    """Changes that become visible and durable together, or not at all. Applied in the order: ranges, puts."""

    delete_ranges: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Half-open ranges [from, to)."""
    puts: list[tuple[bytes, bytes]] = field(default_factory=list)


class StoreCorrupted(Exception):
    """The data on disk is not what was written: it must not be used, only rebuilt from Kafka."""


class StoreOutdated(StoreCorrupted):
    """The store is sound, and of another life or layout than what is declared and there now: rebuild it from Kafka."""


class StoreClosed(Exception):
    """The store is closed, or about to be: a concurrent reader came too late."""


class StoreUnavailable(Exception):
    """The disk refuses (full, read-only): nothing was applied; waiting and trying again may help."""


class Store(Protocol):
    """Keyed state of one partition. Methods may be called from several threads, writes from one at a time.

    `get_many` and `range` may also be called by threads that do not know when the store is closed: closing waits for
    those that are under way, and later ones raise `StoreClosed`.
    """

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Values of `keys`, None for absent ones."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All pairs whose key begins with `prefix`, in key order."""

    def pages(self, prefix: bytes, rows: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """As `scan`, in lists of up to `rows` pairs: for many rows, each of which costs little."""

    def range(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """The first `limit` pairs from `start` up to, and without, `end`, in key order, all as of one moment."""

    def write(self, batch: WriteBatch) -> None:
        """Apply atomically. Survives the process only after `flush`.

        Raises:
            StoreUnavailable: nothing was applied.

        """

    def flush(self) -> None:
        """Make all writes so far survive a crash of the process."""

    def bytes_used(self) -> int:
        """Approximate bytes in memory and on disk."""

    def close(self) -> None:
        """Flush and release; the store must not be used afterwards."""


def prefix_end(prefix: bytes) -> bytes:
    """Smallest key after all keys that begin with `prefix`."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\xff" * 64
