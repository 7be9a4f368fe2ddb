"""The data directory of a worker: one process at a time, one identity across restarts."""

import fcntl
import os
import uuid
from pathlib import Path
from typing import IO

from streams.errors import StreamsError


class DataDirectory:
    """A locked data directory. The lock goes with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        """Create the directory if need be, and take it.

        Raises:
            StreamsError: another worker has it, or it cannot be written.

        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (path / "worker.lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise StreamsError(f"cannot use the data directory {path}: {error.strerror}: set --data-dir") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            raise StreamsError(
                f"the data directory {path} is in use by another worker (process {holder}): "
                "give each worker its own with --data-dir"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        self.worker_id = self._identity()

    def store_path(self, pipeline: str, partition: int) -> Path:
        """Where the store of a partition is."""
        return self.path / pipeline / str(partition)

    def release(self) -> None:
        """Give the directory back."""
        self._lock.close()

    def _identity(self) -> str:
        file = self.path / "worker.id"
        if file.exists() and (known := file.read_text(encoding="utf-8").strip()):
            return known
        identity = uuid.uuid4().hex[:12]
        partial = file.with_suffix(".partial")
        partial.write_text(identity, encoding="utf-8")
        partial.replace(file)
        return identity
