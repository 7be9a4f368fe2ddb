"""Byte rates of roles, if the maximum rate of the sources is known. Pure.

A quota in Kafka holds for each broker and all clients of a principal together. Workers have none: throttled, they would
not catch up after an outage, nor restore state in time. Roles with little traffic have none either (monitor, steward,
ci).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from streams.acls.roles import Role
from streams.flow.declaration import Pipeline

CATCH_UP: Final = 4
"""How many times faster than the sources grow a sink may read: it comes through an hour of outage in 20 minutes."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Bytes a second that a principal may write to a broker and read from it; None: without a bound."""

    producer_byte_rate: int | None = None
    consumer_byte_rate: int | None = None

    @property
    def is_unbounded(self) -> bool:
        """Whether there is nothing to set."""
        return self.producer_byte_rate is None and self.consumer_byte_rate is None

    def config(self) -> str:
        """As `kafka-configs.sh --add-config` takes it."""
        rates = {"producer_byte_rate": self.producer_byte_rate, "consumer_byte_rate": self.consumer_byte_rate}
        return ",".join(f"{name}={rate}" for name, rate in rates.items() if rate is not None)


def quota_of(roles: Iterable[Role], flows: Sequence[Pipeline], source_bytes_per_s: int) -> Quota:
    """What `roles` of one principal need together, if each source gets at most so many bytes a second.

    The gateway writes all sources. A sink reads each output, `CATCH_UP` times as fast; an output takes no more bytes
    than the sources of its flow bring.
    """
    wanted = set(roles)
    if wanted - {Role.GATEWAY, Role.SINK}:
        return Quota()
    producer = consumer = None
    if Role.GATEWAY in wanted:
        producer = source_bytes_per_s * len({one.topic for flow in flows for one in flow.inputs})
    if Role.SINK in wanted:
        consumer = CATCH_UP * source_bytes_per_s * sum(len(flow.inputs) * len(flow.outputs) for flow in flows)
    return Quota(producer, consumer)
