"""The envelopes of dead letters of other programs: the names of their headers, and their encodings of numbers.

- CONNECT: Kafka Connect's `DeadLetterQueueReporter` (KIP-298). Numbers as text.
- SPRING: Spring for Apache Kafka's `DeadLetterPublishingRecoverer` (`kafka_dlt-*`) and its `@RetryableTopic`
  (`kafka_original-*`, `kafka_exception-*`). Numbers big-endian, in 4 or 8 bytes.
- SPRING_CLOUD_STREAM: the Kafka binder with `enableDlq` (`x-original-*`, `x-exception-*`). Numbers big-endian.
- SMALLRYE: SmallRye Reactive Messaging (Quarkus), failure strategy `dead-letter-queue`. Numbers as text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_DIGITS: Final = re.compile(rb"-?[0-9]{1,18}")
_BINARY_BYTES: Final = frozenset({4, 8})


@dataclass(frozen=True, slots=True)
class Dialect:
    """Names of one program's headers. Where several say the same thing, the first one in the record counts."""

    name: str
    """Name of the dialect, as in `Kind`."""
    topic: Sequence[str]
    """Headers that name the topic from which the record was read."""
    partition: Sequence[str]
    offset: Sequence[str]
    group: Sequence[str]
    """Headers that name the consumer group which had read the record."""
    messages: Sequence[str]
    exceptions: Sequence[str]
    """Headers with class names, the most informative first."""
    prefixes: Sequence[str]
    """Prefix of its headers' names."""
    mark: str = ""
    """A header with this prefix is of this dialect, even without a topic. Empty: the prefix is too common."""
    has_binary_numbers: bool = False
    more_numbers: Sequence[str] = ()

    @property
    def numbers(self) -> Sequence[str]:
        """Headers that are numbers."""
        return (*self.partition, *self.offset, *self.more_numbers)

    def number(self, value: bytes) -> int | None:
        """A number in this dialect's encoding; None when it is not one."""
        if self.has_binary_numbers and len(value) in _BINARY_BYTES:
            return int.from_bytes(value, "big", signed=True)
        return int(value) if _DIGITS.fullmatch(value) else None


def _spring(*tails: str) -> tuple[str, ...]:
    """Both spellings of Spring's headers."""
    return tuple(f"kafka_{kind}{tail}" for tail in tails for kind in ("dlt-", ""))


DIALECTS: Final = (
    Dialect(
        "CONNECT",
        topic=("__connect.errors.topic",),
        partition=("__connect.errors.partition",),
        offset=("__connect.errors.offset",),
        group=("__connect.errors.connector.name",),
        messages=("__connect.errors.exception.message",),
        exceptions=("__connect.errors.exception.class.name",),
        prefixes=("__connect.errors.",),
        mark="__connect.errors.",
    ),
    Dialect(
        "SPRING",
        topic=_spring("original-topic"),
        partition=_spring("original-partition"),
        offset=_spring("original-offset"),
        group=_spring("original-consumer-group"),
        messages=_spring("exception-message", "key-exception-message"),
        exceptions=_spring("exception-cause-fqcn", "exception-fqcn", "key-exception-fqcn"),
        prefixes=("kafka_dlt-", "kafka_original-", "kafka_exception-", "kafka_key-exception-", "retry_topic-"),
        mark="kafka_dlt-",
        has_binary_numbers=True,
        more_numbers=(
            *_spring("original-timestamp"), "retry_topic-attempts", "retry_topic-original-timestamp",
            "retry_topic-backoff-timestamp",
        ),
    ),
    Dialect(
        "SPRING_CLOUD_STREAM",
        topic=("x-original-topic",),
        partition=("x-original-partition",),
        offset=("x-original-offset",),
        group=(),
        messages=("x-exception-message",),
        exceptions=("x-exception-fqcn",),
        prefixes=("x-original-", "x-exception-"),
        has_binary_numbers=True,
        more_numbers=("x-original-timestamp",),
    ),
    Dialect(
        "SMALLRYE",
        topic=("dead-letter-topic",),
        partition=("dead-letter-partition",),
        offset=("dead-letter-offset",),
        group=(),
        messages=("dead-letter-reason", "dead-letter-cause"),
        exceptions=("dead-letter-cause-class-name", "dead-letter-exception-class-name"),
        prefixes=("dead-letter-",),
    ),
)  # fmt: skip
