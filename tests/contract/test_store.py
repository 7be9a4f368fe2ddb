"""One contract over RocksDB and its in-memory twin; then what only a disk can do: lie."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from streams.state.memory import MemoryStore
from streams.state.rocks import RocksMemory, RocksStore, open_compared, open_or_quarantine
from streams.state.store import Store, StoreClosed, StoreCorrupted, StoreUnavailable, WriteBatch, prefix_end
from streams.state.write_behind import WriteBehindStore

MARKER = b"m"


def rocks_memory(gathered_bytes: int = 0) -> RocksMemory:
    return RocksMemory(cache_bytes=4 << 20, memtable_bytes=4 << 20, gathered_bytes=gathered_bytes)


class RocksSubject:
    """RocksDB; a crash is a copy of the directory while it is open: what a killed process leaves.

    `gathered_bytes`: how much is gathered before it is written to the database; None: the database alone.
    """

    def __init__(self, path: Path, gathered_bytes: int | None = None) -> None:
        self._path = path
        self._gathered_bytes = gathered_bytes
        self._crashes = 0
        self._open: list[Store] = []

    def open(self) -> Store:
        memory = rocks_memory(self._gathered_bytes or 0)
        database = RocksStore(self._path, memory)
        store = database if self._gathered_bytes is None else WriteBehindStore(database, memory.gathered)
        self._open.append(store)
        return store

    def crash(self, _store: Store) -> Store:
        self._crashes += 1
        aside = self._path.with_name(f"crashed-{self._crashes}")
        shutil.copytree(self._path, aside)
        self._path = aside
        return self.open()

    def reopen(self, store: Store) -> Store:
        store.close()
        self._open.remove(store)
        return self.open()

    def finish(self) -> None:
        for store in self._open:
            store.close()


class MemorySubject:
    """The twin: what is durable is the dictionary as of the last flush."""

    def __init__(self) -> None:
        self._disk: dict[bytes, bytes] = {}

    def open(self) -> MemoryStore:
        return MemoryStore(self._disk)

    def crash(self, _store: Store) -> MemoryStore:
        return MemoryStore(self._disk)

    def reopen(self, store: Store) -> MemoryStore:
        store.close()
        return MemoryStore(self._disk)

    def finish(self) -> None:
        pass


GATHERED = {"rocks": None, "write-behind of nothing": 0, "of two rows": 400, "of everything": 1 << 20}


@pytest.fixture(params=["memory", *GATHERED])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemorySubject | RocksSubject]:
    path = tmp_path / "state" / "0"
    made = MemorySubject() if request.param == "memory" else RocksSubject(path, GATHERED[request.param])
    yield made
    made.finish()


@pytest.fixture
def store(subject: MemorySubject | RocksSubject) -> Store:
    return subject.open()


def rows(store: Store, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
    return list(store.scan(prefix))


def put(store: Store, *pairs: tuple[bytes, bytes]) -> None:
    store.write(WriteBatch(puts=list(pairs)))


def test_a_new_store_is_empty(store: Store) -> None:
    assert rows(store) == []
    assert store.get_many([]) == []
    assert store.get_many([b"a", b""]) == [None, None]


def test_get_many_answers_in_the_order_asked_with_none_for_absent_keys_and_repeats(store: Store) -> None:
    put(store, (b"a", b"1"), (b"b", b"2"))
    assert store.get_many([b"b", b"x", b"a", b"b"]) == [b"2", None, b"1", b"2"]


def test_an_empty_value_is_a_value(store: Store) -> None:
    put(store, (b"a", b""))
    assert store.get_many([b"a"]) == [b""]
    assert rows(store, b"a") == [(b"a", b"")]


def test_scan_gives_the_prefix_only_in_key_order(store: Store) -> None:
    put(store, (b"b2", b"4"), (b"a", b"1"), (b"b", b"2"), (b"b1", b"3"), (b"c", b"5"))
    assert rows(store, b"b") == [(b"b", b"2"), (b"b1", b"3"), (b"b2", b"4")]
    assert [key for key, _ in store.scan(b"")] == [b"a", b"b", b"b1", b"b2", b"c"]
    assert rows(store, b"bb") == []


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_pages_give_what_a_scan_gives(store: Store, count: int) -> None:
    put(store, *((b"b%d" % i, b"%d" % i) for i in range(3)), (b"a", b"1"), (b"c", b"5"))
    pages = list(store.pages(b"b", count))
    assert rows(store, b"b") == [pair for page in pages for pair in page]
    assert [count] * (3 // count) + [3 % count] * (3 % count > 0) == list(map(len, pages))
    assert [] == list(store.pages(b"bb", count))


def test_a_range_gives_the_first_pairs_from_its_start_and_none_from_its_end_on(store: Store) -> None:
    put(store, *((b"k%d" % i, b"%d" % i) for i in range(8)), (b"l", b"9"))
    assert store.range(b"k3", b"k6", 10) == [(b"k3", b"3"), (b"k4", b"4"), (b"k5", b"5")]
    assert store.range(b"k3", b"z", 2) == [(b"k3", b"3"), (b"k4", b"4")]
    assert store.range(b"k77", b"z", 5) == [(b"l", b"9")]
    assert store.range(b"m", b"z", 5) == []


def test_whoever_reads_a_store_that_was_closed_meanwhile_is_told(subject: MemorySubject | RocksSubject) -> None:
    store = subject.open()
    put(store, (b"a", b"1"))
    subject.reopen(store)
    with pytest.raises(StoreClosed):
        store.get_many([b"a"])
    with pytest.raises(StoreClosed):
        store.range(b"a", b"b", 1)


def test_keys_with_255_bytes_are_keys_like_others(store: Store) -> None:
    keys = [b"a\xfe\xff", b"a\xff", b"a\xff\x00", b"a\xff\xff", b"a\xff\xff\xff", b"b", b"\xff", b"\xff\xff\x01"]
    put(store, *((key, key[::-1]) for key in keys))
    assert [key[::-1] for key in keys] == store.get_many(keys)
    assert [key for key, _ in store.scan(b"a\xff")] == [b"a\xff", b"a\xff\x00", b"a\xff\xff", b"a\xff\xff\xff"]
    assert [key for key, _ in store.scan(b"a\xff\xff")] == [b"a\xff\xff", b"a\xff\xff\xff"]
    assert [key for key, _ in store.scan(b"\xff")] == [b"\xff", b"\xff\xff\x01"]
    assert sorted(keys) == [key for key, _ in store.scan(b"")]


def test_the_last_put_of_a_key_wins_within_and_across_batches(store: Store) -> None:
    put(store, (b"a", b"1"), (b"a", b"2"))
    assert store.get_many([b"a"]) == [b"2"]
    put(store, (b"a", b"3"))
    assert store.get_many([b"a"]) == [b"3"]


def test_delete_ranges_are_half_open_and_come_before_the_puts_of_their_batch(store: Store) -> None:
    put(store, *((b"k%d" % i, b"old") for i in range(6)))
    store.write(WriteBatch(delete_ranges=[(b"k1", b"k3"), (b"k4", b"k4\0")], puts=[(b"k2", b"new"), (b"k9", b"new")]))
    assert rows(store) == [(b"k0", b"old"), (b"k2", b"new"), (b"k3", b"old"), (b"k5", b"old"), (b"k9", b"new")]
    assert store.get_many([b"k1", b"k2", b"k4"]) == [None, b"new", None]


def test_a_deleted_range_stays_deleted_after_a_flush_and_a_reopen(
    subject: MemorySubject | RocksSubject, store: Store
) -> None:
    put(store, (b"a1", b"1"), (b"a2", b"2"), (b"b", b"3"))
    store.flush()
    store.write(WriteBatch(delete_ranges=[(b"a", prefix_end(b"a"))]))
    store = subject.reopen(store)
    assert rows(store) == [(b"b", b"3")]


def test_an_empty_batch_changes_nothing(store: Store) -> None:
    put(store, (b"a", b"1"))
    store.write(WriteBatch())
    assert rows(store) == [(b"a", b"1")]


def test_a_scan_is_not_disturbed_by_writes_behind_it(store: Store) -> None:
    put(store, *((b"k%d" % i, b"old") for i in range(4)))
    scan = store.scan(b"k")
    first = next(scan)
    put(store, (b"k2", b"new"), (b"k9", b"new"))
    seen = [first, *scan]
    assert [key for key, _ in seen if key != b"k9"] == [b"k0", b"k1", b"k2", b"k3"]


def test_closing_keeps_everything(subject: MemorySubject | RocksSubject, store: Store) -> None:
    put(store, (b"a", b"1"), (b"b", b""))
    store = subject.reopen(store)
    assert rows(store) == [(b"a", b"1"), (b"b", b"")]
    put(store, (b"c", b"3"))
    store = subject.reopen(store)
    assert store.get_many([b"a", b"b", b"c"]) == [b"1", b"", b"3"]


def test_a_crash_keeps_what_was_flushed(subject: MemorySubject | RocksSubject, store: Store) -> None:
    put(store, (b"a", b"1"))
    store.flush()
    store = subject.crash(store)
    assert rows(store) == [(b"a", b"1")]


def test_a_crash_loses_whole_batches_only_and_never_one_before_a_kept_one(
    subject: MemorySubject | RocksSubject, store: Store
) -> None:
    for number in range(30):
        mine, before, value = b"r%03d" % number, b"r%03d" % (number - 1), b"%03d" % number
        rows_of_all = [(key, value) for key in (*(b"x%02d" % i for i in range(10)), MARKER)]
        batch = WriteBatch(delete_ranges=[(before, before + b"\0")], puts=[(mine, b""), *rows_of_all])
        store.write(batch)
        if number == 11:
            store.flush()
    store = subject.crash(store)
    [marker] = store.get_many([MARKER])
    assert marker is not None
    assert int(marker) >= 11
    assert {marker} == {value for _, value in store.scan(b"x")}
    assert [(b"r" + marker, b"")] == rows(store, b"r")


def test_bytes_used_grows_with_what_is_stored(store: Store) -> None:
    before = store.bytes_used()
    put(store, *((b"k%d" % i, os.urandom(1000)) for i in range(500)))
    store.flush()
    assert store.bytes_used() >= before + 250_000


def test_the_end_of_a_prefix_is_behind_all_its_keys() -> None:
    assert prefix_end(b"a") == b"b"
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"\xff\xff") > b"\xff" * 20


# --- rows that are gathered before they are written -------------------------------------------------------------------


class Database(RocksStore):
    """Notes what is written to it, and refuses when it is told to."""

    def __init__(self, path: Path, memory: RocksMemory) -> None:
        super().__init__(path, memory)
        self.written: list[int] = []
        self.is_full = False

    def write(self, batch: WriteBatch) -> None:
        if self.is_full:
            raise StoreUnavailable("No space left on device")
        self.written.append(len(batch.puts))
        super().write(batch)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "0", rocks_memory(10_000))


@pytest.fixture
def gathering(database: Database, tmp_path: Path) -> Iterator[WriteBehindStore]:
    memory = rocks_memory(10_000)
    store = WriteBehindStore(database, memory.gathered)
    yield store
    database.is_full = False
    store.close()
    assert 0 == memory.gathered.bytes_used


def test_a_key_that_is_written_again_and_again_reaches_the_database_once(
    database: Database, gathering: WriteBehindStore
) -> None:
    for number in range(1_000):
        put(gathering, *((b"k%d" % key, b"%d" % number) for key in range(5)))
    assert [] == database.written
    gathering.flush()
    assert [5] == database.written
    assert [b"999"] == database.get_many([b"k3"])


def test_rows_beyond_the_share_are_written_and_a_batch_beyond_it_alone(
    database: Database, gathering: WriteBehindStore
) -> None:
    put(gathering, *((b"k%d" % key, bytes(1_000)) for key in range(5)))
    put(gathering, *((b"l%d" % key, bytes(1_000)) for key in range(5)))
    assert [5] == database.written
    put(gathering, *((b"m%d" % key, bytes(1_000)) for key in range(20)))
    assert [5, 5, 20] == database.written
    assert 30 == len(rows(gathering))


def test_a_share_is_smaller_the_more_stores_there_are(tmp_path: Path) -> None:
    memory = rocks_memory(10_000)
    stores = [WriteBehindStore(RocksStore(tmp_path / str(number), memory), memory.gathered) for number in range(4)]
    assert 2_500 == memory.gathered.each
    put(stores[0], (b"a", bytes(500)))
    assert memory.bytes_used() >= memory.gathered.bytes_used >= 500
    for store in stores[1:]:
        store.abandon()
    assert 10_000 == memory.gathered.each
    stores[0].close()
    assert 0 == memory.gathered.bytes_used


def test_when_the_disk_refuses_nothing_is_applied_and_nothing_is_lost(
    database: Database, gathering: WriteBehindStore
) -> None:
    put(gathering, (b"a", b"1"), (b"b", b"1"))
    database.is_full = True
    for batch in (
        WriteBatch(puts=[(b"a", bytes(20_000))]),
        WriteBatch(puts=[(b"a", bytes(9_800))]),
        WriteBatch(delete_ranges=[(b"a", b"b")], puts=[(b"b", b"2")]),
    ):
        with pytest.raises(StoreUnavailable):
            gathering.write(batch)
    with pytest.raises(StoreUnavailable):
        gathering.flush()
    assert [b"1", b"1", None] == gathering.get_many([b"a", b"b", b"c"])
    put(gathering, (b"b", b"3"))
    database.is_full = False
    assert [(b"a", b"1"), (b"b", b"3")] == rows(gathering)


def test_rows_are_seen_at_every_moment_while_they_are_written(gathering: WriteBehindStore) -> None:
    keys = [b"k%d" % key for key in range(20)]
    put(gathering, *((key, b"0") for key in keys))
    failed: list[list[bytes | None]] = []
    ends = threading.Event()

    def look() -> None:
        newest = 0
        while not ends.is_set():
            found = gathering.get_many(keys)
            if None in found or min(map(int, filter(None, found))) < newest:
                failed.append(found)
            newest = min(int(value or 0) for value in found)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, 1_500):
        put(gathering, *((key, b"%d" % number) for key in keys))
        if not number % 7:
            gathering.flush()
    ends.set()
    for thread in threads:
        thread.join()
    assert [] == failed


def test_an_abandoned_store_is_as_of_its_last_flush(tmp_path: Path) -> None:
    memory = rocks_memory(10_000)
    store = WriteBehindStore(RocksStore(tmp_path / "0", memory), memory.gathered)
    put(store, (b"a", b"1"))
    store.flush()
    put(store, (b"a", b"2"))
    store.abandon()
    again = RocksStore(tmp_path / "0", memory)
    assert [(b"a", b"1")] == rows(again)
    again.close()


# --- a disk that lies -------------------------------------------------------------------------------------------------


def test_a_killed_process_leaves_a_consistent_store(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from streams.state.rocks import RocksMemory, RocksStore
        from streams.state.store import WriteBatch

        store = RocksStore(Path(sys.argv[1]), RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20))
        for number in range(10**9):
            rows = [(b"x%02d" % i, b"%09d" % number * 50) for i in range(20)]
            store.write(WriteBatch(puts=[*rows, (b"m", b"%09d" % number)]))
            if number % 500 == 0:
                store.flush()
                print(number, flush=True)
        """
    )
    path = tmp_path / "store"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        flushed = [int(process.stdout.readline()) for _ in range(4)]
        process.send_signal(signal.SIGKILL)
    store = open_or_quarantine(path, rocks_memory())
    [marker] = store.get_many([MARKER])
    assert marker is not None
    assert int(marker) >= flushed[-1]
    assert {marker * 50} == {value for _, value in store.scan(b"x")}
    store.close()


