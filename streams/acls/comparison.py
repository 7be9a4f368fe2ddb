"""Compares the rights that a principal should have with those that it has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streams.acls.rights import ANY_HOST, EVERYBODY, Grant, Kind, Pattern, Right


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a principal lacks, what it needs and is denied, and what it has beyond its rights."""

    principal: str
    wanted: tuple[Right, ...]
    lacking: tuple[Right, ...]
    denied: tuple[Grant, ...]
    beyond: tuple[Grant, ...]

    @property
    def is_exact(self) -> bool:
        """Whether it has exactly what it should."""
        return not (self.lacking or self.denied or self.beyond)


def compare(principal: str, wanted: Sequence[Right], grants: Iterable[Grant]) -> Comparison:
    """Compare the rights that `principal` should have with what a cluster grants to it and to everybody.

    A right that holds from one host only does not fulfil one that is wanted; it is not beyond it either. A denial goes
    before every grant.
    """
    own = [grant for grant in grants if grant.principal in {principal, EVERYBODY}]
    allowed = [grant for grant in own if not grant.denies]
    everywhere = [grant.right for grant in allowed if grant.host == ANY_HOST]
    lacking = [right for right in wanted if not any(granted.includes(right) for granted in everywhere)]
    denied = [grant for grant in own if grant.denies and any(_touches(grant.right, right) for right in wanted)]
    beyond = [grant for grant in allowed if not any(right.includes(grant.right) for right in wanted)]
    return Comparison(principal, tuple(wanted), tuple(lacking), tuple(sorted(denied)), tuple(sorted(beyond)))


def _touches(denied: Right, wanted: Right) -> bool:
    """Whether some of the wanted rights are denied. A denial of DESCRIBE denies nothing that implies it."""
    if denied.includes(wanted):
        return True
    is_narrower = wanted.pattern is Pattern.PREFIXED and denied.name.startswith(wanted.name)
    same = denied.kind is wanted.kind and denied.kind is not Kind.CLUSTER
    widened = Right(denied.kind, wanted.name, wanted.pattern, denied.operation)
    return is_narrower and same and widened.includes(wanted)
