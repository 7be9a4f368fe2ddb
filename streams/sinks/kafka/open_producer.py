"""Makes transactional producers: their configuration, and the call that gets the transactional id."""

from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from streams.flow.topics import OUTPUT_BYTES_MAX
from streams.kafka import clients
from streams.kafka.native_client import NativeClients, NativeProducer
from streams.kafka.partitioner import PARTITIONER
from streams.limits import PRODUCER_QUEUE_KBYTES_MAX, PRODUCER_QUEUE_MESSAGES_MAX
from streams.settings import Settings
from streams.sinks.kafka.producer_errors import named

_IDLE_MS_MAX: Final = 10_000


def producer_config(settings: Settings, transactional_id: str, timeout_ms: int) -> dict[str, Any]:
    """Configuration of a producer whose transactions the broker aborts after `timeout_ms`."""
    return {
        "client.id": transactional_id,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout_ms,
        "message.timeout.ms": timeout_ms,
        "partitioner": PARTITIONER,
        "compression.type": "lz4",
        "linger.ms": 10,
        "batch.size": 1_000_000,
        "batch.num.messages": 20_000,
        "queue.buffering.max.messages": PRODUCER_QUEUE_MESSAGES_MAX,
        "queue.buffering.max.kbytes": min(PRODUCER_QUEUE_KBYTES_MAX, settings.streams_memory_mb_max * 1024 // 16),
        "message.max.bytes": OUTPUT_BYTES_MAX,
        "topic.metadata.refresh.interval.ms": 30_000,
        # Sending offsets may wait for a coordinator that is gone, past its timeout, until the state of some
        # connection changes (librdkafka#5456, #5511): an idle one closes.
        "connections.max.idle.ms": _IDLE_MS_MAX,
    }


def opened_producer(
    settings: Settings, config: dict[str, Any], native: NativeClients | None, timeout_s: float
) -> tuple[Producer, NativeProducer | None]:
    """A producer that has its id, and what gives it records natively.

    One that does not get it is closed here, and not only when the error that refers to it is collected: while it exists
    it goes on asking, and would fence the next producer.
    """
    gives: NativeProducer | None = None
    if native is None:
        producer = clients.producer(settings, config)
    else:
        producer, gives = native.producer(settings, config)
    try:
        producer.init_transactions(timeout_s)
    except KafkaException as error:
        del producer, gives
        raise named(error, config["transactional.id"]) from None
    return producer, gives
