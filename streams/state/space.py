"""A part of a partition's store: what an operator reads and writes, and all that it can reach."""

from collections.abc import Iterable, Iterator, Sequence

from streams.state.names import operator_prefix
from streams.state.store import Store, WriteBatch, prefix_end


class StoreSpace:
    """Rows of a store below the prefix of a name. Keys are without the prefix.

    Reading is immediate. What changes goes into a `WriteBatch`, which the engine writes with the cycle's checkpoint; an
    operator writes by itself only while it is restored or spilled (`write`).
    """

    __slots__ = ("_store", "prefix")

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.prefix = operator_prefix(name)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of `keys`, None for absent ones."""
        return self._store.get_many([self.prefix + key for key in keys])

    def scan(self, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All pairs whose key begins with `start`, in key order."""
        size = len(self.prefix)
        return ((key[size:], value) for key, value in self._store.scan(self.prefix + start))

    def pages(self, rows: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """All keys and their values, in key order, in lists of up to `rows`."""
        size = len(self.prefix)
        for page in self._store.pages(self.prefix, rows):
            yield [key[size:] for key, _ in page], [value for _, value in page]

    def put(self, batch: WriteBatch, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Have `batch` put the pairs."""
        batch.puts += [(self.prefix + key, value) for key, value in pairs]

    def delete(self, batch: WriteBatch, keys: Iterable[bytes]) -> None:
        """Have `batch` delete the keys."""
        batch.delete_ranges += [(self.prefix + key, self.prefix + key + b"\0") for key in keys]

    def delete_range(self, batch: WriteBatch, start: bytes, end: bytes) -> None:
        """Have `batch` delete the keys from `start` up to, and without, `end`."""
        batch.delete_ranges.append((self.prefix + start, self.prefix + end))

    def clear(self, batch: WriteBatch) -> None:
        """Have `batch` delete everything of this part."""
        batch.delete_ranges.append((self.prefix, prefix_end(self.prefix)))

    def write(self, batch: WriteBatch) -> None:
        """Write a batch now: between cycles only, or while the partition is restored.

        Raises:
            StoreUnavailable: nothing was written.

        """
        self._store.write(batch)
