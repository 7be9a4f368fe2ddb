"""A note beside a store's files: when it had all rows that were committed.

A row of a compacted topic that is deleted leaves nothing behind after `delete.retention.ms`. So a store that has missed
the deletion may be brought forward for a limited time only (`engine.restore`). The note is never later than what is on
disk: it is written after a flush. One of its own file, since it changes while the state does not.
"""

from pathlib import Path
from typing import Final

from streams.limits import STORE_AGE_MS_MAX, STORE_NOTE_MS_MAX
from streams.state.store import StoreUnavailable

_NAME: Final = "complete_at_ms"
UNKNOWN_MS: Final = STORE_AGE_MS_MAX + 1


def note_complete(path: Path, at_ms: int) -> None:
    """Note that the store at `path`, as it is on disk, has all that was committed at `at_ms`.

    Raises:
        StoreUnavailable: the disk refuses.

    """
    partial = path / f"{_NAME}.partial"
    try:
        partial.write_text(str(at_ms), encoding="ascii")
        partial.replace(path / _NAME)
    except OSError as error:
        raise StoreUnavailable(f"the state directory {path} cannot be written: {error.strerror}") from error


def age_ms(path: Path, now_ms: int) -> int:
    """How long ago the store at `path` had all that was committed; 0: it has no note, as those of earlier versions.

    A note that cannot be read, or is of a time to come, is older than any that counts.
    """
    try:
        age = now_ms - int((path / _NAME).read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError):
        return UNKNOWN_MS
    return UNKNOWN_MS if age < -STORE_NOTE_MS_MAX else max(age, 0)
