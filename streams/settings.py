"""Settings: environment variables to one frozen object, validated once, secrets masked in every output.

Every variable is optional; the defaults are the embedded local stack. A secret `X` may be given as `X_FILE`, the path
of a file that holds it (as orchestrators mount secrets). An empty variable counts as none.

`KAFKA_CONFIG_<OPTION>` sets an option of librdkafka (`streams.kafka_options`).

Every variable that the product reads is here, including those that are read before there are settings (`variable`).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import structlog
from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams.connection import contradiction
from streams.errors import UsageError
from streams.kafka_options import PREFIX, Scope, is_secret, option_or_its_file, scoped, variable_of
from streams.limits import GROWTH_QUIET_MS
from streams.masking import masked, separate
from streams.text import printable

log = structlog.get_logger(__name__)

TOKEN_CHARACTERS_MIN: Final = 16
MEMORY_MB_MIN: Final = 256
"""Smallest memory setting of a worker."""
SECRET_BYTES_MAX: Final = 65_536
"""Largest file with a secret."""
_TILES: Final = r"""^((https?://[A-Za-z0-9.:\[\]-]+)?/[^\s"'<>;,]*)?$"""
"""Address of tiles: without what would end an entry of a Content-Security-Policy."""
_CONNECTIONS: Final = ("KAFKA_", "SCHEMA_REGISTRY_")


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
    kafka_ssl_key_password: SecretStr | None = None
    kafka_sasl_oauthbearer_method: Literal["oidc", "aws_msk_iam"] | None = None
    """None with OAUTHBEARER: oidc."""
    kafka_sasl_oauthbearer_client_id: str | None = None
    kafka_sasl_oauthbearer_client_secret: SecretStr | None = None
    kafka_sasl_oauthbearer_token_endpoint_url: str | None = Field(None, pattern=r"^https?://.+")
    kafka_sasl_oauthbearer_scope: str | None = None
    kafka_sasl_oauthbearer_extensions: str | None = None
    kafka_sasl_oauthbearer_aws_region: str | None = Field(None, pattern=r"^[a-z0-9-]{1,40}$")
    kafka_https_ca_location: Path | None = None
    """CA of the token endpoint."""
    schema_registry_username: str | None = Field(None, pattern="^[^:]+$")
    schema_registry_password: SecretStr | None = None
    schema_registry_token: SecretStr | None = None
    schema_registry_ssl_ca_location: Path | None = None
    schema_registry_ssl_certificate_location: Path | None = None
    schema_registry_ssl_key_location: Path | None = None
    schema_registry_ssl_key_password: SecretStr | None = None
    streams_data_dir: Path = Path(".data")
    streams_topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,100}$")
    streams_commit_interval_ms: int = Field(200, ge=1, le=10_000)
    streams_lateness_ms: int = Field(5_000, ge=0, le=86_400_000)
    streams_idle_ms: int = Field(10_000, ge=1)
    streams_dedup_horizon_ms: int = Field(86_400_000, ge=1_000)
    streams_skew_ms_max: int = Field(60_000, ge=0)
    streams_memory_mb_max: int = Field(1024, ge=MEMORY_MB_MIN)
    streams_record_bytes_max: int = Field(1_048_576, ge=64)
    streams_source_bytes_per_s: int | None = Field(None, ge=1)
    """At most what comes into each source: quotas of roles follow from it (`streams.acls.quotas`)."""
    streams_quarantine_rejects: int = Field(100, ge=0, le=10_000)
    streams_quarantine_cooldown_ms: int = Field(60_000, ge=1_000)
    streams_group_protocol: Literal["classic", "consumer"] = "classic"
    streams_group_static: bool = True
    streams_group_leave: bool = False
    streams_growth_quiet_ms: int = Field(GROWTH_QUIET_MS, ge=100)
    streams_stall_s: int = Field(300, ge=0)
    streams_native: Literal["auto", "off", "on"] = "auto"
    """Whether the native library is used: `streams.avro.native`, `streams.kafka.native_client`."""
    streams_admin_token: SecretStr | None = Field(None, min_length=TOKEN_CHARACTERS_MIN)
    streams_review_token_read: SecretStr | None = Field(None, min_length=TOKEN_CHARACTERS_MIN)
    streams_review_token_replay: SecretStr | None = Field(None, min_length=TOKEN_CHARACTERS_MIN)
    streams_review_token_reveal: SecretStr | None = Field(None, min_length=TOKEN_CHARACTERS_MIN)
    streams_postgres_url: SecretStr | None = None
    """Database of sinks into PostgreSQL: `postgresql://user:password@host/database`, or `key=value` pairs."""
    streams_delta_url: str = Field("", max_length=2_000)
    """Folder, or address in an object store, that Delta tables of sinks are below; empty: `delta` in the data
    directory."""
    streams_http_sink_token: SecretStr | None = None
    """Bearer token of sinks that post to an endpoint."""
    streams_snapshot_url: str = Field("", max_length=2_000)
    """These three: `streams.snapshots`. Empty: no snapshots."""
    streams_snapshot_interval_s: float = Field(300.0, ge=1, le=86_400)
    streams_snapshot_keep: int = Field(3, ge=1, le=100)
    streams_tracing: Literal["off", "otlp"] = "off"
    streams_tracing_share: float = Field(0.01, ge=0, le=1)
    streams_cluster_name: str = Field("local", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    streams_monitor_interval_s: float = Field(5.0, ge=0.5, le=300)
    streams_monitor_window_s: float = Field(120.0, ge=10, le=3_600)
    streams_monitor_groups_allow: str = "*"
    streams_monitor_groups_deny: str = "console-consumer-*"
    streams_monitor_group_policies: str = ""
    """`streams.monitor.policies`."""
    streams_monitor_clusters: Path | None = None
    """Further clusters that the monitor looks at: `streams.monitor.clusters`."""
    streams_monitor_history_hours: float = Field(24.0, ge=0.1, le=168)
    streams_monitor_history_mb_max: float = Field(64.0, ge=1, le=16_384)
    """`streams.monitor.history.book`: how far charts reach back, and the memory for that."""
    streams_prometheus_url: SecretStr | None = None
    """Where charts of the monitor have older history from; it may have a user and password."""
    streams_prometheus_token: SecretStr | None = None
    """Bearer token for that."""
    streams_prometheus_labels: str = Field("", pattern=r"^( *[a-zA-Z_][a-zA-Z0-9_]* *=[^,]{1,200}(,|$)){0,20}$")
    """What tells the metrics of this monitor from those of others there."""
    streams_monitor_workers: str = "http://127.0.0.1:6066-6073"
    streams_monitor_sinks: str = "http://127.0.0.1:6080-6087"
    streams_fleet_tiles_url: str = Field("", max_length=500, pattern=_TILES)
    """Tiles below the outlines of the fleet page's map."""
    streams_fleet_tiles_attribution: str = Field("", max_length=200)
    """What the provider of the tiles wants to be said on the map."""
    streams_monitor_url: str = Field("", pattern=r"^(https?://[^\s@?#]{1,500})?$")
    """Where people reach the monitor, for links in messages."""
    streams_notify_webhook_url: SecretStr | None = None
    """These eight: `streams.monitor.notify`. Addresses may have secrets in their paths."""
    streams_notify_webhook_token: SecretStr | None = None
    streams_notify_slack_url: SecretStr | None = None
    streams_notify_smtp_url: SecretStr | None = None
    streams_notify_email_from: str = ""
    streams_notify_email_to: str = ""
    streams_notify_wait_s: float = Field(30.0, ge=0, le=3_600)
    streams_notify_repeat_s: float = Field(14_400.0, ge=60, le=604_800)
    streams_scale_lag_s_max: float = Field(30.0, ge=1, le=86_400)
    """These six: `streams.monitor.scale`."""
    streams_scale_catch_up_s: float = Field(300.0, ge=10, le=86_400)
    streams_scale_workers_min: int = Field(1, ge=1, le=10_000)
    streams_scale_workers_max: int = Field(0, ge=0, le=10_000)
    streams_scale_cool_down_s: float = Field(600.0, ge=0, le=86_400)
    streams_scale_worker_rate: float = Field(0.0, ge=0, le=10_000_000)
    streams_silent_s: float | None = Field(None, gt=0)
    streams_log_format: Literal["console", "json"] = "console"
    streams_web_host: str = "127.0.0.1"
    streams_web_names: str = Field("", pattern=r"^[A-Za-z0-9., _-]{0,1000}$")
    streams_pull_dir: Path | None = None
    """Declarations of REST sources. None: `pull` in `streams_data_dir`."""
    streams_gateway_dir: Path | None = None
    """Credentials and formats of one's own. None: `gateway` in `streams_data_dir`."""
    streams_gateway_body_bytes_max: int = Field(4_194_304, ge=1_024, le=67_108_864)
    streams_gateway_rate_max: int = Field(0, ge=0)
    """Events a second of each sender; 0: any."""
    streams_mqtt_username: str | None = None
    """These five: the MQTT broker of `streams bridge mqtt`."""
    streams_mqtt_password: SecretStr | None = None
    streams_mqtt_ca_location: Path | None = None
    """None: the certificate authorities of the system."""
    streams_mqtt_certificate_location: Path | None = None
    streams_mqtt_key_location: Path | None = None
    streams_app: str = Field("logistics", pattern=r"^[A-Za-z_][A-Za-z0-9_.]*(:[A-Za-z_][A-Za-z0-9_]*)?$")
    """Module that declares the flows, and perhaps the name of one: `streams.flow.discover`."""
    streams_schemas_dir: Path | None = None
    """None: the app's own ones."""
    streams_runbooks_dir: Path | None = None
    """None: those that come with the package."""
    streams_cache_dir: Path | None = None
    """None: `streams` in the user's cache directory."""
    streams_failpoint: str = ""
    """For tests: `streams.worker.failpoint`."""

    _secret_files: Mapping[str, Path] = PrivateAttr(default_factory=dict)
    """By name of its variable: the file that a secret was read from."""
    _secrets_read: dict[str, SecretStr] = PrivateAttr(default_factory=dict)
    """By name of its variable: a secret as its file was last read."""
    _kafka_options: Mapping[str, SecretStr] = PrivateAttr(default_factory=dict)
    """By name of librdkafka: what `KAFKA_CONFIG_<OPTION>` sets."""

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _bracketed(cls, servers: str) -> str:
        for server in servers.split(","):
            place = server.rpartition("://")[2].strip()
            if "@" in place:
                raise ValueError("host:port, without a user: KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD are for that")
            if place.count(":") > 1 and not re.fullmatch(r"\[[^\[\]]+\](:\d+)?", place):
                raise ValueError("an IPv6 address is written in brackets: [::1]:9092")
        return servers

    @field_validator("streams_fleet_tiles_url")
    @classmethod
    def _with_tile(cls, url: str) -> str:
        if url and not all(part in url for part in ("{z}", "{x}", "{y}")):
            raise ValueError("the address of tiles has {z}, {x} and {y} in it: https://host/{z}/{x}/{y}.png")
        return url

    @model_validator(mode="after")
    def _relations(self) -> "Settings":
        if self.streams_dedup_horizon_ms < self.streams_lateness_ms:
            raise ValueError("STREAMS_DEDUP_HORIZON_MS must not be shorter than STREAMS_LATENESS_MS")
        if self.streams_monitor_window_s < 3 * self.streams_monitor_interval_s:
            raise ValueError("STREAMS_MONITOR_WINDOW_S must be at least three times STREAMS_MONITOR_INTERVAL_S")
        if 0 < self.streams_scale_workers_max < self.streams_scale_workers_min:
            raise ValueError("STREAMS_SCALE_WORKERS_MAX must not be below STREAMS_SCALE_WORKERS_MIN (0: no limit)")
        tokens = [token.get_secret_value() for name in TOKENS if (token := getattr(self, name.lower())) is not None]
        if not all(token.isascii() and token.isprintable() and token == token.strip() for token in tokens):
            raise ValueError(f"{', '.join(TOKENS)} must be printable ASCII, without spaces at either end")
        if len(set(tokens)) < len(tokens):
            raise ValueError(f"{', '.join(TOKENS)} must be different tokens: each permits something else")
        if (wrong := contradiction({name: getattr(self, name.lower()) for name in _fields()})) is not None:
            raise ValueError(wrong)
        return self

    @field_validator("schema_registry_url")
    @classmethod
    def _usable(cls, urls: str) -> str:
        for url in separate(urls):
            try:
                parts = urlsplit(url.strip())
                is_usable = bool(parts.hostname) and (parts.port is None or parts.port > 0) and " " not in parts.netloc
            except ValueError:
                is_usable = False
            if not is_usable:
                raise ValueError("http(s)://host:port/path; in a password write / as %2F, ? as %3F and # as %23")
        return urls

    def kafka_client_config(self) -> dict[str, str]:
        """Connection part of every librdkafka configuration (address, TLS, SASL); `streams.kafka.clients` uses it.

        Secrets that came from a file are read again, so that a client that is made later has the ones in force.
        """
        config: dict[str, str] = {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            "security.protocol": self.kafka_security_protocol,
        }
        optional: dict[str, Any] = {
            "sasl.mechanisms": self.kafka_sasl_mechanism,
            "sasl.username": self.kafka_sasl_username,
            "sasl.password": self.secret("KAFKA_SASL_PASSWORD"),
            "ssl.ca.location": self.kafka_ssl_ca_location,
            "ssl.certificate.location": self.kafka_ssl_certificate_location,
            "ssl.key.location": self.kafka_ssl_key_location,
            "ssl.key.password": self.secret("KAFKA_SSL_KEY_PASSWORD"),
        }
        if self.kafka_sasl_mechanism == "OAUTHBEARER" and self.kafka_sasl_oauthbearer_method != "aws_msk_iam":
            optional |= {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": self.kafka_sasl_oauthbearer_client_id,
                "sasl.oauthbearer.client.secret": self.secret("KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET"),
                "sasl.oauthbearer.token.endpoint.url": self.kafka_sasl_oauthbearer_token_endpoint_url,
                "sasl.oauthbearer.scope": self.kafka_sasl_oauthbearer_scope,
                "sasl.oauthbearer.extensions": self.kafka_sasl_oauthbearer_extensions,
                "https.ca.location": self.kafka_https_ca_location,
            }
        config.update({key: str(value) for key, value in optional.items() if value is not None})
        return config

    def kafka_options(self, scope: Scope) -> dict[str, str]:
        """What `KAFKA_CONFIG_<OPTION>` sets for producers (`P`), consumers (`C`), or clients that are neither (`*`)."""
        return scoped({name: value.get_secret_value() for name, value in self._kafka_options.items()}, scope)

    def schema_registry_config(self) -> dict[str, str]:
        """Connection part of the configuration of confluent-kafka's registry client, but for the token.

        Secrets that came from a file are read again.
        """
        user, password = self.schema_registry_username, self.secret("SCHEMA_REGISTRY_PASSWORD")
        optional: dict[str, Any] = {
            "basic.auth.user.info": None if user is None else f"{user}:{password}",
            "ssl.ca.location": self.schema_registry_ssl_ca_location,
            "ssl.certificate.location": self.schema_registry_ssl_certificate_location,
            "ssl.key.location": self.schema_registry_ssl_key_location,
            "ssl.key.password": self.secret("SCHEMA_REGISTRY_SSL_KEY_PASSWORD"),
        }
        config = {key: str(value) for key, value in optional.items() if value is not None}
        return {"url": self.schema_registry_url, **config}

    def secret(self, name: str) -> str | None:
        """A secret by the name of its variable, read again if it came from a file; None: not set.

        While its file cannot be read, or is empty, the last value stays in use.
        """
        path = self._secret_files.get(name)
        if path is not None:
            try:
                self._secrets_read[name] = SecretStr(_secret(f"{name}_FILE", str(path)))
            except UsageError as error:
                log.warning("a secret cannot be read again; the one that was read last stays in use", error=str(error))
        held: SecretStr | None = self._secrets_read.get(name, getattr(self, name.lower()))
        return None if held is None else held.get_secret_value()

    def secret_file(self, name: str) -> Path | None:
        """The file that a secret was read from, by the name of its variable; None: it came from none."""
        return self._secret_files.get(name)

    def connection_environment(self) -> dict[str, str]:
        """Variables that give a child process the same connections; a secret that came from a file goes as its path."""
        found: dict[str, str] = {}
        for name in _fields():
            value = getattr(self, name.lower())
            if not name.startswith(_CONNECTIONS) or value is None:
                continue
            if name in self._secret_files:
                found[f"{name}_FILE"] = str(self._secret_files[name].absolute())
            else:
                found[name] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        options = {name: value.get_secret_value() for name, value in self._kafka_options.items()}
        return found | {variable_of(name): value for name, value in options.items()}

    def for_flow(self, bounds: Mapping[str, int]) -> "Settings":
        """These settings with the bounds that a flow declares, by the name of the setting, where none is set here.

        Raises:
            UsageError: what is set and what the flow declares contradict each other.

        """
        found = self.model_copy(
            update={name: value for name, value in bounds.items() if name not in self.model_fields_set}
        )
        if found.streams_dedup_horizon_ms < found.streams_lateness_ms:
            raise UsageError(
                f"STREAMS_DEDUP_HORIZON_MS ({found.streams_dedup_horizon_ms}) must not be shorter than "
                f"STREAMS_LATENESS_MS ({found.streams_lateness_ms}); what is not set is as the flow declares it"
            )
        return found

    def masked(self) -> dict[str, str | int | float | None]:
        """The values by variable name, secrets masked: fit for printing."""
        values: dict[str, str | int | float | None] = {}
        for name in _fields():
            values[name] = _shown(getattr(self, name.lower()))
            if name in SECRETS:
                values[f"{name}_FILE"] = variable(f"{name}_FILE")
        for option, given in self._kafka_options.items():
            values[variable_of(option)] = str(given) if is_secret(option) else masked(given.get_secret_value())
        return values

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [(name.lower(), value) for name, value in self.masked().items()]


def _shown(value: Any) -> str | int | float | None:
    if value is None or isinstance(value, int | float):
        return value
    return str(value) if isinstance(value, SecretStr) else masked(str(value))


def _fields() -> list[str]:
    return [name.upper() for name in Settings.model_fields]


SECRETS: Final = tuple(
    name.upper()
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
)
"""Each may come from a file: `<NAME>_FILE`."""
TOKENS: Final = (
    "STREAMS_ADMIN_TOKEN",
    "STREAMS_REVIEW_TOKEN_READ",
    "STREAMS_REVIEW_TOKEN_REPLAY",
    "STREAMS_REVIEW_TOKEN_REVEAL",
)
"""Tokens of the review page. They must differ, and have at least TOKEN_CHARACTERS_MIN characters of ASCII."""


def load_settings(**overrides: Any) -> Settings:
    """Read the environment.

    Raises:
        UsageError: a value is wrong; the message names the variable and what it must be.

    """
    for name in known_variables():
        if (value := variable(name)) is not None and not _is_text(value):
            raise UsageError(f"{name} is not UTF-8: {printable(masked(value))}")
    files: dict[str, Path] = {}
    for name in SECRETS:
        path = variable(f"{name}_FILE")
        if path is not None and variable(name) is None and name.lower() not in overrides:
            overrides[name.lower()] = _secret(f"{name}_FILE", path)
            files[name] = Path(path)
    options = _options()
    try:
        found = Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]).upper() if first["loc"] else "settings"
        shown = "" if where in SECRETS or not first["loc"] else f" (got {masked(str(first['input']))!r})"
        raise UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}{shown}") from None
    found._secret_files, found._kafka_options = files, options  # noqa: SLF001 - set once, here
    return found


