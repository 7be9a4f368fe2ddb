"""Topics that a flow needs, and how Kafka keeps them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from streams.flow.inputs import Input
from streams.operators.spec import OutputTopic

PARTITIONS_DEFAULT: Final = 3
DAY_MS: Final = 86_400_000
OUTPUT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest message of an output topic: a record of the source's largest size fits with a dead letter's headers, or
packed into the journal.
"""


class Cleanup(StrEnum):
    """What Kafka may remove from a topic by itself."""

    DELETE = "delete"
    COMPACT = "compact"
    DELETE_RECORDS_ONLY = "delete_records_only"
    """Nothing: `cleanup.policy=delete` with unlimited retention, truncated by `delete_records` only."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that a flow needs, and the schema subject of its values (None: not Avro of ours)."""

    name: str
    cleanup: Cleanup = Cleanup.DELETE
    subject: str | None = None
    retention_ms: int = 7 * DAY_MS
    message_bytes_max: int | None = None
    """Value of `max.message.bytes`; None: the broker's default."""
    partitions: int | None = None
    """None: as many as all topics of the flow."""

    def config(self) -> dict[str, str]:
        """Topic configuration that `streams topics apply` sets at creation and compares afterwards."""
        config: dict[str, str] = {}
        match self.cleanup:
            case Cleanup.COMPACT:
                config = {"cleanup.policy": "compact"}
            case Cleanup.DELETE_RECORDS_ONLY:
                config = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
            case Cleanup.DELETE:
                config = {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}
        if self.message_bytes_max is not None:
            config["max.message.bytes"] = str(self.message_bytes_max)
        return config


def topics_beside(one: Input) -> tuple[Topic, ...]:
    """Topics for the events of an input that are not passed on."""
    return (
        Topic(one.late, message_bytes_max=OUTPUT_BYTES_MAX),
        Topic(one.dlq, retention_ms=30 * DAY_MS, message_bytes_max=OUTPUT_BYTES_MAX),
        Topic(one.audit, cleanup=Cleanup.COMPACT),
    )


def topic_of(output: OutputTopic) -> Topic:
    """The topic of an operator's own output."""
    cleanup = Cleanup.COMPACT if output.is_compacted else Cleanup.DELETE
    if output.is_internal:
        cleanup = Cleanup.DELETE_RECORDS_ONLY
    if output.columns is None:
        return Topic(output.topic, cleanup, message_bytes_max=OUTPUT_BYTES_MAX)
    return Topic(output.topic, cleanup, subject=output.subject)
