"""Keys of a partition's store, and the checkpoint: the one row that says what the rest contains.

A key begins with a byte for its kind. Rows of a table or a window follow under the digest of its topic's name, so that
the order in which a flow declares them does not matter.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from streams.state.identity import Identity, IdentityUnreadable
from streams.state.journal import Position

CHECKPOINT: Final = b"m"
LAST_DUE: Final = b"k"
"""+ record key: the key's last released event."""
TABLE: Final = b"a"
"""+ digest of the table's topic + record key: the fold's row."""
WINDOW: Final = b"w"
"""+ digest of the window's topic + record key: the key's newest window."""
OPEN_WINDOW: Final = b"o"
"""+ digest of the window's topic + watermark that closes it + record key: a window that is open and not in memory; made
again from the windows' rows when a partition is restored."""
SPILLED_IDS: Final = b"i"
HELD: Final = b"h"
BREAKER: Final = b"b"
"""+ record key: the key's device breaker, where it has one."""
JOURNAL_INDEX: Final = b"j"

FORMAT: Final = 2
"""Of the store. 1 had rows by position and no identity: such a store is moved aside and rebuilt from the journal."""
_NAME_BYTES: Final = 4


def table_prefix(topic: str) -> bytes:
    """Key prefix of the rows of the table that `topic` carries."""
    return TABLE + _name_digest(topic)


def window_prefix(topic: str) -> bytes:
    """Key prefix of the rows of the window that `topic` carries."""
    return WINDOW + _name_digest(topic)


def open_window_prefix(topic: str) -> bytes:
    """Key prefix of those open windows of `topic` that are not in memory."""
    return OPEN_WINDOW + _name_digest(topic)


def _name_digest(topic: str) -> bytes:
    return hashlib.blake2b(topic.encode(), digest_size=_NAME_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the store contains: everything up to commit cycle `cycle`, which ended at source offset `offset_next`."""

    cycle: int
    offset_next: int
    watermark: int
    journal_next: int
    """Position in the journal after this cycle's records."""
    replay_from: int
    """Position in the journal from which ids and held events, kept in memory only, must be read again."""
    tables_next: Mapping[str, int] = field(default_factory=dict)
    """Position in each table's topic from which rows may be missing here."""
    ids_known_from: int = 0
    """Event time from which on all ids are known: below it, a copy cannot be told from a first event."""
    leader_epoch: int = -1
    """Leader epoch of the newest record before `offset_next`; -1: not known (KIP-320)."""
    identity: Identity = field(default_factory=Identity)
    format: int = FORMAT

    @property
    def position(self) -> Position:
        """Where the cycle ended in the source."""
        return Position(self.offset_next, self.watermark, self.leader_epoch)

    def pack(self) -> bytes:
        """Bytes for the store."""
        plain = json.dumps({name: getattr(self, name) for name in _PLAIN})
        return f'{plain[:-1]}, "identity": {self.identity.text}}}'.encode()

    @staticmethod
    def unpack(data: bytes) -> "Checkpoint":
        """Inverse of `pack`.

        Raises:
            ValueError: written by another version of the format, or not by us.

        """
        found = json.loads(data)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"the store's format is not {FORMAT}, the one that this version reads")
        try:
            return Checkpoint(**{**found, "identity": Identity.from_json(found["identity"])})
        except (TypeError, KeyError, IdentityUnreadable) as error:
            raise ValueError(f"not a checkpoint: {error}") from None


_PLAIN: Final = tuple(one.name for one in fields(Checkpoint) if one.name != "identity")
