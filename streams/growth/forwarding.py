"""Where the records of a micro-batch are processed: here, or in the partition that their key belongs to."""

from typing import Final

import numpy as np

from streams.batch.columns import Int64
from streams.growth.layout import Layout

NO_KEY: Final = -1
"""In place of the hash of a key: the record has none."""
NOT_FORWARDED: Final = 0
"""In place of an epoch: the record was read from the source."""


def destinations(layout: Layout, partition: int, key_hash: Int64, forwarded_under: Int64) -> Int64:
    """The partition that processes each record which the task of `partition` has read; that number itself: it does.

    `layout` is the one that the task's state is in, `key_hash` the 31-bit hash of each key (`NO_KEY`: none), and
    `forwarded_under` the epoch of the layout under which the record was forwarded to here (`NOT_FORWARDED`: it was read
    from the source). A record is forwarded once under each layout at most, so that it comes to an end: in one layout,
    its home is one partition.
    """
    stays = (key_hash < 0) | (forwarded_under >= layout.epoch)
    return np.where(stays, partition, key_hash % layout.partitions)
