"""Keys of a partition's store, by their first byte, and the marker: the one row that says what the rest contains."""

import json
from dataclasses import asdict, dataclass, field
from typing import Final

MARKER: Final = b"m"
LAST_DUE: Final = b"k"
"""+ record key: the key's last released event."""
AGGREGATE: Final = b"a"
"""+ table number + record key: the fold's row."""
WINDOW: Final = b"w"
"""+ window number + record key: the key's newest window."""
OPEN_WINDOW: Final = b"o"
"""+ window number + watermark that closes it + record key: a window that is open and not in memory; made again from the
windows' rows when a partition is restored."""
SPILLED_IDS: Final = b"i"
HELD: Final = b"h"
BREAKER: Final = b"b"
"""+ record key: the key's device breaker, where it has one."""
JOURNAL_INDEX: Final = b"j"

FORMAT: Final = 1


def aggregate_prefix(table: int) -> bytes:
    """Key prefix of the rows of the pipeline's table number `table`."""
    return AGGREGATE + bytes([table])


def window_prefix(window: int) -> bytes:
    """Key prefix of the rows of the pipeline's window number `window`."""
    return WINDOW + bytes([window])


def open_window_prefix(window: int) -> bytes:
    """Key prefix of the open windows number `window` that are not in memory."""
    return OPEN_WINDOW + bytes([window])


@dataclass(frozen=True, slots=True)
class Marker:
    """What the store contains: everything up to commit cycle `cycle`, which ended at source offset `offset_next`."""

    cycle: int
    offset_next: int
    watermark: int
    journal_next: int
    """Position in the journal behind this cycle's records."""
    replay_from: int
    """Position in the journal from which ids and held events, kept in memory only, must be read again."""
    tables_next: dict[str, int] = field(default_factory=dict)
    """Position in each table's topic from which rows may be missing here."""
    format: int = FORMAT

    def pack(self) -> bytes:
        """Bytes for the store."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def unpack(data: bytes) -> "Marker":
        """Inverse of `pack`.

        Raises:
            ValueError: written by another version of the format, or not by us.

        """
        try:
            marker = Marker(**json.loads(data))
        except TypeError as error:
            raise ValueError(f"not a marker: {error}") from None
        if marker.format != FORMAT:
            raise ValueError(f"state format {marker.format}, this version reads {FORMAT}")
        return marker
