"""The store protocol over RocksDB (the only import of rocksdict).

One database per partition, all of a process sharing one block cache and one bound on memtables. The write-ahead log is
off: Kafka is the log, and after a crash the checkpoint inside the database says from where to replay it.
"""

import itertools
import shutil
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBufferManager,
    WriteOptions,
)
from rocksdict import WriteBatch as RocksBatch

from streams.limits import SCAN_SIGN_ROWS
from streams.state.shares import Shares
from streams.state.store import StoreClosed, StoreCorrupted, StoreUnavailable, WriteBatch, prefix_end

log = structlog.get_logger(__name__)

_BLOOM_BITS_PER_KEY: Final = 10
_BLOCK_BYTES: Final = 16 * 1024
_CORRUPTION: Final = ("Corruption", "does not exist", "checksum", "No such file", "bad magic", "truncated")


class RocksMemory:
    """Block cache, bound on memtables, and what may be gathered before it is written: all stores of a process share."""

    def __init__(self, *, cache_bytes: int, memtable_bytes: int, gathered_bytes: int = 0) -> None:
        """`gathered_bytes`: see `write_behind`; 0: everything is written at once."""
        self.cache = Cache(cache_bytes)
        self.memtables = WriteBufferManager(memtable_bytes, False)  # noqa: FBT003 - positional in rocksdict
        self.gathered = Shares(gathered_bytes)

    def bytes_used(self) -> int:
        """Bytes in the block cache, in memtables, and gathered."""
        return int(self.cache.get_usage()) + int(self.memtables.get_usage()) + self.gathered.bytes_used


