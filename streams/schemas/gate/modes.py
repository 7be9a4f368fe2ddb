"""Which versions of a subject must be able to read which: the compatibility modes."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from streams.schemas.gate.findings import Direction


class Mode(StrEnum):
    """Compatibility modes of Confluent's registry."""

    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"
    NONE = "NONE"

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions in which versions have to be readable."""
        match self.value.removesuffix("_TRANSITIVE"):
            case "BACKWARD":
                return (Direction.BACKWARD,)
            case "FORWARD":
                return (Direction.FORWARD,)
            case "FULL":
                return (Direction.BACKWARD, Direction.FORWARD)
            case _:
                return ()

    @property
    def is_transitive(self) -> bool:
        """Whether all versions before count, not only the last one."""
        return self.value.endswith("_TRANSITIVE")

    def compared(self, before: Sequence[int]) -> tuple[int, ...]:
        """Return those versions before a new one (ascending) that the new one is compared with."""
        return () if self is Mode.NONE else tuple(before if self.is_transitive else before[-1:])


MODE_DEFAULT: Final = Mode.BACKWARD_TRANSITIVE
"""A new version can read everything ever written with any version before it: workers upgrade first."""
