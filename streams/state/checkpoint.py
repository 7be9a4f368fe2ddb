"""The checkpoint of a partition's store: the row that says what the store contains."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

from streams.growth.state import NO_GROWTH, GrowthState
from streams.state.identity import Identity, IdentityUnreadable
from streams.state.journal import BEGINNING, Position
from streams.state.store import StoreOutdated

FORMAT: Final = 3
"""Of the store. 1 had rows by position and no identity, 2 had operators' rows under letters and not under their names:
such a store is moved aside and rebuilt from the journal."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the store contains: everything up to commit cycle `cycle`, which ended at source offset `offset_next`."""

    cycle: int
    offset_next: int
    watermark: int
    journal_next: int
    """Position in the journal after this cycle's records."""
    replay_from: int
    """Position in the journal from which what operators keep in memory only must be read again."""
    tables_next: Mapping[str, int] = field(default_factory=dict)
    """Position in each table's topic from which rows may be missing here."""
    marks: Mapping[str, int] = field(default_factory=dict)
    """Numbers that operators keep here, by name."""
    leader_epoch: int = -1
    """Leader epoch of the newest record before `offset_next`; -1: not known (KIP-320)."""
    growth: GrowthState = NO_GROWTH
    """State of a growth of the flow; not written if the flow was never grown."""
    identity: Identity = field(default_factory=Identity)
    further: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Where the cycle ended in each input beside the source, by its name: offset, watermark, leader epoch."""
    format: int = FORMAT

    @property
    def position(self) -> Position:
        """Where the cycle ended in the source."""
        return Position(self.offset_next, self.watermark, self.leader_epoch)

    def positions(self, further: Sequence[str]) -> list[Position]:
        """Where the cycle ended in the source and in each of these further inputs, by their names.

        In one that it does not know it ended before the first record.
        """
        found = (self.further.get(name) for name in further)
        return [self.position, *(BEGINNING if one is None else Position(*one) for one in found)]

    def at(self, positions: Sequence[Position], further: Sequence[str]) -> "Checkpoint":
        """The same checkpoint with other positions, in the same order."""
        first, *others = positions
        return replace(
            self,
            offset_next=first.offset_next,
            watermark=first.watermark,
            leader_epoch=first.leader_epoch,
            further={
                name: (one.offset_next, one.watermark, one.leader_epoch)
                for name, one in zip(further, others, strict=True)
            },
        )

    def pack(self) -> bytes:
        """The checkpoint as the value of its row in the store."""
        growth = self.growth.as_json()
        plain = json.dumps({name: getattr(self, name) for name in _PLAIN} | ({"growth": growth} if growth else {}))
        return f'{plain[:-1]}, "identity": {self.identity.text}}}'.encode()

    @staticmethod
    def unpack(data: bytes) -> "Checkpoint":
        """Inverse of `pack`.

        Raises:
            StoreOutdated: written by another version of the format.
            ValueError: not written by us.

        """
        found = json.loads(data)
        if not isinstance(found, dict) or not isinstance(found.get("format"), int):
            raise ValueError("not a checkpoint")  # noqa: TRY004 - bytes that are something else, not a wrong call
        if found["format"] != FORMAT:
            raise StoreOutdated(f"the store's format is {found['format']}, this version reads {FORMAT}")
        try:
            growth = GrowthState.from_json(found.get("growth", {}))
            return Checkpoint(**{**found, "growth": growth, "identity": Identity.from_json(found["identity"])})
        except (TypeError, KeyError, IdentityUnreadable) as error:
            raise ValueError(f"not a checkpoint: {error}") from None


_PLAIN: Final = tuple(one.name for one in fields(Checkpoint) if one.name not in {"growth", "identity"})
