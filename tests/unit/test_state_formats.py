"""A store and a journal of every format that this version reads are restored, each by itself and together."""

import shutil
from pathlib import Path

import pytest

from streams.engine.restore import read_checkpoint, restore_partition
from streams.kafka.memory import MemoryChangelog
from streams.state.checkpoint import FORMAT
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import Store
from tests.state_formats import FOLDER, Written, config, nothing, read, summary

FORMATS = sorted(int(path.name) for path in FOLDER.iterdir() if path.name.isdigit())


def restored(written: Written, store: Store) -> dict[str, object]:
    task = restore_partition(config(), 0, store, MemoryChangelog(written.kafka), ids_in_memory_max=100_000)
    return summary(task)


def opened(written: Written, to: Path) -> RocksStore:
    shutil.copytree(written.store, to)
    return RocksStore(to, RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20))


def test_there_is_a_fixture_of_the_format_of_today() -> None:
    assert FORMAT in FORMATS


@pytest.mark.parametrize("number", FORMATS)
def test_a_store_is_brought_forward_by_the_journal(number: int, tmp_path: Path) -> None:
    written = read(FOLDER / str(number))
    store = opened(written, tmp_path / "0")
    checkpoint = read_checkpoint(store)
    assert checkpoint is not None
    assert 0 < checkpoint.cycle < written.expected["cycle"]  # so the journal has something to add
    assert written.expected == restored(written, store)


@pytest.mark.parametrize("number", FORMATS)
def test_a_journal_alone_is_restored(number: int) -> None:
    written = read(FOLDER / str(number))
    assert written.expected == restored(written, nothing())
