"""What the task of a partition remembers of a growth: its second input, and what it has told its children."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from streams.batch.columns import TIME_MIN
from streams.growth.coupling import Coupling

NO_PARENT: Final = -1
NEVER_COUPLED: Final = Coupling(TIME_MIN, TIME_MIN, is_settled=True)


@dataclass(frozen=True, slots=True)
class GrowthState:
    """Kept in the checkpoint and, as the section `growth`, in the journal; the default one is not written."""

    parent: int = NO_PARENT
    """The partition that forwards what it still reads of the keys of this one; `NO_PARENT`: none was."""
    forwarded_next: int = 0
    """Offset to read next in the partition's forwarded topic."""
    coupling: Coupling = NEVER_COUPLED
    settled: int = 0
    """Of a parent: epoch of the newest growth of which it has told its children that the coupling has ended."""

    def as_json(self) -> dict[str, Any]:
        """As a JSON document; nothing where there is nothing to remember."""
        return {} if self == GrowthState() else asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "GrowthState":
        """Inverse of `as_json`.

        Raises:
            ValueError: it is something else.

        """
        if not found:
            return GrowthState()
        try:
            return GrowthState(**{**found, "coupling": Coupling(**found["coupling"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a growth's state: {error}") from None

    @property
    def packed(self) -> bytes:
        """As the section of the journal; empty where there is nothing to remember."""
        found = self.as_json()
        return json.dumps(found).encode() if found else b""

    @staticmethod
    def unpack(section: bytes) -> "GrowthState":
        """Inverse of `packed`.

        Raises:
            ValueError: it is something else.

        """
        found = json.loads(section)
        if not isinstance(found, dict):
            raise ValueError("not a growth's state")  # noqa: TRY004 - bytes that are something else, not a wrong call
        return GrowthState.from_json(found)


NO_GROWTH: Final = GrowthState()
"""Of a partition whose flow was never grown."""
