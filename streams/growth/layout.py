"""Layouts of partitions, and what changes hands from one to the next."""

from dataclasses import dataclass
from typing import Final

from streams.text import counted

FIRST_EPOCH: Final = 1
"""Epoch of the layout that a flow begins with."""


@dataclass(frozen=True, slots=True, order=True)
class Layout:
    """Into how many partitions keys are divided, and the number of this division: it grows by one with each growth."""

    epoch: int
    partitions: int

    def __post_init__(self) -> None:
        if self.epoch < FIRST_EPOCH or self.partitions < 1:
            raise ValueError(f"no layout: epoch {self.epoch}, {counted(self.partitions, 'partition')}")

    def home(self, key_hash: int) -> int:
        """The partition that a key of this hash (`kafka.partitioner.murmur2`) belongs to."""
        return key_hash % self.partitions


@dataclass(frozen=True, slots=True)
class Growth:
    """From one layout to the next, which has a multiple of its partitions.

    So the home of a key before it is the remainder of its home after it: keys of a new partition come from one old
    partition, its parent.
    """

    before: Layout
    after: Layout

    def __post_init__(self) -> None:
        if self.after.epoch != self.before.epoch + 1:
            raise ValueError(f"no growth: epoch {self.before.epoch} is not followed by {self.after.epoch}")
        if self.after.partitions <= self.before.partitions or self.after.partitions % self.before.partitions:
            raise ValueError(f"no growth: {self.after.partitions} is no multiple of {self.before.partitions}")

    @property
    def epoch(self) -> int:
        """Epoch of the layout that the growth leads to."""
        return self.after.epoch

    @property
    def parents(self) -> range:
        """Partitions that existed before the growth."""
        return range(self.before.partitions)

    @property
    def children(self) -> range:
        """Partitions that the growth adds."""
        return range(self.before.partitions, self.after.partitions)

    def parent_of(self, partition: int) -> int:
        """The partition that held the keys of `partition` before; of one that there was before, itself."""
        return partition % self.before.partitions

    def children_of(self, parent: int) -> range:
        """New partitions that take keys over from `parent`."""
        return range(parent + self.before.partitions, self.after.partitions, self.before.partitions)
