"""The load test's own clients: made in one place, with the connection settings of the environment."""

import re
from pathlib import Path
from typing import Any

import pytest

from loadtest import clients
from streams.errors import UsageError
from streams.kafka.clients import configured
from streams.settings import load_settings

LOADTEST = Path(clients.__file__).parent
MADE = re.compile(r"(?<![.\w])(Consumer|Producer|AdminClient|SchemaRegistryClient)\(")


def test_no_other_module_of_the_load_test_makes_a_client() -> None:
    found = {
        str(path.relative_to(LOADTEST)): MADE.findall(path.read_text(encoding="utf-8"))
        for path in LOADTEST.rglob("*.py")
        if path.name not in {"clients.py", "faust_baseline.py", "quix_baseline.py"}
    }
    assert {} == {name: made for name, made in found.items() if made}


def test_a_client_at_an_address_has_the_connection_settings_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("s3cret")
    values = {
        "KAFKA_BOOTSTRAP_SERVERS": "other:9092",
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "me",
        "KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
        "KAFKA_CONFIG_SOCKET_TIMEOUT_MS": "20000",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    found: Any = configured(clients._settings("127.0.0.1:1"), {"group.id": "g"}, "C")
    assert found["bootstrap.servers"] == "127.0.0.1:1"
    assert (found["sasl.username"], found["sasl.password"]) == ("me", "s3cret")
    assert found["socket.timeout.ms"] == "20000"
    assert clients._settings("127.0.0.1:1") is clients._settings("127.0.0.1:1")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "you")
    assert clients._settings("127.0.0.1:1").kafka_sasl_username == "you"
    settings = load_settings()
    assert clients._settings(settings) is settings


def test_settings_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("KAFKA_SSL_CA_LOCATION", str(tmp_path / "none.pem"))
    for make in (lambda: clients.consumer("127.0.0.1:1", {"group.id": "g"}), lambda: clients.admin("127.0.0.1:1")):
        with pytest.raises(UsageError, match="KAFKA_SSL_CA_LOCATION: cannot read"):
            make()