VERSIONS = 3


def version(number: int) -> list[tuple[bytes, bytes]]:
    """Rows as of the flush `number`: the marker says which, and the rows must agree with it."""
    return [(MARKER, b"%d" % number), *((b"x%05d" % i, b"%d-%d" % (i, number) * 8) for i in range(600))]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "0"
    store = RocksStore(path, rocks_memory())
    for number in range(VERSIONS):
        store.write(WriteBatch(puts=version(number)))
        store.flush()
    store.close()
    return path


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    path = tmp_path / "gps" / "0"
    shutil.copytree(sound, path)
    return path


def newest(path: Path, pattern: str) -> Path:
    return max(path.glob(pattern))


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)


def assert_replaced_by_an_empty_store(path: Path) -> None:
    tables = {file.name for file in path.glob("*.sst")}
    with structlog.testing.capture_logs() as lines:
        store = open_or_quarantine(path, rocks_memory())
    assert rows(store) == []
    assert store.get_many([MARKER]) == [None]
    aside = path.with_name("0.corrupt-1")
    assert tables == {file.name for file in aside.glob("*.sst")}, "kept for a look"
    assert [(str(aside), "warning")] == [(line["kept"], line["log_level"]) for line in lines]
    put(store, (MARKER, b"rebuilt"))
    store.close()
    store = open_or_quarantine(path, rocks_memory())
    assert rows(store) == [(MARKER, b"rebuilt")]
    store.close()


