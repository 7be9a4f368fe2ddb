"""A partition is restored only where its state can be written."""

from pathlib import Path

import pytest

from streams.state.disk import require_room
from streams.state.store import StoreUnavailable
from tests.faults.disk import SmallDisk


def test_where_there_is_room_nothing_stays(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "gps"
    require_room(folder)
    assert not list(folder.iterdir())


def test_a_full_disk_is_said_and_room_is_found_again(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "small", mb=4) as disk:
        require_room(disk.path / "gps")
        disk.fill()
        with pytest.raises(StoreUnavailable, match="gps cannot be written: No space left on device"):
            require_room(disk.path / "gps")
        disk.enlarge(mb=8)
        require_room(disk.path / "gps")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreUnavailable, match="gps cannot be written: Not a directory"):
        require_room(tmp_path / "data" / "gps")
