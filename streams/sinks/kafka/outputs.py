"""How old the timestamp of an output record may be (ADR 18), from the configuration of the output topics."""

from collections.abc import Mapping, Sequence

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    ResourceType,
)

from streams.kafka.admin import REQUEST_TIMEOUT_S, described
from streams.limits import OUTPUT_AGE_MS_MAX, OUTPUT_AGE_RETENTION_SHARE

log = structlog.get_logger(__name__)


def timestamp_ages_ms(client: AdminClient, topics: Sequence[str]) -> dict[str, int]:
    """For each topic the greatest age in ms of a record's timestamp at its write.

    A topic whose configuration can't be read (a missing right, no answer) gets `OUTPUT_AGE_MS_MAX`, with a line in the
    log.
    """
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    ages = dict.fromkeys(topics, OUTPUT_AGE_MS_MAX)
    for resource, future in client.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S).items():
        try:
            found = future.result(timeout=REQUEST_TIMEOUT_S)
        except (KafkaException, TimeoutError) as error:
            why = described(error) if isinstance(error, KafkaException) else "no answer"
            log.warning("configuration of an output topic can't be read", topic=resource.name, error=why)
            continue
        ages[resource.name] = timestamp_age_ms({name: entry.value for name, entry in found.items()})
    return ages


def timestamp_age_ms(config: Mapping[str, str | None]) -> int:
    """Greatest age in ms of a record's timestamp, by the configuration of its topic.

    An hour, but no more than an eighth of `retention.ms` and what the broker accepts.
    """
    retention_ms, before_ms = int(config.get("retention.ms") or -1), config.get("message.timestamp.before.max.ms")
    ages = [OUTPUT_AGE_MS_MAX]
    if retention_ms >= 0:
        ages.append(retention_ms // OUTPUT_AGE_RETENTION_SHARE)
    if before_ms is not None:
        ages.append(int(before_ms) // 2)
    return max(0, min(ages))
