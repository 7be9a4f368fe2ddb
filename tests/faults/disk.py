"""A disk that is as small as told, to be filled to the last byte: a tmpfs, which root may mount."""

import contextlib
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

_BALLAST: Final = "ballast"


class SmallDisk:
    """A file system of `mb` megabytes mounted at `path` for the length of a block."""

    def __init__(self, path: Path, *, mb: int) -> None:
        self.path = path
        self._mb = mb

    def __enter__(self) -> Self:
        """Mount it; where that cannot be done, the test says so and does not run."""
        self.path.mkdir(parents=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self._mb}m", "tmpfs", self.path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.skip(f"a small disk needs root to mount a tmpfs: {done.stderr.strip()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)

    def fill(self) -> None:
        """Leave not a byte."""
        with (self.path / _BALLAST).open("ab", buffering=0) as ballast:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(bytes(size))
        assert self.free_bytes() == 0

    def enlarge(self, *, mb: int) -> None:
        """Make room, in place."""
        subprocess.run(["mount", "-o", f"remount,size={mb}m", self.path], check=True)

    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize
