"""Records that a log deleted before they were read, each reported once."""

from collections.abc import Callable


class LostRecords:
    """Reports lost records by partition, first offset, and the offset after the last one."""

    def __init__(self, tell: Callable[[int, int, int], None]) -> None:
        self._tell = tell
        self._up_to: dict[int, int] = {}
        """By partition, the offset up to which lost records have been told: a second start tells none again."""

    def note(self, partition: int, offset_next: int, low: int) -> None:
        """Reading should go on at `offset_next`, and the first record that is there is `low`."""
        told = self._up_to.get(partition, 0)
        # A log that begins earlier than before is another one.
        first = offset_next if told > low else max(offset_next, told)
        if first < low:
            self._up_to[partition] = low
            self._tell(partition, first, low)
