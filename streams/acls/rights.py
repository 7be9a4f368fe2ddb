"""A right, what it implies, and rights as they are granted."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

ANY_NAME: Final = "*"
"""As the name of a literal pattern: every resource of the kind."""
ANY_HOST: Final = "*"
EVERYBODY: Final = "User:*"
CLUSTER_NAME: Final = "kafka-cluster"


class Kind(StrEnum):
    """What a right is on."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional_id"
    CLUSTER = "cluster"


class Pattern(StrEnum):
    """How a resource is named."""

    LITERAL = "literal"
    PREFIXED = "prefixed"


class Operation(StrEnum):
    """What a right permits, by Kafka's names."""

    ALL = "ALL"
    READ = "READ"
    WRITE = "WRITE"
    CREATE = "CREATE"
    DELETE = "DELETE"
    ALTER = "ALTER"
    DESCRIBE = "DESCRIBE"
    CLUSTER_ACTION = "CLUSTER_ACTION"
    DESCRIBE_CONFIGS = "DESCRIBE_CONFIGS"
    ALTER_CONFIGS = "ALTER_CONFIGS"
    IDEMPOTENT_WRITE = "IDEMPOTENT_WRITE"


IMPLIED: Final = {
    Operation.READ: frozenset({Operation.DESCRIBE}),
    Operation.WRITE: frozenset({Operation.DESCRIBE}),
    Operation.DELETE: frozenset({Operation.DESCRIBE}),
    Operation.ALTER: frozenset({Operation.DESCRIBE}),
    Operation.ALTER_CONFIGS: frozenset({Operation.DESCRIBE_CONFIGS}),
    Operation.ALL: frozenset(Operation),
}
"""What a broker's authorizer permits as well to who may do the key (Kafka's documentation, section 7.4)."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """An operation on resources of a kind. `why` is for people, and does not distinguish rights."""

    kind: Kind
    name: str
    pattern: Pattern
    operation: Operation
    why: str = field(default="", compare=False)

    def includes(self, other: "Right") -> bool:
        """Whether this right includes the other one."""
        if other.operation is not self.operation and other.operation not in IMPLIED.get(self.operation, ()):
            return False
        return self.kind is other.kind and self._names(other)

    def _names(self, other: "Right") -> bool:
        """Whether every resource that the other right names is one that this one names."""
        if self.pattern is Pattern.PREFIXED:
            return other.name.startswith(self.name) and not (
                other.pattern is Pattern.LITERAL and other.name == ANY_NAME
            )
        return self.name == ANY_NAME or (other.pattern is Pattern.LITERAL and other.name == self.name)

    def __str__(self) -> str:
        """In one line: `READ on the topics that begin with gps.`."""
        if self.kind is Kind.CLUSTER:
            return f"{self.operation} on the cluster"
        kind = self.kind.value.replace("_", " ")
        if self.pattern is Pattern.PREFIXED:
            return f"{self.operation} on every {kind} that begins with {self.name}"
        which = f"every {kind}" if self.name == ANY_NAME else f"{kind} {self.name}"
        return f"{self.operation} on {which}"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """A right as a cluster has it: whose, from which host, granted or denied."""

    principal: str
    right: Right
    host: str = ANY_HOST
    denies: bool = False

    def __str__(self) -> str:
        """In one line, without the principal."""
        host = "" if self.host == ANY_HOST else f" from host {self.host}"
        everybody = " (as everybody has it)" if self.principal == EVERYBODY else ""
        return f"{'no ' if self.denies else ''}{self.right}{host}{everybody}"


def on_topic(name: str, operation: Operation, why: str = "") -> Right:
    """A right on the topic of this name."""
    return Right(Kind.TOPIC, name, Pattern.LITERAL, operation, why)


def least(rights: Iterable[Right]) -> tuple[Right, ...]:
    """The rights without those that others include, sorted; reasons of equal ones are joined."""
    whys: dict[Right, list[str]] = {}
    for right in rights:
        whys.setdefault(right, []).append(right.why)
    found = [
        Right(one.kind, one.name, one.pattern, one.operation, "; ".join(dict.fromkeys(filter(None, whys[one]))))
        for one in whys
        if not any(other != one and other.includes(one) for other in whys)
    ]
    return tuple(sorted(found))
