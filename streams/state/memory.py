"""In-memory twin of the RocksDB store, with the same contract: what was not flushed is lost in a crash."""

import itertools
from bisect import bisect_left
from collections.abc import Iterator

from streams.state.store import StoreClosed, WriteBatch, prefix_end


class MemoryStore:
    """Ordered dictionary with a durable copy as of the last flush (`crash` goes back to it)."""

    def __init__(self, durable: dict[bytes, bytes] | None = None) -> None:
        self._durable: dict[bytes, bytes] = durable if durable is not None else {}
        self._rows: dict[bytes, bytes] = dict(self._durable)
        self._is_closed = False

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Values of `keys`, None for absent ones."""
        self._require_open()
        return [self._rows.get(key) for key in keys]

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All pairs whose key begins with `prefix`, in key order."""
        keys = sorted(self._rows)
        for key in keys[bisect_left(keys, prefix) : bisect_left(keys, prefix_end(prefix))]:
            yield key, self._rows[key]

    def pages(self, prefix: bytes, rows: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """As `scan`, in lists of up to `rows` pairs."""
        pairs = self.scan(prefix)
        while page := list(itertools.islice(pairs, rows)):
            yield page

    def range(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """The first `limit` pairs from `start` up to, and without, `end`, in key order."""
        self._require_open()
        return [(key, self._rows[key]) for key in sorted(self._rows) if start <= key < end][:limit]

    def write(self, batch: WriteBatch) -> None:
        """Apply atomically; not durable before `flush`."""
        for start, end in batch.delete_ranges:
            for key in [key for key in self._rows if start <= key < end]:
                del self._rows[key]
        self._rows.update(batch.puts)

    def flush(self) -> None:
        """Make all writes so far survive a crash."""
        self._durable.clear()
        self._durable.update(self._rows)

    def bytes_used(self) -> int:
        """Bytes of keys and values."""
        return sum(len(key) + len(value) for key, value in self._rows.items())

    def close(self) -> None:
        """Flush and release."""
        self.flush()
        self._is_closed = True

    def _require_open(self) -> None:
        if self._is_closed:
            raise StoreClosed
