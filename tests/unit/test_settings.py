import os
import re
from pathlib import Path

import pytest

from streams.errors import UsageError
from streams.settings import TOKENS, Settings, load_settings

NUMBERS = {
    "STREAMS_COMMIT_INTERVAL_MS": 200,
    "STREAMS_LATENESS_MS": 5000,
    "STREAMS_IDLE_MS": 10_000,
    "STREAMS_DEDUP_HORIZON_MS": 86_400_000,
    "STREAMS_SKEW_MS_MAX": 60_000,
    "STREAMS_MEMORY_MB_MAX": 1024,
    "STREAMS_RECORD_BYTES_MAX": 1_048_576,
    "STREAMS_QUARANTINE_REJECTS": 100,
    "STREAMS_QUARANTINE_COOLDOWN_MS": 60_000,
    "STREAMS_GROUP_STATIC": True,
    "STREAMS_STALL_S": 300,
    "STREAMS_DOWNSTREAM_MS": 0,
    "STREAMS_DOWNSTREAM_RECORDS": 250,
    "STREAMS_TRACING_SHARE": 0.01,
    "STREAMS_MONITOR_INTERVAL_S": 5.0,
    "STREAMS_MONITOR_WINDOW_S": 120.0,
}
TEXTS = {
    "STREAMS_TOPIC_PREFIX": "",
    "STREAMS_WEB_NAMES": "",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "SCHEMA_REGISTRY_URL": "http://127.0.0.1:8081/apis/ccompat/v7",
    "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
    "STREAMS_DATA_DIR": ".data",
    "STREAMS_GROUP_PROTOCOL": "classic",
    "STREAMS_TRACING": "off",
    "STREAMS_CLUSTER_NAME": "local",
    "STREAMS_MONITOR_WORKERS": "http://127.0.0.1:6066-6073",
    "STREAMS_LOG_FORMAT": "console",
}
ABSENT = (
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SSL_CERTIFICATE_LOCATION",
    "KAFKA_SSL_KEY_LOCATION",
    "STREAMS_ADMIN_TOKEN",
    "STREAMS_REVIEW_TOKEN_READ",
    "STREAMS_REVIEW_TOKEN_READ_FILE",
    "STREAMS_REVIEW_TOKEN_REPLAY",
    "STREAMS_REVIEW_TOKEN_REPLAY_FILE",
    "STREAMS_REVIEW_TOKEN_REVEAL",
    "STREAMS_REVIEW_TOKEN_REVEAL_FILE",
    "STREAMS_SILENT_S",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith(("KAFKA_", "STREAMS_", "SCHEMA_REGISTRY_")):
            monkeypatch.delenv(name)


def test_the_defaults_are_those_of_the_contract():
    assert load_settings().masked() == {**TEXTS, **NUMBERS, **dict.fromkeys(ABSENT)}


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    monkeypatch.setenv("STREAMS_LATENESS_MS", "0")
    monkeypatch.setenv("STREAMS_DATA_DIR", "/var/lib/streams")
    monkeypatch.setenv("STREAMS_LOG_FORMAT", "json")
    found = load_settings()
    assert (found.kafka_bootstrap_servers, found.streams_lateness_ms) == ("a:1,b:2", 0)
    assert (found.streams_data_dir, found.streams_log_format) == (Path("/var/lib/streams"), "json")


def test_an_empty_variable_is_no_variable(monkeypatch):
    monkeypatch.setenv("STREAMS_LATENESS_MS", "")
    assert load_settings().streams_lateness_ms == 5000


def test_arguments_go_before_the_environment_unless_they_are_none(monkeypatch):
    monkeypatch.setenv("STREAMS_IDLE_MS", "7")
    assert load_settings(streams_idle_ms=8).streams_idle_ms == 8
    assert load_settings(streams_idle_ms=None).streams_idle_ms == 7


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().streams_idle_ms = 3


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
def test_a_wrong_value_is_one_line_that_names_the_variable(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("token", ["fifteen-letters", "a token with \xe9 in it", "a token with \n in it"])
def test_a_token_that_is_short_or_cannot_be_sent_is_refused_and_not_shown(monkeypatch, name, token):
    monkeypatch.setenv(name, token)
    with pytest.raises(UsageError, match=f"{name}.*(16|printable)") as caught:
        load_settings()
    assert token not in str(caught.value)


def test_tokens_with_different_rights_are_different(monkeypatch):
    monkeypatch.setenv("STREAMS_ADMIN_TOKEN", "a-token-of-16-letters")
    monkeypatch.setenv("STREAMS_REVIEW_TOKEN_READ", "a-token-of-16-letters")
    with pytest.raises(UsageError, match="different tokens") as caught:
        load_settings()
    assert "a-token-of" not in str(caught.value)


SECRET = "s3cret!"  # noqa: S105 - a test's


def test_a_secret_is_masked_wherever_settings_are_shown(monkeypatch):
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", SECRET)
    found = load_settings()
    assert SECRET not in f"{found!r} {found} {found.masked()} {found.model_dump()}"
    assert found.kafka_client_config()["sasl.password"] == SECRET


def test_a_secret_may_come_from_a_file(monkeypatch, tmp_path):
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(file))
    assert load_settings().kafka_client_config()["sasl.password"] == SECRET
    assert SECRET not in str(load_settings().masked())


def test_the_variable_goes_before_its_file(monkeypatch, tmp_path):
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", SECRET)
    assert load_settings().kafka_sasl_password.get_secret_value() == SECRET


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_secrets_file_that_cannot_be_read_is_a_clear_error(monkeypatch, tmp_path, content):
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(file))
    with pytest.raises(UsageError, match=r"KAFKA_SASL_PASSWORD_FILE: cannot read .*password"):
        load_settings()


def test_a_client_is_configured_with_what_is_set_and_nothing_else(monkeypatch):
    assert load_settings().kafka_client_config() == {
        "bootstrap.servers": "127.0.0.1:9092",
        "security.protocol": "PLAINTEXT",
    }
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "me")
    monkeypatch.setenv("KAFKA_SSL_CA_LOCATION", "/ca.pem")
    monkeypatch.setenv("KAFKA_SSL_CERTIFICATE_LOCATION", "/cert.pem")
    monkeypatch.setenv("KAFKA_SSL_KEY_LOCATION", "/key.pem")
    assert load_settings().kafka_client_config() == {
        "bootstrap.servers": "127.0.0.1:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "me",
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/cert.pem",
        "ssl.key.location": "/key.pem",
    }


def test_every_setting_is_in_the_contract():
    assert {name.upper() for name in Settings.model_fields} == {*NUMBERS, *TEXTS, *ABSENT}
