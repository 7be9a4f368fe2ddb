"""The data directory of a worker: one process at a time, one identity across restarts."""

import fcntl
import os
import uuid
from pathlib import Path
from typing import IO, Final

from streams.errors import StreamsError, UsageError

_IDENTITY: Final = "worker.id"


class DirectoryLock:
    """A locked directory. The lock ends with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        """Create the directory if need be, and lock it.

        Raises:
            StreamsError: another worker has it, or it cannot be written.

        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = (path / "worker.lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise StreamsError(f"cannot use the data directory {path}: {error.strerror}: set --data-dir") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            raise StreamsError(
                f"the data directory {path} is in use by another worker (process {holder}): "
                "give each worker its own with --data-dir"
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Unlock the directory."""
        self._file.close()


class DataDirectory:
    """A worker's locked data directory, and the worker's identity."""

    def __init__(self, path: Path) -> None:
        """Create the directory if need be, and lock it.

        Raises:
            UsageError: it holds the state of several processes.
            StreamsError: another worker has it, or it cannot be written.

        """
        self.path = path
        if not (path / _IDENTITY).exists() and (path / "0" / _IDENTITY).exists():
            raise UsageError(
                f"{path} holds the state of several processes: start it with --processes, or go on with that of the "
                f"first alone: --data-dir {path / '0'}"
            )
        self._lock = DirectoryLock(path)
        self.worker_id = self._identity()

    def store_path(self, pipeline: str, partition: int) -> Path:
        """Path of a partition's store."""
        return self.path / pipeline / str(partition)

    def release(self) -> None:
        """Unlock the directory."""
        self._lock.release()

    def _identity(self) -> str:
        file = self.path / _IDENTITY
        if file.exists() and (known := file.read_text(encoding="utf-8").strip()):
            return known
        identity = uuid.uuid4().hex[:12]
        partial = file.with_suffix(".partial")
        partial.write_text(identity, encoding="utf-8")
        partial.replace(file)
        return identity
