"""Gives free memory of the allocators back to the system after a burst of large batches."""

import ctypes
from collections.abc import Callable
from typing import Final

import psutil
import pyarrow as pa

from streams.state.rocks import RocksMemory

_TRIM: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Exists in glibc; other C libraries have none, and most do not need it."""
_ARENA_MAX: Final = -8
"""glibc's number of the option, `M_ARENA_MAX` in malloc.h."""
_ARENAS: Final = 2
_MMAP_THRESHOLD: Final = -3
"""As above, `M_MMAP_THRESHOLD`: set once, glibc no longer adapts it."""
_LARGE_BYTES: Final = 1 << 20
"""Columns of a micro-batch are smaller: taking those from the system each time would cost more than it saves."""


def give_back() -> None:
    """Return free memory to the system: a few milliseconds, meant for every half minute."""
    pa.default_memory_pool().release_unused()
    if _TRIM is not None:
        _TRIM(0)


def few_arenas() -> None:
    """Have glibc serve all threads from a few heaps: what is free in the heap of one thread can be used by another.

    Large blocks stay out of the heaps: they go back to the system as soon as they are free. By itself glibc takes ever
    larger ones into the heaps (up to 32 MB), where what is kept for long then lies between them.

    Call it before threads are started. Without it a worker of 30 threads kept some 100 MB more.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def resident_bytes() -> int:
    """Resident memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


class ProcessMemory:
    """`streams.worker.ports.HostMemory` of this process."""

    def __init__(self, rocks: RocksMemory) -> None:
        self._rocks = rocks

    def resident_bytes(self) -> int:
        """Resident memory of this process in bytes."""
        return resident_bytes()

    def cache_bytes(self) -> int:
        """Bytes of the caches of all stores together."""
        return self._rocks.bytes_used()

    def give_back(self) -> None:
        """Return free memory to the system."""
        give_back()
