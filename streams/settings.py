"""Settings: environment variables to one frozen object, validated once, secrets masked in every output.

Every variable is optional; the defaults are the embedded local stack. A secret `X` may be given as `X_FILE`, the path
of a file that holds it (as orchestrators mount secrets).
"""

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams.errors import UsageError

_CREDENTIALS_IN_URL = re.compile(r"//[^/@]*@")


class Settings(BaseSettings):
    """The values in force. Field names are the environment variables in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False, env_ignore_empty=True)

    kafka_bootstrap_servers: str = Field("127.0.0.1:9092", min_length=1)
    schema_registry_url: str = Field("http://127.0.0.1:8081/apis/ccompat/v7", pattern=r"^https?://.+")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_ca_location: Path | None = None
    kafka_ssl_certificate_location: Path | None = None
    kafka_ssl_key_location: Path | None = None
    streams_data_dir: Path = Path(".data")
    streams_topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,100}$")
    streams_commit_interval_ms: int = Field(200, ge=1, le=10_000)
    streams_lateness_ms: int = Field(5_000, ge=0, le=86_400_000)
    streams_idle_ms: int = Field(10_000, ge=1)
    streams_dedup_horizon_ms: int = Field(86_400_000, ge=1_000)
    streams_skew_ms_max: int = Field(60_000, ge=0)
    streams_memory_mb_max: int = Field(1024, ge=256)
    streams_record_bytes_max: int = Field(1_048_576, ge=64)
    streams_quarantine_rejects: int = Field(100, ge=0, le=10_000)
    streams_quarantine_cooldown_ms: int = Field(60_000, ge=1_000)
    streams_group_protocol: Literal["classic", "consumer"] = "classic"
    streams_group_static: bool = True
    streams_group_leave: bool = False
    streams_downstream_ms: int = Field(0, ge=0, le=10_000)
    streams_downstream_records: int = Field(250, ge=1)
    streams_stall_s: int = Field(300, ge=0)
    streams_admin_token: SecretStr | None = Field(None, min_length=8)
    streams_tracing: Literal["off", "otlp"] = "off"
    streams_tracing_share: float = Field(0.01, ge=0, le=1)
    streams_cluster_name: str = Field("local", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    streams_monitor_interval_s: float = Field(5.0, ge=0.5, le=300)
    streams_monitor_window_s: float = Field(120.0, ge=10, le=3_600)
    streams_monitor_workers: str = "http://127.0.0.1:6066-6073"
    streams_silent_s: float | None = Field(None, gt=0)
    streams_log_format: Literal["console", "json"] = "console"

    @model_validator(mode="after")
    def _relations(self) -> "Settings":
        if self.streams_dedup_horizon_ms < self.streams_lateness_ms:
            raise ValueError("STREAMS_DEDUP_HORIZON_MS must not be shorter than STREAMS_LATENESS_MS")
        if self.streams_monitor_window_s < 3 * self.streams_monitor_interval_s:
            raise ValueError("STREAMS_MONITOR_WINDOW_S must be at least three times STREAMS_MONITOR_INTERVAL_S")
        return self

    def kafka_client_config(self) -> dict[str, str]:
        """Connection part of every librdkafka configuration (address, TLS, SASL)."""
        config: dict[str, str] = {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            "security.protocol": self.kafka_security_protocol,
        }
        optional: dict[str, Any] = {
            "sasl.mechanisms": self.kafka_sasl_mechanism,
            "sasl.username": self.kafka_sasl_username,
            "sasl.password": self.kafka_sasl_password.get_secret_value() if self.kafka_sasl_password else None,
            "ssl.ca.location": self.kafka_ssl_ca_location,
            "ssl.certificate.location": self.kafka_ssl_certificate_location,
            "ssl.key.location": self.kafka_ssl_key_location,
        }
        config.update({key: str(value) for key, value in optional.items() if value is not None})
        return config

    def masked(self) -> dict[str, str | int | float | None]:
        """The values by variable name, secrets masked: fit for printing."""
        values: dict[str, str | int | float | None] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            values[name.upper()] = value if isinstance(value, int | float) or value is None else str(value)
        values["SCHEMA_REGISTRY_URL"] = _CREDENTIALS_IN_URL.sub("//**********@", self.schema_registry_url)
        return values


SECRETS = ("KAFKA_SASL_PASSWORD", "STREAMS_ADMIN_TOKEN")


def load_settings(**overrides: Any) -> Settings:
    """Read the environment.

    Raises:
        UsageError: a value is wrong; the message names the variable and what it must be.

    """
    for name in SECRETS:
        path = os.environ.get(f"{name}_FILE")
        if path and name not in os.environ:
            try:
                overrides.setdefault(name.lower(), Path(path).read_text(encoding="utf-8").strip())
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{name}_FILE: cannot read {path}: {error}") from None
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]).upper() if first["loc"] else "settings"
        hidden = {*SECRETS, "SCHEMA_REGISTRY_URL"}
        shown = "" if where in hidden or not first["loc"] else f" (got {first['input']!r})"
        raise UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}{shown}") from None
