import os
import re
from pathlib import Path
from typing import get_args

import pytest

from streams.errors import UsageError
from streams.masking import masked, without_credentials
from streams.settings import TOKENS, Settings, load_settings, variable
from streams.unknown_variables import unknown_variables

ROOT = Path(__file__).parents[2]
SECRET = "s3cret!"  # noqa: S105 - a test's
READERS = {
    "cli/app.py",
    "settings.py",
    "unknown_variables.py",
    "cli/findings.py",  # GITHUB_ACTIONS
    "local/artifacts.py",  # XDG_CACHE_HOME
    # The environment as a whole, for a child process:
    "demo/start.py",
    "kafka/offsets_process.py",
    "monitor/clusters.py",
    "local/processes.py",
    "snapshots/objects.py",  # what clouds name their own variables: docs/object-stores.md
}
NUMBERS = {
    "STREAMS_SNAPSHOT_INTERVAL_S": 300.0,
    "STREAMS_SNAPSHOT_KEEP": 3,
    "STREAMS_COMMIT_INTERVAL_MS": 200,
    "STREAMS_LATENESS_MS": 5000,
    "STREAMS_IDLE_MS": 10_000,
    "STREAMS_DEDUP_HORIZON_MS": 86_400_000,
    "STREAMS_SKEW_MS_MAX": 60_000,
    "STREAMS_MEMORY_MB_MAX": 1024,
    "STREAMS_RECORD_BYTES_MAX": 1_048_576,
    "STREAMS_SOURCE_BYTES_PER_S": None,
    "STREAMS_QUARANTINE_REJECTS": 100,
    "STREAMS_QUARANTINE_COOLDOWN_MS": 60_000,
    "STREAMS_GROUP_STATIC": True,
    "STREAMS_GROUP_LEAVE": False,
    "STREAMS_GROWTH_QUIET_MS": 600_000,
    "STREAMS_STALL_S": 300,
    "STREAMS_TRACING_SHARE": 0.01,
    "STREAMS_MONITOR_INTERVAL_S": 5.0,
    "STREAMS_MONITOR_WINDOW_S": 120.0,
    "STREAMS_MONITOR_HISTORY_HOURS": 24.0,
    "STREAMS_MONITOR_HISTORY_MB_MAX": 64.0,
    "STREAMS_NOTIFY_WAIT_S": 30.0,
    "STREAMS_NOTIFY_REPEAT_S": 14_400.0,
    "STREAMS_SCALE_LAG_S_MAX": 30.0,
    "STREAMS_SCALE_CATCH_UP_S": 300.0,
    "STREAMS_SCALE_WORKERS_MIN": 1,
    "STREAMS_SCALE_WORKERS_MAX": 0,
    "STREAMS_SCALE_COOL_DOWN_S": 600.0,
    "STREAMS_SCALE_WORKER_RATE": 0.0,
    "STREAMS_GATEWAY_BODY_BYTES_MAX": 4_194_304,
    "STREAMS_GATEWAY_RATE_MAX": 0,
}
TEXTS = {
    "STREAMS_APP": "logistics",
    "STREAMS_TOPIC_PREFIX": "",
    "STREAMS_WEB_NAMES": "",
    "STREAMS_MONITOR_URL": "",
    "STREAMS_PROMETHEUS_LABELS": "",
    "STREAMS_NOTIFY_EMAIL_FROM": "",
    "STREAMS_NOTIFY_EMAIL_TO": "",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "SCHEMA_REGISTRY_URL": "http://127.0.0.1:8081/apis/ccompat/v7",
    "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
    "STREAMS_DATA_DIR": ".data",
    "STREAMS_GROUP_PROTOCOL": "classic",
    "STREAMS_NATIVE": "auto",
    "STREAMS_DELTA_URL": "",
    "STREAMS_SNAPSHOT_URL": "",
    "STREAMS_FLEET_TILES_URL": "",
    "STREAMS_FLEET_TILES_ATTRIBUTION": "",
    "STREAMS_TRACING": "off",
    "STREAMS_CLUSTER_NAME": "local",
    "STREAMS_MONITOR_GROUPS_ALLOW": "*",
    "STREAMS_MONITOR_GROUPS_DENY": "console-consumer-*",
    "STREAMS_MONITOR_GROUP_POLICIES": "",
    "STREAMS_MONITOR_SINKS": "http://127.0.0.1:6080-6087",
    "STREAMS_MONITOR_WORKERS": "http://127.0.0.1:6066-6073",
    "STREAMS_LOG_FORMAT": "console",
    "STREAMS_WEB_HOST": "127.0.0.1",
    "STREAMS_FAILPOINT": "",
}
ABSENT = (
    "STREAMS_MQTT_USERNAME",
    "STREAMS_MQTT_PASSWORD",
    "STREAMS_MQTT_CA_LOCATION",
    "STREAMS_MQTT_CERTIFICATE_LOCATION",
    "STREAMS_MQTT_KEY_LOCATION",
    "STREAMS_GATEWAY_DIR",
    "STREAMS_PULL_DIR",
    "STREAMS_MONITOR_CLUSTERS",
    "KAFKA_SSL_KEY_PASSWORD",
    "KAFKA_SASL_OAUTHBEARER_METHOD",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_ID",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET",
    "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL",
    "KAFKA_SASL_OAUTHBEARER_SCOPE",
    "KAFKA_SASL_OAUTHBEARER_EXTENSIONS",
    "KAFKA_SASL_OAUTHBEARER_AWS_REGION",
    "KAFKA_HTTPS_CA_LOCATION",
    "SCHEMA_REGISTRY_USERNAME",
    "SCHEMA_REGISTRY_PASSWORD",
    "SCHEMA_REGISTRY_TOKEN",
    "SCHEMA_REGISTRY_SSL_CA_LOCATION",
    "SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION",
    "SCHEMA_REGISTRY_SSL_KEY_LOCATION",
    "SCHEMA_REGISTRY_SSL_KEY_PASSWORD",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SSL_CERTIFICATE_LOCATION",
    "KAFKA_SSL_KEY_LOCATION",
    "STREAMS_ADMIN_TOKEN",
    "STREAMS_HTTP_SINK_TOKEN",
    "STREAMS_POSTGRES_URL",
    "STREAMS_PROMETHEUS_URL",
    "STREAMS_NOTIFY_WEBHOOK_URL",
    "STREAMS_NOTIFY_WEBHOOK_TOKEN",
    "STREAMS_NOTIFY_SLACK_URL",
    "STREAMS_NOTIFY_SMTP_URL",
    "STREAMS_PROMETHEUS_TOKEN",
    "STREAMS_REVIEW_TOKEN_READ",
    "STREAMS_REVIEW_TOKEN_REPLAY",
    "STREAMS_REVIEW_TOKEN_REVEAL",
    "STREAMS_SILENT_S",
    "STREAMS_SCHEMAS_DIR",
    "STREAMS_RUNBOOKS_DIR",
    "STREAMS_CACHE_DIR",
)
FILES = (
    "STREAMS_MQTT_PASSWORD_FILE",
    "KAFKA_SASL_PASSWORD_FILE",
    "KAFKA_SSL_KEY_PASSWORD_FILE",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET_FILE",
    "SCHEMA_REGISTRY_PASSWORD_FILE",
    "SCHEMA_REGISTRY_TOKEN_FILE",
    "SCHEMA_REGISTRY_SSL_KEY_PASSWORD_FILE",
    "STREAMS_HTTP_SINK_TOKEN_FILE",
    "STREAMS_POSTGRES_URL_FILE",
    "STREAMS_PROMETHEUS_URL_FILE",
    "STREAMS_NOTIFY_WEBHOOK_URL_FILE",
    "STREAMS_NOTIFY_WEBHOOK_TOKEN_FILE",
    "STREAMS_NOTIFY_SLACK_URL_FILE",
    "STREAMS_NOTIFY_SMTP_URL_FILE",
    "STREAMS_PROMETHEUS_TOKEN_FILE",
    *(f"{name}_FILE" for name in TOKENS),
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("KAFKA_", "STREAMS_", "SCHEMA_REGISTRY_")):
            monkeypatch.delenv(name)


