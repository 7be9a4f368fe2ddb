"""A worker's place in its consumer group: which protocol, under which name, and how soon the dead are noticed."""

from typing import Any, Final

from confluent_kafka import KafkaError

from streams.kafka.clients import queue_kbytes_max
from streams.limits import FETCH_WAIT_MS, HEARTBEAT_INTERVAL_MS, SESSION_TIMEOUT_MS
from streams.settings import Settings

_AT: Final = "@"


def client_id_of(member: str, address: str) -> str:
    """Name of a consumer in the group's description; `address`: where its web server answers, as others reach it."""
    return f"{member}{_AT}{address}" if address else member


def member_of(client_id: str) -> tuple[str, str]:
    """Member and address that a client id names; the address is empty where it names none."""
    member, at, address = client_id.rpartition(_AT)
    return (member, address) if at else (address, "")


def consumer_config(settings: Settings, *, group: str, member: str, address: str = "") -> dict[str, Any]:
    """Configuration of a source's consumer, as `member` of `group`; `address`: see `client_id_of`."""
    return {
        "client.id": client_id_of(member, address),
        **group_config(settings, group=group, member=member),
        "enable.auto.commit": False,
        # Report, do not reset: intake decides where to continue, and reports what was lost.
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "queued.min.messages": 100_000,
        "queued.max.messages.kbytes": queue_kbytes_max(settings),
        # The broker gathers too: unasked, it would answer a live stream with a few records at a time.
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.min.bytes": 65_536,
        "fetch.queue.backoff.ms": 5,
        "fetch.message.max.bytes": 2 * 1_048_576,
        "topic.metadata.refresh.interval.ms": 30_000,
    }


def group_config(settings: Settings, *, group: str, member: str) -> dict[str, Any]:
    """Part of a consumer's configuration that concerns its group (docs/adr/0004, 0008)."""
    config: dict[str, Any] = {"group.id": group, "group.protocol": settings.streams_group_protocol}
    if is_static(settings):
        # A worker that comes back soon gets its partitions, and so its local state, back without a rebalance.
        config["group.instance.id"] = member
    if settings.streams_group_protocol == "classic":
        config["partition.assignment.strategy"] = "cooperative-sticky"
        config["session.timeout.ms"] = SESSION_TIMEOUT_MS
        config["heartbeat.interval.ms"] = HEARTBEAT_INTERVAL_MS
    # With the consumer protocol all three are the broker's, and the client refuses to be told.
    return config


def is_static(settings: Settings) -> bool:
    """Whether the group keeps a stopped worker's place.

    With the consumer protocol the client has no way to give up a static place: who is to leave has none. Nothing is
    lost by it, since there a killed worker waits for its former session in either case.
    """
    must_leave = settings.streams_group_leave and settings.streams_group_protocol == "consumer"
    return settings.streams_group_static and not must_leave


_FATAL: Final = KafkaError._FATAL  # noqa: SLF001 - a public constant of librdkafka
REFUSALS: Final = frozenset(
    {KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID, KafkaError.GROUP_ID_NOT_FOUND}
)
"""Causes after which a new consumer may succeed."""


def cause_of(error: KafkaError) -> int:
    """Code of what made a consumer fail.

    A fatal error comes as "fatal", its cause in the text only, in the words that the client has for that cause.
    """
    if error.code() == _FATAL:
        return next((code for code in REFUSALS if KafkaError(code).str() in error.str()), _FATAL)
    return int(error.code())
