"""Checks that the disk of the local state accepts writes, before a partition is restored there."""

import os
import tempfile
from pathlib import Path
from typing import Final

from streams.state.store import StoreUnavailable

_ROOM_BYTES: Final = 1 << 20
"""What has to be free: enough for what opening a store writes."""


def require_room(folder: Path) -> None:
    """Return when a file of a megabyte can be written in `folder`, which is created; the file is removed.

    A store without writes opens on a full disk too. Its partition would run until its next flush fails, and then read
    an ever longer end of the journal each time. So it waits for room first.

    Raises:
        StoreUnavailable: the disk refuses, and why.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, _ROOM_BYTES)
    except OSError as error:
        raise StoreUnavailable(f"the state directory {folder} cannot be written: {error.strerror}") from error
