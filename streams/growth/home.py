"""Which keys a partition keeps state of, by the layout that its state is in."""

from collections.abc import Callable, Sequence

import numpy as np

from streams.batch.columns import Bools, Int64
from streams.batch.key_hash import murmur2_all
from streams.growth.layout import Layout


def every_key(keys: Sequence[bytes]) -> Bools:
    """Say for a flow with one partition that all keys have their home there."""
    return np.ones(len(keys), dtype=np.bool_)


class Home:
    """Says which keys one partition keeps state of. Operators ask it; the engine tells it of a new layout.

    In the first layout a partition keeps whatever it has read. When keys have moved, what is kept of them here is void:
    an operator drops it from memory (`Operator.keys_moved`), and does not look at it where the store still has it.
    """

    def __init__(self, partition: int, belongs: Callable[[Sequence[bytes]], Bools]) -> None:
        """In the first layout; `belongs` says which keys have their home here in that one."""
        self._partition = partition
        self._belongs = belongs
        self._layout: Layout | None = None
        self._counts: Sequence[int] = ()
        self._is_strict = False

    @property
    def has_moved(self) -> bool:
        """Whether the layout is a later one than the first: state may be here of keys that are elsewhere now."""
        return self._layout is not None

    def enter(self, layout: Layout, counts: Sequence[int]) -> None:
        """Be in a later layout than the first; `counts` are the numbers of partitions of those before it, in order.

        What a partition that came with a growth has read is of its own keys only: all else was forwarded.
        """
        self._layout, self._counts, self._is_strict = layout, counts, self._partition >= counts[0]

    def adopt(self, layout: Layout) -> None:
        """Keep nothing but what has its home here in `layout`: what is read is the state of the parent."""
        self._layout, self._counts, self._is_strict = layout, (), True

    def has(self, keys: Sequence[bytes]) -> Bools:
        """Return which of the keys have their home in this partition."""
        if self._layout is None:
            return self._belongs(keys)
        found: Bools = murmur2_all(keys) % self._layout.partitions == self._partition
        return found

    def kept(self, keys: Sequence[bytes]) -> Bools | None:
        """State of which of the keys is kept here; None: of all.

        A key that was read here, and had its home in another partition before its growth, is nobody's to adopt: what
        is held of it stays, so that nothing is lost.
        """
        if self._layout is None:
            return None
        hashes = murmur2_all(keys)
        kept: Bools = hashes % self._layout.partitions == self._partition
        return kept if self._is_strict else kept | ~self._was_home(hashes)

    def strangers(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys of records which were read here that murmur2 would have put here in no layout so far.

        The others are of producers that have not heard of a growth yet.
        """
        if self._layout is None or not keys:
            return []
        hashes = murmur2_all(keys)
        is_known = (hashes % self._layout.partitions == self._partition) | self._was_home(hashes)
        return [key for key, known in zip(keys, is_known.tolist(), strict=True) if not known]

    def _was_home(self, hashes: Int64) -> Bools:
        """Which keys had their home here in a layout before this one."""
        found = np.zeros(len(hashes), dtype=np.bool_)
        for count in self._counts:
            if self._partition < count:
                found |= hashes % count == self._partition
        return found