class _Readers:
    """Reads of a database that are under way: it is closed once there are none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._is_closed = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Guards a read.

        Raises:
            StoreClosed: it comes too late.

        """
        with self._changed:
            if self._is_closed:
                raise StoreClosed
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()  # whoever closes it may wait

    def close(self) -> None:
        """Let no more begin, and wait for those under way."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._count)


class RocksStore:
    """A RocksDB database as a `Store`."""

    def __init__(self, path: Path, memory: RocksMemory, *, read_only: bool = False) -> None:
        """Open or create the database at `path`; `read_only`, one that is there, which may be in use.

        Raises:
            StoreCorrupted: there is something at `path`, and it is not a sound database.
            StoreUnavailable: the disk refuses.

        """
        self.path = path
        self.on_scanned: Callable[[], object] = lambda: None
        """Called after every `SCAN_SIGN_ROWS` rows of a scan, which may take minutes; what it raises ends the scan."""
        path.parent.mkdir(parents=True, exist_ok=True)
        table = BlockBasedOptions()
        table.set_block_cache(memory.cache)
        table.set_bloom_filter(_BLOOM_BITS_PER_KEY, False)  # noqa: FBT003 - positional in rocksdict
        table.set_block_size(_BLOCK_BYTES)
        table.set_cache_index_and_filter_blocks(True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)  # noqa: FBT003
        options.set_block_based_table_factory(table)
        options.set_write_buffer_manager(memory.memtables)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_paranoid_checks(True)
        options.set_max_background_jobs(2)
        options.set_keep_log_file_num(2)
        options.set_max_open_files(256)
        self._readers = _Readers()
        self._write_options = WriteOptions()
        self._write_options.disable_wal = True
        try:
            access = AccessType.read_only() if read_only else AccessType.read_write()
            self._db = Rdict(str(path), options, access_type=access)
        except Exception as error:
            raise _translated(error) from error

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Values of `keys`, None for absent ones."""
        if not keys:
            return []
        with self._readers.reading():
            try:
                return list(self._db[keys])
            except Exception as error:
                raise _translated(error) from error

    def range(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """The first `limit` pairs from `start` up to, and without, `end`, in key order, all as of one moment."""
        found: list[tuple[bytes, bytes]] = []
        with self._readers.reading():
            rows = self._db.iter()  # a snapshot of the database
            try:
                rows.seek(start)
                while len(found) < limit and rows.valid() and (key := rows.key()) < end:
                    found.append((key, rows.value()))
                    rows.next()
                rows.status()
            except Exception as error:
                raise _translated(error) from error
            finally:
                del rows
        return found

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All pairs whose key begins with `prefix`, in key order."""
        found = self._scan(prefix)
        try:
            for number, pair in enumerate(found, 1):
                if not number % SCAN_SIGN_ROWS:
                    self.on_scanned()
                yield pair
        finally:
            found.close()

    def _scan(self, prefix: bytes) -> Generator[tuple[bytes, bytes], None, None]:
        end = prefix_end(prefix)
        rows = self._db.iter()
        try:
            rows.seek(prefix)
            while rows.valid() and (key := rows.key()) < end:
                yield key, rows.value()
                rows.next()
            rows.status()  # at a corrupt block an iterator becomes invalid as it does at the end: only this tells
        except Exception as error:
            raise _translated(error) from error
        finally:
            del rows  # it holds the database open, and a traceback would hold it

    def pages(self, prefix: bytes, rows: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """As `scan`, in lists of up to `rows` pairs; `on_scanned` is called after each."""
        bounded = ReadOptions()
        bounded.set_iterate_upper_bound(prefix_end(prefix))
        pairs = self._db.items(from_key=prefix, read_opt=bounded)
        last = prefix
        try:
            while page := list(itertools.islice(pairs, rows)):
                last = page[-1][0]
                yield page
                self.on_scanned()
        finally:
            del pairs
        self._require_end(last)

    def _require_end(self, last: bytes) -> None:
        """Tell the end of the rows from a corrupt block, at which an iterator of pairs ends as well.

        Raises:
            StoreCorrupted: what comes after the pair `last` cannot be read.

        """
        rows = self._db.iter()
        try:
            rows.seek(last)
            if rows.valid():
                rows.next()
            rows.status()
        except Exception as error:
            raise _translated(error) from error
        finally:
            del rows  # as in `_scan`

    def verify(self) -> None:
        """Read every block, and so check its checksum; `on_scanned` is called on the way.

        Raises:
            StoreCorrupted: a block is not what was written.

        """
        found = self._stretches()
        try:
            for _ in found:
                self.on_scanned()
        finally:
            found.close()

    def _stretches(self) -> Generator[None, None, None]:
        """Passes over all rows; yields after every `SCAN_SIGN_ROWS`."""
        rows = self._db.iter()
        try:
            rows.seek_to_first()
            while rows.valid():
                for _ in range(SCAN_SIGN_ROWS):
                    if not rows.valid():
                        break
                    rows.next()
                yield
            rows.status()
        except Exception as error:
            raise _translated(error) from error
        finally:
            del rows  # as in `_scan`

    def write(self, batch: WriteBatch) -> None:
        """Apply atomically; survives a crash of the process only after `flush`."""
        rocks = RocksBatch(raw_mode=True)
        for start, end in batch.delete_ranges:
            rocks.delete_range(start, end)
        for key, value in batch.puts:
            rocks.put(key, value)
        try:
            self._db.write(rocks, self._write_options)
        except Exception as error:
            raise _translated(error) from error

    def flush(self) -> None:
        """Make all writes so far survive a crash of the process."""
        try:
            self._db.flush()
        except Exception as error:
            raise _translated(error) from error

    def checkpoint(self, folder: Path) -> None:
        """Make `folder` a copy of the database as of now, by hard links: on the same disk, and not there yet.

        It is flushed first, which lets other threads run; the rest holds them up for a few milliseconds.

        Raises:
            StoreUnavailable: the disk refuses.

        """
        self.flush()
        try:
            Checkpoint(self._db).create_checkpoint(str(folder))
        except Exception as error:
            raise _translated(error) from error

    def bytes_used(self) -> int:
        """Bytes of live tables on disk and of memtables."""
        names = ("rocksdb.live-sst-files-size", "rocksdb.cur-size-all-mem-tables")
        return sum(int(self._db.property_int_value(name) or 0) for name in names)

    def close(self) -> None:
        """Flush and release the database and its lock."""
        self._readers.close()
        try:
            self.flush()
        finally:
            self._db.close()

    def abandon(self) -> None:
        """Release the database and its lock without flushing: a damaged one is not written to."""
        self._readers.close()
        self._db.close()


def open_or_quarantine(path: Path, memory: RocksMemory, on_scanned: Callable[[], object] = lambda: None) -> RocksStore:
    """Open the store; a damaged one is moved aside (and kept) and replaced by an empty one.

    The restore that follows rebuilds an empty store from Kafka, so corrupt data is never served.
    All of it is read: `on_scanned` is called on the way, and from later scans; what it raises is raised from here.
    """
    return _opened(path, memory, on_scanned, RocksStore.verify)


def open_compared(path: Path, memory: RocksMemory, on_scanned: Callable[[], object] = lambda: None) -> RocksStore:
    """As `open_or_quarantine`, of a store whose files were just compared with their checksums: it is not read again."""
    return _opened(path, memory, on_scanned, lambda _: None)


def _opened(
    path: Path, memory: RocksMemory, on_scanned: Callable[[], object], verify: Callable[[RocksStore], None]
) -> RocksStore:
    store = None
    try:
        store = RocksStore(path, memory)
        store.on_scanned = on_scanned
        verify(store)
    except StoreCorrupted as error:
        if store is not None:
            store.abandon()
        quarantine(path, str(error))
        return RocksStore(path, memory)
    except BaseException:
        if store is not None:
            store.abandon()
        raise
    return store


def set_aside(path: Path, why: str) -> None:
    """Move a sound store of another life or layout aside; one such copy is kept."""
    if not path.exists():
        return
    aside = path.with_name(f"{path.name}.outdated")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.move(path, aside)
    log.warning("local state does not fit: moved aside, to be rebuilt from Kafka", kept=str(aside), why=why)


def quarantine(path: Path, why: str) -> None:
    """Move a store that must not be served aside."""
    if not path.exists():
        return
    numbered = (path.with_name(f"{path.name}.corrupt-{number}") for number in itertools.count(1))
    aside = next(candidate for candidate in numbered if not candidate.exists())
    shutil.move(path, aside)
    log.warning("local state is not sound: moved aside, to be rebuilt from Kafka", kept=str(aside), why=why)


def _translated(error: Exception) -> Exception:
    text = str(error)
    if any(sign in text for sign in _CORRUPTION):
        return StoreCorrupted(text)
    return StoreUnavailable(text)
