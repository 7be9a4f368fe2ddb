"""Gives back what allocators keep: after a burst of large batches they hold on to the most that was ever needed."""

import ctypes
from collections.abc import Callable

import psutil  # type: ignore[import-untyped]
import pyarrow as pa

_TRIM: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc's; other C libraries have none, and most do not need it."""


def give_back() -> None:
    """Return free memory to the system: a few milliseconds, meant for every half minute."""
    pa.default_memory_pool().release_unused()
    if _TRIM is not None:
        _TRIM(0)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)
