"""A store that gathers what is written, and passes it on in larger batches.

A key that is written in each cycle reaches RocksDB once for many cycles. Nothing is lost by it: RocksDB's own
write-ahead log is off, so that a crash loses what came after the last flush in either case, and the journal has it.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from streams.state.rocks import RocksStore
from streams.state.shares import Shares
from streams.state.store import WriteBatch

_ROW_BYTES: Final = 170
"""Of a row beside its key and value: two objects and a place in the dictionary."""


class WriteBehindStore:
    """A `Store` over a RocksDB database. Reads see what is gathered; `flush`, `checkpoint` and `close` pass it on.

    Batches are passed on whole and in their order: the database always is as of the end of a batch.
    """

    def __init__(self, store: RocksStore, shares: Shares) -> None:
        """`store` is only used through this one from now on, which gathers up to one of `shares`."""
        self._store = store
        self._shares = shares
        self._shares.join()
        self._is_open = True
        self._lock = threading.Lock()
        """Guards the two dictionaries; held for moments."""
        self._passing_on = threading.Lock()
        """Held while rows are written to the database."""
        self._gathered: dict[bytes, bytes] = {}
        self._passed_on: dict[bytes, bytes] = {}
        """Rows that are being written to the database."""
        self._bytes = 0

    @property
    def path(self) -> Path:
        """Where the database is."""
        return self._store.path

    @property
    def on_scanned(self) -> Callable[[], object]:
        """See `RocksStore.on_scanned`."""
        return self._store.on_scanned

    @on_scanned.setter
    def on_scanned(self, call: Callable[[], object]) -> None:
        self._store.on_scanned = call

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Values of `keys`, None for absent ones."""
        with self._lock:
            if not self._gathered and not self._passed_on:
                known: list[bytes | None] = []
            else:
                older = list(map(self._passed_on.get, keys))
                known = list(map(self._gathered.get, keys, older))
        asked = [key for key, value in zip(keys, known, strict=True) if value is None] if known else keys
        found = self._store.get_many(asked)
        if len(asked) == len(keys):
            return found
        rest = iter(found)
        return [next(rest) if value is None else value for value in known]

    def range(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """The first `limit` pairs from `start` up to, and without, `end`, in key order, all as of one moment."""
        self._pass_on()
        return self._store.range(start, end, limit)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All pairs whose key begins with `prefix`, in key order."""
        self._pass_on()
        yield from self._store.scan(prefix)

    def pages(self, prefix: bytes, rows: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """As `scan`, in lists of up to `rows` pairs."""
        self._pass_on()
        yield from self._store.pages(prefix, rows)

    def write(self, batch: WriteBatch) -> None:
        """Apply atomically; survives a crash of the process only after `flush`.

        Raises:
            StoreUnavailable: nothing was applied.

        """
        puts = dict(batch.puts)
        added = _bytes_of(puts)
        if batch.delete_ranges or added > self._shares.each:
            self._pass_on()
            self._store.write(batch)
            return
        if self._bytes + added > self._shares.each:
            self._pass_on()
        with self._lock:
            replaced = {key: self._gathered[key] for key in puts.keys() & self._gathered.keys()}
            self._gathered.update(puts)
            self._grew(added - _bytes_of(replaced))

    def flush(self) -> None:
        """Make all writes so far survive a crash of the process."""
        self._pass_on()
        self._store.flush()

    def checkpoint(self, folder: Path) -> None:
        """See `RocksStore.checkpoint`."""
        self._pass_on()
        self._store.checkpoint(folder)

    def bytes_used(self) -> int:
        """Bytes of what is gathered, of live tables on disk and of memtables."""
        return self._bytes + self._store.bytes_used()

    def close(self) -> None:
        """Flush and release the database and its lock."""
        try:
            self._pass_on()
        finally:
            self._leave()
            self._store.close()

    def abandon(self) -> None:
        """Release the database and its lock; what is gathered is dropped."""
        self._leave()
        self._store.abandon()

    def _leave(self) -> None:
        with self._lock:
            self._gathered, self._passed_on = {}, {}
            self._grew(-self._bytes)
            if self._is_open:
                self._shares.leave()
            self._is_open = False

    def _pass_on(self) -> None:
        """Write what is gathered to the database.

        Raises:
            StoreUnavailable: nothing was written; it is kept.

        """
        with self._passing_on:
            with self._lock:
                if not self._gathered:
                    return
                self._passed_on, self._gathered = self._gathered, {}
                passed_bytes = self._bytes
            try:
                self._store.write(WriteBatch(puts=list(self._passed_on.items())))
            except BaseException:
                with self._lock:
                    self._gathered = {**self._passed_on, **self._gathered}
                    self._passed_on = {}
                raise
            with self._lock:
                self._passed_on = {}
                self._grew(-passed_bytes)

    def _grew(self, more: int) -> None:
        self._bytes += more
        self._shares.use(more)


def _bytes_of(rows: Mapping[bytes, bytes]) -> int:
    return sum(map(len, rows.keys())) + sum(map(len, rows.values())) + _ROW_BYTES * len(rows)