def without_connections(values: Mapping[str, str]) -> dict[str, str]:
    """Variables other than those of connections to Kafka and the registry."""
    return {name: value for name, value in values.items() if not name.upper().startswith(_CONNECTIONS)}


def settings_in(environment: Mapping[str, str]) -> Settings:
    """The settings that these variables make, instead of those of the process. Before there are threads.

    Raises:
        UsageError: as `load_settings`.

    """
    own = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        return load_settings()
    finally:
        os.environ.clear()
        os.environ.update(own)


def variable(name: str) -> str | None:
    """One variable of the environment, for use before, or without, settings; None: not set, or empty.

    As in `Settings`, its name may be in lower case.
    """
    for candidate in (name, *(other for other in os.environ if other.upper() == name)):
        if value := os.environ.get(candidate):
            return value
    return None


def known_variables() -> list[str]:
    """Names of all settings, in upper case, and of the variables that name files of secrets."""
    return [*_fields(), *(f"{name}_FILE" for name in SECRETS)]


def _options() -> dict[str, SecretStr]:
    found: dict[str, SecretStr] = {}
    for name in sorted(other for other in os.environ if other.upper().startswith(PREFIX)):
        value = os.environ[name]
        if not value:
            continue
        if not _is_text(value):
            raise UsageError(f"{name} is not UTF-8: {printable(masked(value))}")
        option, is_path = option_or_its_file(name)
        found[option] = SecretStr(_secret(name, value) if is_path else value)
    return found


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _secret(name: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(SECRET_BYTES_MAX + 1)
        if len(content) > SECRET_BYTES_MAX:
            raise UsageError(f"{name}: {path} has more than {SECRET_BYTES_MAX:,} bytes: it holds no secret")
        secret = content.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: cannot read {path}: {error}") from None
    if not secret:
        raise UsageError(f"{name}: {path} is empty")
    return secret
