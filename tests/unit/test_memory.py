import ctypes

import psutil
import pytest

from streams.worker.memory import give_back


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc only")
def test_what_small_objects_have_left_behind_is_given_back() -> None:
    """100 KB are too small for malloc to map a block by itself; the last one keeps the heap from shrinking."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    blocks = [libc.malloc(100_000) for _ in range(1_000)]
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    for block in blocks[:-1]:
        libc.free(block)
    held = psutil.Process().memory_info().rss
    give_back()
    assert psutil.Process().memory_info().rss < held - 50_000_000
    libc.free(blocks[-1])
