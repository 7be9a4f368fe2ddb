"""What the task of a partition remembers of a growth: the second log of each input, and what its children know."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from streams.batch.columns import TIME_MIN
from streams.growth.coupling import Coupling

NO_PARENT: Final = -1
NEVER_COUPLED: Final = Coupling(TIME_MIN, TIME_MIN, is_settled=True)


@dataclass(frozen=True, slots=True)
class ForwardedReading:
    """How far the forwarded topic of one input is read, and how it is merged with the partition's own log."""

    forwarded_next: int = 0
    """Offset to read next in the partition of the forwarded topic."""
    coupling: Coupling = NEVER_COUPLED

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "ForwardedReading":
        """Make it of what `asdict` has made."""
        return ForwardedReading(found["forwarded_next"], Coupling(**found["coupling"]))


_NOTHING_READ: Final = ForwardedReading()


@dataclass(frozen=True, slots=True)
class GrowthState:
    """Kept in the checkpoint and, as the section `growth`, in the journal; the default value is not written."""

    parent: int = NO_PARENT
    """The partition that forwards what it still reads of the keys of this one; `NO_PARENT`: none was."""
    readings: tuple[ForwardedReading, ...] = field(default=(_NOTHING_READ,))
    """How far each input is read, by the input's number; one that is missing was never read."""
    settled: int = 0
    """For a parent: epoch of the newest growth whose children it has told that the coupling has ended."""

    def of(self, input_number: int) -> ForwardedReading:
        """What is read of what others forward of an input."""
        return self.readings[input_number] if input_number < len(self.readings) else _NOTHING_READ

    def reading(self, input_number: int, found: ForwardedReading) -> "GrowthState":
        """The same with another reading of an input."""
        missing = (_NOTHING_READ,) * (input_number + 1 - len(self.readings))
        readings = [*self.readings, *missing]
        readings[input_number] = found
        return replace(self, readings=tuple(readings))

    def as_json(self) -> dict[str, Any]:
        """As a JSON document; nothing where there is nothing to remember."""
        if self == GrowthState():
            return {}
        first, *further = (asdict(one) for one in self.readings)
        found = {"parent": self.parent, **first, "settled": self.settled}
        return {**found, "further": further} if further else found

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "GrowthState":
        """Inverse of `as_json`.

        Raises:
            ValueError: it is something else.

        """
        if not found:
            return GrowthState()
        try:
            readings = tuple(map(ForwardedReading.from_json, (found, *found.get("further", ()))))
            return GrowthState(found["parent"], readings, found["settled"])
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
"""State of a partition whose flow was never grown."""