def test_a_sound_store_is_served_as_it_is(damaged: Path) -> None:
    store = open_or_quarantine(damaged, rocks_memory())
    assert version(VERSIONS - 1) == rows(store)
    assert not damaged.with_name("0.corrupt-1").exists()
    store.close()


def test_pages_that_end_at_a_damaged_block_say_so(tmp_path: Path) -> None:
    """RocksDB's iterator of pairs ends there as it does at the end of the rows."""
    store = RocksStore(tmp_path / "0", rocks_memory())
    put(store, *((b"k%06d" % i, os.urandom(80)) for i in range(2_000)))
    store.close()
    (table,) = (tmp_path / "0").glob("*.sst")
    flip(table, table.stat().st_size // 2)
    store = open_compared(tmp_path / "0", rocks_memory())
    pages = store.pages(b"k", 100)
    assert 100 == len(next(pages))
    with pytest.raises(StoreCorrupted, match="checksum"):
        list(pages)
    store.abandon()
    open_or_quarantine(tmp_path / "0", rocks_memory()).close()
    assert (tmp_path / "0.corrupt-1").exists(), "what was not compared with its checksum just now is read"


@pytest.mark.parametrize("at", [0, 100, 3000, 6000])
def test_flipped_bytes_in_a_data_block_are_never_served(damaged: Path, at: int) -> None:
    flip(newest(damaged, "*.sst"), at)
    assert_replaced_by_an_empty_store(damaged)


def test_a_scan_over_a_corrupt_block_says_so_instead_of_ending_early(damaged: Path) -> None:
    flip(newest(damaged, "*.sst"), 3000)
    store = RocksStore(damaged, rocks_memory())
    with pytest.raises(StoreCorrupted, match="checksum"):
        rows(store)
    store.abandon()


@pytest.mark.thorough
def test_wherever_a_byte_of_a_table_is_flipped_only_what_was_written_is_served(sound: Path, tmp_path: Path) -> None:
    size = newest(sound, "*.sst").stat().st_size
    quarantined = 0
    for number, at in enumerate(range(5, size, size // 40)):
        path = tmp_path / str(number) / "0"
        shutil.copytree(sound, path)
        flip(newest(path, "*.sst"), at)
        with structlog.testing.capture_logs():
            store = open_or_quarantine(path, rocks_memory())
        served = rows(store)
        assert served in ([], version(VERSIONS - 1)), f"byte {at}"
        expected = [dict(served).get(b"x%05d" % i) for i in range(0, 600, 7)]
        with contextlib.suppress(StoreCorrupted):  # a filter, read by look-ups only, is refused when it is met
            assert expected == store.get_many([b"x%05d" % i for i in range(0, 600, 7)])
        quarantined += not served
        store.close()
    assert quarantined > 20


def test_a_table_file_that_is_cut_off_is_never_served(damaged: Path) -> None:
    os.truncate(newest(damaged, "*.sst"), 1000)
    assert_replaced_by_an_empty_store(damaged)


def test_a_table_file_that_is_gone_is_noticed(damaged: Path) -> None:
    newest(damaged, "*.sst").unlink()
    assert_replaced_by_an_empty_store(damaged)


def test_a_store_without_current_is_never_served(damaged: Path) -> None:
    (damaged / "CURRENT").unlink()
    assert_replaced_by_an_empty_store(damaged)


@pytest.mark.parametrize("content", [b"", b"MANIFEST-999999\n", b"garbage\n"])
def test_a_store_whose_current_is_garbage_is_never_served(damaged: Path, content: bytes) -> None:
    (damaged / "CURRENT").write_bytes(content)
    assert_replaced_by_an_empty_store(damaged)


def test_a_store_without_manifest_is_never_served(damaged: Path) -> None:
    newest(damaged, "MANIFEST-*").unlink()
    assert_replaced_by_an_empty_store(damaged)


@pytest.mark.parametrize("at", [8, 60, 150])
def test_a_store_with_flipped_bytes_in_its_manifest_is_never_served(damaged: Path, at: int) -> None:
    flip(newest(damaged, "MANIFEST-*"), at)
    assert_replaced_by_an_empty_store(damaged)


@pytest.mark.parametrize("part", [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_truncated_manifest_serves_an_earlier_flush_as_a_whole_or_nothing(damaged: Path, part: float) -> None:
    """A cut-off end is what a crash leaves: RocksDB goes back to the last whole edit, a state that once was."""
    manifest = newest(damaged, "MANIFEST-*")
    os.truncate(manifest, int(manifest.stat().st_size * part))
    with structlog.testing.capture_logs():
        store = open_or_quarantine(damaged, rocks_memory())
    assert rows(store) in [[], *(version(number) for number in range(VERSIONS))]
    store.close()


def test_stores_moved_aside_do_not_overwrite_each_other(damaged: Path, sound: Path) -> None:
    (damaged / "CURRENT").unlink()
    with structlog.testing.capture_logs():
        open_or_quarantine(damaged, rocks_memory()).close()
        (damaged / "CURRENT").unlink()
        open_or_quarantine(damaged, rocks_memory()).close()
    assert sorted(file.name for file in damaged.parent.iterdir()) == ["0", "0.corrupt-1", "0.corrupt-2"]


def test_closing_waits_for_the_reads_of_other_threads(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "0", rocks_memory())
    put(store, *((b"k%05d" % i, b"x" * 50) for i in range(5_000)))
    counts: list[int] = []
    refused = threading.Event()

    def read() -> None:
        try:
            while True:
                counts.append(len(store.range(b"k", b"l", 5_000)))
        except StoreClosed:
            refused.set()

    reader = threading.Thread(target=read)
    reader.start()
    while len(counts) < 3:
        reader.join(0.01)
        assert reader.is_alive()
    store.close()
    reader.join(30)
    assert refused.is_set()
    assert {5_000} == set(counts)
    RocksStore(tmp_path / "0", rocks_memory()).close()


def test_a_store_that_is_open_cannot_be_opened_twice_and_is_not_moved_aside(damaged: Path) -> None:
    store = RocksStore(damaged, rocks_memory())
    with pytest.raises(Exception, match=r"[Ll]ock"):
        open_or_quarantine(damaged, rocks_memory())
    assert version(VERSIONS - 1) == rows(store)
    assert not damaged.with_name("0.corrupt-1").exists()
    store.close()
