"""Every client of the load test: of the cluster at an address, with the connection settings of the environment.

As the product's own ones (`streams.kafka.clients`): TLS, SASL, secrets from files and `KAFKA_CONFIG_<OPTION>` hold for
them as well.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from streams.kafka import clients
from streams.kafka.clients import Consumer, Producer
from streams.schemas.client import Registry
from streams.settings import Settings, load_settings

_PREFIXES: Final = ("KAFKA_", "SCHEMA_REGISTRY_")


def consumer(where: str | Settings, config: Mapping[str, Any]) -> Consumer:
    """A consumer of the cluster at an address, or in some settings; `config` says all but its connection.

    Raises:
        UsageError: the connection settings cannot be used; the message names the variable.

    """
    return clients.consumer(_settings(where), config)


def producer(where: str | Settings, config: Mapping[str, Any]) -> Producer:
    """Create a producer; `where` and `config` mean the same as for `consumer`."""
    return clients.producer(_settings(where), config)


def admin(where: str | Settings) -> AdminClient:
    """An administrative client; as `consumer` otherwise."""
    return clients.admin(_settings(where), {})


def registry(url: str) -> Registry:
    """A client of the registry at an address, with the credentials and certificates of the environment."""
    return Registry(load_settings(schema_registry_url=url))


def _settings(where: str | Settings) -> Settings:
    if isinstance(where, Settings):
        return where
    connection = {name: value for name, value in os.environ.items() if name.upper().startswith(_PREFIXES)}
    return _settings_at(where, tuple(sorted(connection.items())))


@lru_cache(maxsize=16)
def _settings_at(bootstrap: str, _connection: tuple[tuple[str, str], ...]) -> Settings:
    """Made once for each address and environment: what watches the files of a client lives as long as its settings."""
    return load_settings(kafka_bootstrap_servers=bootstrap)
