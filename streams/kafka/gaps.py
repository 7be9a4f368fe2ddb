"""Offsets that a consumer was not given: those that are missing in the log, and those that the client has left out.

A log has gaps of its own (transaction markers, aborted records, compaction). But a client may leave records out, too:
on a new leader epoch librdkafka checks the position up to which it has *fetched*, and may seek from there, past what it
had fetched and not yet given. So in doubtful times a gap is read a second time before it is believed.
"""

import time
from typing import Final

import numpy as np

from streams.operators.columns import Int64

DOUBT_S: Final = 60.0
"""So long after a start, or after a connection broke, gaps are read twice."""


class Gaps:
    """Gaps of one consumer's partitions. One thread."""

    def __init__(self) -> None:
        self._doubt_until_s = 0.0
        self._seen: dict[int, set[tuple[int, int]]] = {}
        """By partition: first missing offset and the one behind the last, as they were read once."""

    def doubt(self) -> None:
        """Something has happened after which the client may leave records out."""
        self._doubt_until_s = time.monotonic() + DOUBT_S

    def forget(self, partition: int) -> None:
        """The partition is not consumed any more."""
        self._seen.pop(partition, None)

    def first_doubtful(self, partition: int, least: int, offsets: Int64) -> int | None:
        """First missing offset of the first gap that was not seen before: read again from there.

        `offsets`: what was read, ascending; `least`: what should have come first. None: all may be taken.
        """
        count = len(offsets)
        if not count or int(offsets[-1]) - least + 1 <= count:
            return None
        seen = self._seen.setdefault(partition, set())
        expected = np.concatenate([[least], offsets[:-1] + 1])
        at = np.flatnonzero(offsets != expected)
        gaps = list(zip(expected[at].tolist(), offsets[at].tolist(), strict=True))
        new = [gap for gap in gaps if gap not in seen]
        if not new or time.monotonic() > self._doubt_until_s:
            seen.difference_update(gaps)
            return None
        seen.update(gaps)
        return int(new[0][0])
