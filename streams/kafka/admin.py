"""Administration of a Kafka cluster: the client, waiting for the broker, and librdkafka's log lines in our log."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar, overload

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, PartitionMetadata

from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.causes import cause_of, cause_of_silence
from streams.resilience.retry import Backoff, Retrier, quietly
from streams.settings import Settings

T = TypeVar("T")

REQUEST_TIMEOUT_S: Final = 30.0
"""Bound of one administrative request."""
NOT_KNOWN: Final = frozenset({KafkaError._NOENT, KafkaError._UNKNOWN_PARTITION})  # noqa: SLF001 - public constants of librdkafka
"""An admin client does not know a partition. It may have been added since the client last asked for the topic, which
the client would not learn for a minute or more: a new one knows it.
"""
RECONNECT_MS_MAX: Final = 2_000
"""A broker that is back is noticed within this time (librdkafka's default is 10 s)."""
WAIT_TIMEOUT_S: Final = 10.0
"""How long a command waits for a broker before it reports that none answers."""


class _NoAnswer(Exception):
    def __init__(self, cause: KafkaError) -> None:
        super().__init__(cause.str())
        self.cause = cause


def admin_client(settings: Settings, on_error: Callable[[KafkaError], None] | None = None) -> AdminClient:
    """Administrative client of the cluster in `settings`. Connects when first used.

    Raises:
        UsageError: the connection settings cannot be used.

    """
    config: dict[str, Any] = {
        "client.id": "streams-admin",
        "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
    }
    if on_error is not None:
        config["error_cb"] = on_error
    return clients.admin(settings, config)


def wait_for_broker(settings: Settings, *, timeout_s: float = WAIT_TIMEOUT_S) -> AdminClient:
    """Return a client as soon as a broker answers a metadata request; librdkafka reconnects with backoff and jitter.

    Raises:
        StreamsError: none has answered within `timeout_s` seconds; the message names the address and the last cause.

    """
    errors: list[KafkaError] = []
    client = admin_client(settings, errors.append)

    def ask() -> None:
        try:
            client.list_topics(timeout=min(timeout_s, 2.0))
        except KafkaException as error:
            client.poll(0)
            raise _NoAnswer(next((one for one in reversed(errors) if not _is_echo(one)), error.args[0])) from None

    try:
        Retrier(say=quietly).call(
            "waiting for a Kafka broker",
            ask,
            passing=lambda error: isinstance(error, _NoAnswer) and not _is_final(error.cause),
            backoff=Backoff(first_s=0.1, pause_s_max=1.0, give_up_s=timeout_s),
        )
    except _NoAnswer as error:
        raise _no_answer(settings, error.cause) from None
    return client


def _no_answer(settings: Settings, error: KafkaError) -> StreamsError:
    """Why brokers do not answer, with the true cause where it is known."""
    cause = cause_of_silence(settings) or cause_of(error)
    if cause is None:
        return no_broker(settings, error.str())
    return StreamsError(f"no connection to Kafka at {settings.kafka_bootstrap_servers}: {cause} ({error.str()})")


def no_broker(settings: Settings, cause: str) -> StreamsError:
    """An error that no broker answers: the address, and what to do."""
    return StreamsError(
        f"no Kafka broker answers at {settings.kafka_bootstrap_servers} ({cause}): "
        "start one with `streams local up`, or set KAFKA_BOOTSTRAP_SERVERS"
    )


def partition_counts(client: AdminClient) -> dict[str, int]:
    """Number of partitions of every topic that exists and has a leader for each of them.

    Use it before using all partitions of a topic. Raises as `partition_counts_with_leaderless` does.
    """
    return {
        name: len(partitions)
        for name, partitions in _partitions_of_topics(client).items()
        if all(partition.leader >= 0 for partition in partitions.values())
    }


def partition_counts_with_leaderless(client: AdminClient) -> dict[str, int]:
    """Number of partitions of every topic that exists, including those with partitions without a leader.

    Raises:
        StreamsError: no answer.

    """
    return {name: len(partitions) for name, partitions in _partitions_of_topics(client).items()}


def replica_counts(client: AdminClient) -> dict[str, list[int]]:
    """Number of replicas of every partition, in sync or not, of every topic that `partition_counts` has.

    Raises:
        StreamsError: no answer.

    """
    return {
        name: [len(partition.replicas) for _, partition in sorted(partitions.items())]
        for name, partitions in _partitions_of_topics(client).items()
        if partitions and all(partition.leader >= 0 for partition in partitions.values())
    }


def _partitions_of_topics(client: AdminClient) -> dict[str, dict[int, PartitionMetadata]]:
    # Of all topics: asking by name creates missing ones where the broker auto-creates topics.
    try:
        topics = client.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    except KafkaException as error:
        raise StreamsError(f"listing topics: {described(error)}") from None
    return {name: topic.partitions for name, topic in topics.items() if topic.error is None}


def topic_id(client: AdminClient, name: str) -> str:
    """The id that Kafka gave an existing topic; a recreated topic has another one.

    Raises:
        StreamsError: no such topic, or no answer.

    """
    future = client.describe_topics(TopicCollection([name]), request_timeout=REQUEST_TIMEOUT_S)[name]
    return str(settled(f"describing topic {name}", future).topic_id)


@overload
def settled(what: str, future: "Future[T]", *, timeout_s: float = ...) -> T: ...
@overload
def settled(what: str, future: "Future[T]", *, timeout_s: float = ..., fine: tuple[int, ...]) -> T | None: ...
def settled(
    what: str, future: "Future[T]", *, timeout_s: float = REQUEST_TIMEOUT_S, fine: tuple[int, ...] = ()
) -> T | None:
    """Result of an administrative request; None when it failed with one of the error codes `fine`.

    Raises:
        StreamsError: it failed or took too long; the message begins with `what`.

    """
    try:
        return future.result(timeout=timeout_s)
    except KafkaException as error:
        if isinstance(error.args[0], KafkaError) and error.args[0].code() in fine:
            return None
        raise StreamsError(f"{what}: {described(error)}") from None
    except TimeoutError:
        raise StreamsError(f"{what}: no answer within {timeout_s:g} s") from None


def described(error: KafkaException) -> str:
    """Name and text of the Kafka error inside an exception, and its cause where the text does not say it."""
    inner = error.args[0]
    if not isinstance(inner, KafkaError):
        return str(inner)
    cause = cause_of(inner)
    return f"{inner.str()} ({inner.name()}){'' if cause is None else f': {cause}'}"


def _is_echo(error: KafkaError) -> bool:
    """Whether an error only repeats that the ones before it happened."""
    return bool(error.code() == KafkaError._ALL_BROKERS_DOWN)  # noqa: SLF001 - public constant of librdkafka


def _is_final(error: KafkaError) -> bool:
    """Whether waiting cannot help."""
    return error.code() in {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}  # noqa: SLF001 - as above
