"""The newest row of each key among the records of a table's topic, for a restore."""

from typing import Final

from streams.engine.changelog_rows import CARRIED_HEADER, OWN_HEADER
from streams.engine.log import LogRow

_KEYS_MAX: Final = 20_000
_BYTES_MAX: Final = 16 << 20


class NewestRows:
    """The newest row of each key among the records that were read of one table.

    Only that row is converted and written: a topic that is not compacted yet has many of each key. Older rows of a key
    may be left out because compaction may remove them at any time.
    """

    def __init__(self, topic_partition: str) -> None:
        self._topic_partition = topic_partition
        self.rows: dict[bytes, tuple[bytes, bytes | None]] = {}
        """By key: the row of the table, and those of other operators that the record carries."""
        self.taken = 0
        """Rows that were taken since the last `clear`, older ones of the same keys included."""
        self._bytes = 0
        self._offsets: list[int] = []

    @property
    def where(self) -> str:
        """Topic, partition and offsets of what was taken."""
        return f"{self._topic_partition}, offsets {self._offsets[0]} to {self._offsets[-1]}"

    @property
    def is_full(self) -> bool:
        """Whether so much is kept that it is to be written now."""
        return len(self.rows) >= _KEYS_MAX or self._bytes >= _BYTES_MAX

    def take(self, rows: list[LogRow]) -> None:
        """Take records in the order of their offsets."""
        self._offsets = [*self._offsets[:1], rows[0].offset, rows[-1].offset]
        for row in rows:
            headers = dict(row.headers or ())
            own = headers.get(OWN_HEADER)
            if row.key is None or own is None:
                continue
            carried = headers.get(CARRIED_HEADER)
            self.rows[row.key] = own, carried
            self.taken += 1
            self._bytes += len(row.key) + len(own) + len(carried or b"")

    def without(self, forgotten: list[LogRow]) -> list[bytes]:
        """Leave out the keys of these records; returns them."""
        keys = [row.key for row in forgotten if row.key is not None]
        for key in keys:
            self.rows.pop(key, None)
        return keys

    def clear(self) -> None:
        """Forget the rows, their count and their offsets, after they were written."""
        self.rows.clear()
        self._offsets.clear()
        self.taken = self._bytes = 0