def test_the_defaults_are_those_of_the_contract() -> None:
    assert load_settings().masked() == {**TEXTS, **NUMBERS, **dict.fromkeys((*ABSENT, *FILES))}


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    monkeypatch.setenv("STREAMS_LATENESS_MS", "0")
    monkeypatch.setenv("STREAMS_DATA_DIR", "/var/lib/streams")
    monkeypatch.setenv("STREAMS_LOG_FORMAT", "json")
    found = load_settings()
    assert (found.kafka_bootstrap_servers, found.streams_lateness_ms) == ("a:1,b:2", 0)
    assert (found.streams_data_dir, found.streams_log_format) == (Path("/var/lib/streams"), "json")


@pytest.mark.parametrize("name", [*NUMBERS, *TEXTS, *ABSENT, *FILES])
def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert {**TEXTS, **NUMBERS, **dict.fromkeys(ABSENT)}.get(name) == load_settings().masked()[name]


def with_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that goes with a password but the password."""
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "me")


def test_an_empty_secret_does_not_hide_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_password(monkeypatch)
    file = tmp_path / "password"
    file.write_text(SECRET)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(file))
    assert SECRET == load_settings().kafka_client_config()["sasl.password"]


@pytest.mark.parametrize("spelling", ["STREAMS_SCHEMAS_DIR", "streams_schemas_dir"])
def test_variables_that_are_read_without_settings_follow_the_same_rules(
    monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.setenv(spelling, "")
    assert variable("STREAMS_SCHEMAS_DIR") is None
    monkeypatch.setenv(spelling, "/schemas")
    assert "/schemas" == variable("STREAMS_SCHEMAS_DIR") == load_settings().masked()["STREAMS_SCHEMAS_DIR"]


def test_no_variable_is_read_that_settings_do_not_list() -> None:
    texts = {
        path.relative_to(ROOT / "streams").as_posix(): path.read_text() for path in (ROOT / "streams").rglob("*.py")
    }
    name = re.compile(r"\"((?:STREAMS|KAFKA|SCHEMA_REGISTRY)_[A-Z_]*[A-Z])\"")
    assert {found for text in texts.values() for found in name.findall(text)} <= load_settings().masked().keys()
    assert {path for path, text in texts.items() if re.search(r"os\.(environ|getenv)", text)} <= READERS


def test_arguments_go_before_the_environment_unless_they_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMS_IDLE_MS", "7")
    assert load_settings(streams_idle_ms=8).streams_idle_ms == 8
    assert load_settings(streams_idle_ms=None).streams_idle_ms == 7


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().streams_idle_ms = 3  # type: ignore[misc]  # what mypy says as well


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("STREAMS_LATENESS_MS", "soon", "STREAMS_LATENESS_MS: .*integer.*'soon'"),
        ("STREAMS_LATENESS_MS", "-1", "STREAMS_LATENESS_MS: .*greater than or equal to 0.*'-1'"),
        ("STREAMS_COMMIT_INTERVAL_MS", "0", "STREAMS_COMMIT_INTERVAL_MS: .*greater than or equal to 1"),
        ("STREAMS_MEMORY_MB_MAX", "1", "STREAMS_MEMORY_MB_MAX: .*greater than or equal to 256"),
        ("STREAMS_LOG_FORMAT", "xml", "STREAMS_LOG_FORMAT: .*'console' or 'json'.*'xml'"),
        ("KAFKA_SECURITY_PROTOCOL", "tls", "KAFKA_SECURITY_PROTOCOL: .*'PLAINTEXT'.*'tls'"),
        ("SCHEMA_REGISTRY_URL", "127.0.0.1:8081", "SCHEMA_REGISTRY_URL: .*https"),
        ("STREAMS_DEDUP_HORIZON_MS", "2000", "STREAMS_DEDUP_HORIZON_MS must not be shorter than STREAMS_LATENESS_MS"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("token", ["fifteen-letters", "a token with \xe9 in it", "a token with \n in it"])
def test_a_token_that_is_short_or_cannot_be_sent_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, token: str
) -> None:
    monkeypatch.setenv(name, token)
    with pytest.raises(UsageError, match=f"{name}.*(16|printable)") as caught:
        load_settings()
    assert token not in str(caught.value)


def test_tokens_with_different_rights_are_different(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMS_ADMIN_TOKEN", "a-token-of-16-letters")
    monkeypatch.setenv("STREAMS_REVIEW_TOKEN_READ", "a-token-of-16-letters")
    with pytest.raises(UsageError, match="different tokens") as caught:
        load_settings()
    assert "a-token-of" not in str(caught.value)


def test_a_secret_is_masked_wherever_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with_password(monkeypatch)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", SECRET)
    found = load_settings()
    assert SECRET not in f"{found!r} {found} {found.masked()} {found.model_dump()}"
    assert found.kafka_client_config()["sasl.password"] == SECRET


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_password(monkeypatch)
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(file))
    assert load_settings().kafka_client_config()["sasl.password"] == SECRET
    assert SECRET not in str(load_settings().masked())


def test_the_variable_goes_before_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_password(monkeypatch)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", SECRET)
    password = load_settings().kafka_sasl_password
    assert password is not None
    assert password.get_secret_value() == SECRET


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{SECRET}@registry/path",
        f"http://me:p@{SECRET}@registry/path",
        f"http://me:p/{SECRET}@registry/path",
        f"http://me:p/w?o#{SECRET}@registry/path",
        f"https://registry/path?token={SECRET}",
        f"https://registry/path?a=b&apikey={SECRET};c={SECRET}#{SECRET}",
        f"https://registry/path?{SECRET}",
        f"http://me:x@one,https://me:{SECRET}@registry/path",
    ],
)
def test_a_url_shows_its_address_and_no_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert SECRET not in f"{masked(url)} {without_credentials(url)}"
    assert "registry/path" in masked(url)
    assert without_credentials(url).endswith("//registry/path")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", url)
    try:
        found = load_settings()
        shown = f"{found!r} {found} {found.masked()}"
    except UsageError as error:  # a password with a slash in it, which no client understands
        shown = str(error)
    assert SECRET not in shown
    assert "registry/path" in shown


@pytest.mark.parametrize(
    "url", ["http://[", "http://a b/", "http://a:x/", "http://:1/", "http://a:1,http://b:x", "http://u:p/w@h/"]
)
def test_a_registry_that_no_client_can_be_made_for_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", url)
    with pytest.raises(UsageError, match=r"^SCHEMA_REGISTRY_URL: http\(s\)://host:port/path"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAMS_MONITOR_WORKERS", f"http://a:6066,http://me:{SECRET}@worker:6066"),
        ("KAFKA_SASL_USERNAME", f'org.x.ScramLoginModule required username="me" password="{SECRET}";'),
    ],
)
def test_a_secret_in_a_setting_that_should_have_none_is_masked_too(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with_password(monkeypatch)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "another")
    monkeypatch.setenv(name, value)
    assert SECRET not in str(load_settings().masked())


@pytest.mark.parametrize("servers", [f"SASL_SSL://me:{SECRET}@kafka:9093", f"a:1,me:{SECRET}@kafka:9093"])
def test_a_broker_with_a_user_is_refused_without_showing_the_password(
    monkeypatch: pytest.MonkeyPatch, servers: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    with pytest.raises(UsageError, match="KAFKA_SASL_PASSWORD") as caught:
        load_settings()
    assert SECRET not in str(caught.value)


def test_everything_that_is_a_secret_can_come_from_a_file_and_is_listed() -> None:
    secrets = {
        name.upper()
        for name, field in Settings.model_fields.items()
        if "Secret" in str((field.annotation, *get_args(field.annotation)))
    }
    listed = load_settings().masked()
    assert {f"{name}_FILE" for name in secrets} == {name for name in listed if name.endswith("_FILE")}


@pytest.mark.parametrize("servers", ["[::1]:9092", "[::1]", "a:1,[fe80::1]:9092", "SASL_SSL://[::1]:9093"])
def test_an_ipv6_address_of_a_broker_is_in_brackets(monkeypatch: pytest.MonkeyPatch, servers: str) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    assert servers == load_settings().kafka_client_config()["bootstrap.servers"]
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers.replace("[", "").replace("]", "") + ":9:9")
    with pytest.raises(UsageError, match=r"KAFKA_BOOTSTRAP_SERVERS: .*in brackets: \[::1\]:9092"):
        load_settings()


def test_a_value_that_is_not_text_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "STREAMS_DATA_DIR", "caf\udce9")
    with pytest.raises(UsageError, match=r"^STREAMS_DATA_DIR is not UTF-8: caf\\udce9$"):
        load_settings()


def test_variables_that_are_no_settings_are_named_with_the_one_that_may_be_meant() -> None:
    environment = {
        "STREAMS_LATENES_MS": "1",
        "KAFKA_BOOTSTRAP_SERVER": "a:1",
        "SCHEMA_REGISTRY_BASIC_AUTH": SECRET,
        "streams_idle_ms": "1",
        "STREAMS_ADMIN_TOKEN_FILE": "/run/secrets/token",
        "KAFKA_HEAP_OPTS": "-Xmx1g",
        "KAFKA_PORT": "tcp://10.0.0.1:9092",
        "KAFKA_SERVICE_HOST": "10.0.0.1",
        "KAFKA_PORT_9092_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    assert [
        "KAFKA_BOOTSTRAP_SERVER is no setting and is ignored; did you mean KAFKA_BOOTSTRAP_SERVERS?",
        "SCHEMA_REGISTRY_BASIC_AUTH is no setting and is ignored",
        "STREAMS_LATENES_MS is no setting and is ignored; did you mean STREAMS_LATENESS_MS?",
    ] == unknown_variables(environment)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"", b" \n", b"x" * 100_000])
def test_a_secrets_file_that_cannot_be_read_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(file))
    with pytest.raises(UsageError, match=r"^KAFKA_SASL_PASSWORD_FILE: .*password"):
        load_settings()


def test_a_client_is_configured_with_what_is_set_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().kafka_client_config() == {
        "bootstrap.servers": "127.0.0.1:9092",
        "security.protocol": "PLAINTEXT",
    }
    with_password(monkeypatch)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", SECRET)
    monkeypatch.setenv("KAFKA_SSL_CA_LOCATION", "/ca.pem")
    monkeypatch.setenv("KAFKA_SSL_CERTIFICATE_LOCATION", "/cert.pem")
    monkeypatch.setenv("KAFKA_SSL_KEY_LOCATION", "/key.pem")
    assert load_settings().kafka_client_config() == {
        "bootstrap.servers": "127.0.0.1:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": SECRET,
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/cert.pem",
        "ssl.key.location": "/key.pem",
    }


def test_every_setting_is_in_the_contract() -> None:
    assert {name.upper() for name in Settings.model_fields} == {*NUMBERS, *TEXTS, *ABSENT}


def test_a_variable_overrides_what_a_flow_declares_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = {"streams_lateness_ms": 7, "streams_idle_ms": 8}
    monkeypatch.setenv("STREAMS_IDLE_MS", "9")
    found = load_settings().for_flow(declared)
    assert (found.streams_lateness_ms, found.streams_idle_ms) == (7, 9)


def test_a_variable_that_contradicts_what_a_flow_declares_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMS_DEDUP_HORIZON_MS", "6000")
    with pytest.raises(UsageError, match=r"STREAMS_DEDUP_HORIZON_MS \(6000\) must not be shorter .* \(7000\)"):
        load_settings().for_flow({"streams_lateness_ms": 7_000})
