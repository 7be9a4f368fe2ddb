"""Kafka clients, made in one place: connection, options of the user, log, and secrets that stay in force.

Every client of the product is made here. Options that a user sets (`KAFKA_CONFIG_<OPTION>`) override those of the
product; options that a guarantee depends on cannot be set (`streams.kafka_options`).
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streams.errors import UsageError
from streams.kafka.credentials import FILES, keep_in_force
from streams.kafka_options import VARIABLES, Scope, is_secret, variable_of
from streams.masking import masked
from streams.settings import Settings

T = TypeVar("T")

_QUEUE_KBYTES_DEFAULT: Final = 65_536
"""librdkafka's default of `queued.max.messages.kbytes`."""
librdkafka_log: Final = logging.getLogger("librdkafka")
"""Log of every client. With no logging configured, its lines go nowhere rather than to stderr."""
librdkafka_log.addHandler(logging.NullHandler())
_NO_KERBEROS: Final = (
    "KAFKA_SASL_MECHANISM=GSSAPI: this build of the Kafka client has no Kerberos (its wheel has no libsasl2); "
    "install librdkafka with libsasl2, and confluent-kafka from source: "
    "pip install --no-binary confluent-kafka confluent-kafka"
)
_NO_SIGNER: Final = (
    "KAFKA_SASL_OAUTHBEARER_METHOD=aws_msk_iam needs the signer of AWS: pip install 'logistics-streams[msk]'"
)


class Consumer(confluent_kafka.Consumer):
    """confluent-kafka's consumer, with support for weak references."""

    __slots__ = ("__weakref__",)


class Producer(confluent_kafka.Producer):
    """confluent-kafka's producer, with support for weak references."""

    __slots__ = ("__weakref__",)


def consumer(settings: Settings, config: Mapping[str, Any]) -> Consumer:
    """A consumer of the cluster in `settings`; `config` has all options apart from the connection.

    Unless `config` says less, it fetches at most `queue_kbytes_max` ahead.

    Raises:
        UsageError: the connection settings cannot be used; the message names the variable.

    """
    bound = {"queued.max.messages.kbytes": queue_kbytes_max(settings)}
    return _made(settings, bound | dict(config), "C", partial(Consumer, logger=librdkafka_log))


def queue_kbytes_max(settings: Settings) -> int:
    """Bound in kB on what one client fetches or sends ahead: 1/32 of the memory setting, at most librdkafka's default.

    Consumers that run side by side share it. Without a bound each takes up to 64 MB, whatever the memory setting is.
    """
    return min(_QUEUE_KBYTES_DEFAULT, settings.streams_memory_mb_max * 1024 // 32)


def producer(settings: Settings, config: Mapping[str, Any]) -> Producer:
    """A producer of the cluster in `settings`; as `consumer` otherwise."""
    return _made(settings, config, "P", partial(Producer, logger=librdkafka_log))


def admin(settings: Settings, config: Mapping[str, Any]) -> AdminClient:
    """An administrative client of the cluster in `settings`; as `consumer` otherwise."""
    return _made(settings, config, "*", partial(AdminClient, logger=librdkafka_log))


def configured(settings: Settings, config: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """The whole configuration of a client; `scope`: a producer (`P`), a consumer (`C`) or neither (`*`)."""
    whole = {**settings.kafka_client_config(), **config, **settings.kafka_options(scope)}
    if settings.kafka_sasl_oauthbearer_method == "aws_msk_iam":
        whole["oauth_cb"] = partial(_msk_token, _msk_signer(), str(settings.kafka_sasl_oauthbearer_aws_region))
    return whole


def _made(settings: Settings, config: Mapping[str, Any], scope: Scope, make: Callable[[dict[str, Any]], T]) -> T:
    try:
        client = make(configured(settings, config, scope))
    except KafkaException as error:
        raise UsageError(unusable(settings, error)) from None
    keep_in_force(settings, client)
    return client


def unusable(settings: Settings, error: KafkaException) -> str:
    """Why no client can be made with these settings, with the wrong variable."""
    inner = error.args[0]
    text = masked(inner.str() if isinstance(inner, KafkaError) else str(inner))
    if "No provider for SASL mechanism GSSAPI" in text:
        return _NO_KERBEROS
    for variable in FILES:
        if (path := getattr(settings, variable.lower())) is not None and (reason := _unreadable(path)):
            return f"{variable}: cannot read {path}: {reason}"
    if "ssl.key.location failed" in text and settings.kafka_ssl_key_location is not None:
        return f"KAFKA_SSL_KEY_LOCATION: {_wrong_key(settings, text)} ({text})"
    for option, variable in sorted(VARIABLES.items(), key=lambda pair: -len(pair[0])):
        if option in text:
            return f"{variable}: {text}"
    for option in settings.kafka_options("*") | settings.kafka_options("P") | settings.kafka_options("C"):
        if option in text:
            shown = "the Kafka client does not take its value" if is_secret(option) else text
            return f"{variable_of(option)}: {shown}"
    return f"the KAFKA_* settings cannot be used: {text}"


def _wrong_key(settings: Settings, text: str) -> str:
    if "key values mismatch" in text:
        return "the key is not that of the certificate in KAFKA_SSL_CERTIFICATE_LOCATION"
    if settings.kafka_ssl_key_password is None:
        return "the key cannot be read; if it is encrypted, set KAFKA_SSL_KEY_PASSWORD"
    return "the key cannot be decrypted with KAFKA_SSL_KEY_PASSWORD"


def _unreadable(path: Path) -> str:
    try:
        if path.is_dir():
            return ""
        path.open("rb").close()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _msk_signer() -> Any:
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
    except ImportError:
        raise UsageError(_NO_SIGNER) from None
    return MSKAuthTokenProvider


def _msk_token(signer: Any, region: str, _: str) -> tuple[str, float]:
    """A signed request to the cluster as a token, and when it expires, in seconds since 1970."""
    token, expiry_ms = signer.generate_auth_token(region)
    return token, expiry_ms / 1000
