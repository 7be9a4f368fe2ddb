"""Connection settings without a broker: what goes together, which options may be set, secrets that change."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from streams.errors import UsageError
from streams.kafka import clients
from streams.kafka.credentials import CredentialsWatch
from streams.kafka_options import RESERVED, VARIABLES, known_options
from streams.settings import Settings, load_settings

SECRET = "s3cret!"  # noqa: S105 - a test's
SCRAM = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "me",
    "KAFKA_SASL_PASSWORD": SECRET,
}
OAUTH = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "OAUTHBEARER"}
OIDC = {
    **OAUTH,
    "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "me",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": SECRET,
    "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": "https://issuer/token",
}
MSK = {**OAUTH, "KAFKA_SASL_OAUTHBEARER_METHOD": "aws_msk_iam", "KAFKA_SASL_OAUTHBEARER_AWS_REGION": "eu-central-1"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("KAFKA_", "STREAMS_", "SCHEMA_REGISTRY_")):
            monkeypatch.delenv(name)


def settings_with(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def without(values: Mapping[str, str], name: str) -> dict[str, str]:
    return {other: value for other, value in values.items() if other != name}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SECURITY_PROTOCOL=SASL_SSL needs KAFKA_SASL_MECHANISM"),
        (without(SCRAM, "KAFKA_SASL_PASSWORD"), "KAFKA_SASL_MECHANISM=SCRAM-SHA-512 needs KAFKA_SASL_PASSWORD"),
        (without(SCRAM, "KAFKA_SASL_USERNAME"), "KAFKA_SASL_MECHANISM=SCRAM-SHA-512 needs KAFKA_SASL_USERNAME"),
        (without(SCRAM, "KAFKA_SECURITY_PROTOCOL"), "KAFKA_SASL_MECHANISM is set, .*PLAINTEXT uses no SASL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SASL_USERNAME": "me"}, "KAFKA_SASL_USERNAME is set, .*SSL uses no"),
        ({"KAFKA_SSL_CA_LOCATION": "/ca.pem"}, "KAFKA_SSL_CA_LOCATION is set, .*PLAINTEXT uses no TLS"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEY_LOCATION": "/key.pem"},
            "KAFKA_SSL_KEY_LOCATION is set without KAFKA_SSL_CERTIFICATE_LOCATION",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTIFICATE_LOCATION": "/cert.pem"},
            "KAFKA_SSL_CERTIFICATE_LOCATION is set without KAFKA_SSL_KEY_LOCATION",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEY_PASSWORD": SECRET},
            "KAFKA_SSL_KEY_PASSWORD is set without KAFKA_SSL_KEY_LOCATION",
        ),
        (OAUTH, "OAUTHBEARER needs KAFKA_SASL_OAUTHBEARER_CLIENT_ID, .*_SECRET, .*_URL"),
        ({**OIDC, "KAFKA_SASL_PASSWORD": SECRET}, "KAFKA_SASL_PASSWORD is set, but .*_CLIENT_ID and .*_CLIENT_SECRET"),
        ({**OIDC, "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": "http://issuer/token"}, "_URL must be https://"),
        ({**SCRAM, "KAFKA_SASL_OAUTHBEARER_SCOPE": "x"}, "_SCOPE is set, but KAFKA_SASL_MECHANISM is not OAUTHBEARER"),
        ({**OIDC, "KAFKA_SASL_OAUTHBEARER_AWS_REGION": "eu-west-1"}, "_AWS_REGION is for .*METHOD=aws_msk_iam"),
        (without(MSK, "KAFKA_SASL_OAUTHBEARER_AWS_REGION"), "aws_msk_iam needs KAFKA_SASL_OAUTHBEARER_AWS_REGION"),
        ({**MSK, "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "me"}, "_CLIENT_ID is set, but .*aws_msk_iam asks AWS"),
        ({"SCHEMA_REGISTRY_USERNAME": "me"}, "SCHEMA_REGISTRY_USERNAME and SCHEMA_REGISTRY_PASSWORD are set together"),
        (
            {
                "SCHEMA_REGISTRY_USERNAME": "me",
                "SCHEMA_REGISTRY_PASSWORD": SECRET,
                "SCHEMA_REGISTRY_TOKEN": SECRET,
            },
            "SCHEMA_REGISTRY_TOKEN and SCHEMA_REGISTRY_USERNAME are both set",
        ),
        (
            {"SCHEMA_REGISTRY_URL": "https://me:pw@registry/", "SCHEMA_REGISTRY_TOKEN": SECRET},
            "SCHEMA_REGISTRY_URL has a user in it, and SCHEMA_REGISTRY_TOKEN is set",
        ),
        (
            {"SCHEMA_REGISTRY_SSL_CA_LOCATION": "/ca.pem"},
            "CA_LOCATION is set, but SCHEMA_REGISTRY_URL is not http",
        ),
        (
            {"SCHEMA_REGISTRY_URL": "https://registry/", "SCHEMA_REGISTRY_SSL_KEY_LOCATION": "/key.pem"},
            "SCHEMA_REGISTRY_SSL_KEY_LOCATION is set without SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_the_names_of_their_variables(
    monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        settings_with(monkeypatch, values)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_client_credentials_grant_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings_with(monkeypatch, {**OIDC, "KAFKA_SASL_OAUTHBEARER_SCOPE": "kafka"}).kafka_client_config()
    assert config == {
        "bootstrap.servers": "127.0.0.1:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "me",
        "sasl.oauthbearer.client.secret": SECRET,
        "sasl.oauthbearer.token.endpoint.url": "https://issuer/token",
        "sasl.oauthbearer.scope": "kafka",
    }


# --- options ----------------------------------------------------------------------------------------------------------


def test_an_option_is_set_for_the_clients_that_know_it_and_goes_before_the_products_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = settings_with(
        monkeypatch,
        {
            "KAFKA_CONFIG_SOCKET_TIMEOUT_MS": "7000",
            "KAFKA_CONFIG_LINGER_MS": "3",
            "KAFKA_CONFIG_FETCH_MIN_BYTES": "5",
            "KAFKA_CONFIG_LOG_LEVEL": "5",
            "kafka_config_client_rack": "r1",
        },
    )
    common = {"socket.timeout.ms": "7000", "log_level": "5", "client.rack": "r1"}
    assert found.kafka_options("*") == common
    assert found.kafka_options("P") == {**common, "linger.ms": "3"}
    assert found.kafka_options("C") == {**common, "fetch.min.bytes": "5"}
    assert clients.configured(found, {"linger.ms": 10, "client.id": "x"}, "P")["linger.ms"] == "3"
    assert found.masked()["KAFKA_CONFIG_SOCKET_TIMEOUT_MS"] == "7000"


@pytest.mark.parametrize("option", sorted(RESERVED))
def test_an_option_that_a_guarantee_depends_on_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    variable = "KAFKA_CONFIG_" + option.upper().replace(".", "_")
    with pytest.raises(UsageError) as caught:
        settings_with(monkeypatch, {variable: "1"})
    assert f"{variable}: {option} cannot be set: {RESERVED[option]}" == str(caught.value)


@pytest.mark.parametrize("option", sorted(VARIABLES))
def test_an_option_that_has_a_variable_is_set_by_that_one(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    variable = "KAFKA_CONFIG_" + option.upper().replace(".", "_")
    with pytest.raises(UsageError, match=f"^{variable}: set {VARIABLES[option]} instead$"):
        settings_with(monkeypatch, {variable: "1"})


def test_what_is_reserved_or_has_a_variable_is_an_option_of_the_installed_client() -> None:
    assert {*RESERVED, *VARIABLES} <= known_options().keys()


def test_every_function_of_the_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = [name for name in known_options() if name.endswith("_cb")]
    assert len(functions) > 10
    for name in functions:
        variable = "KAFKA_CONFIG_" + name.upper().replace(".", "_")
        with monkeypatch.context() as one, pytest.raises(UsageError, match=f"^{variable}: .*is a function"):
            settings_with(one, {variable: "1"})


def test_an_unknown_option_is_refused_naming_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no option socket\.timout\.ms; did you mean KAFKA_CONFIG_SOCKET_TIMEOUT_MS"):
        settings_with(monkeypatch, {"KAFKA_CONFIG_SOCKET_TIMOUT_MS": "1"})


def test_a_secret_option_may_come_from_a_file_and_is_masked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    found = settings_with(monkeypatch, {"KAFKA_CONFIG_SSL_KEYSTORE_PASSWORD_FILE": str(tmp_path / "password")})
    assert found.kafka_options("*") == {"ssl.keystore.password": SECRET}
    assert SECRET not in str(found.masked())


def test_an_option_that_is_itself_a_path_is_no_file_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "KAFKA_CONFIG_SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE"
    assert settings_with(monkeypatch, {name: "/key.pem"}).kafka_options("*") == {
        "sasl.oauthbearer.assertion.private.key.file": "/key.pem"
    }


# --- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"KAFKA_CONFIG_SOCKET_TIMEOUT_MS": "soon"}, "^KAFKA_CONFIG_SOCKET_TIMEOUT_MS: Invalid value"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_LOCATION": "/nowhere/ca.pem"},
            "KAFKA_SSL_CA_LOCATION: cannot read /nowhere/ca.pem: No such file",
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_LOCATION": __file__}, "^KAFKA_SSL_CA_LOCATION: "),
    ],
)
def test_settings_of_which_no_client_can_be_made_name_the_variable(
    monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str], said: str
) -> None:
    found = settings_with(monkeypatch, values)
    for make in (clients.admin, clients.producer):
        with pytest.raises(UsageError, match=said):
            make(found, {})
    with pytest.raises(UsageError, match=said):
        clients.consumer(found, {"group.id": "x"})


def test_kerberos_is_refused_in_words_where_the_client_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings_with(monkeypatch, {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "GSSAPI"})
    with pytest.raises(UsageError, match=r"GSSAPI: this build of the Kafka client has no Kerberos.*--no-binary"):
        clients.admin(found, {})


def test_amazon_msk_needs_the_signer_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings_with(monkeypatch, MSK)
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    with pytest.raises(UsageError, match=r"aws_msk_iam needs the signer of AWS: pip install '.*\[msk\]'"):
        clients.admin(found, {})


def test_amazon_msk_gets_tokens_of_its_signer_with_their_end_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aws_msk_iam_sasl_signer", reason="the extra msk is not installed")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    token, end_s = clients.configured(settings_with(monkeypatch, MSK), {}, "*")["oauth_cb"]("")
    assert len(token) > 100
    assert 1e9 < end_s < 1e11


# --- secrets that change ----------------------------------------------------------------------------------------------


class Watched:
    """What a watch needs of a client."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str]] = []

    def set_sasl_credentials(self, user: str, password: str) -> None:
        self.given.append((user, password))


def test_a_password_that_changes_in_its_file_is_given_to_living_clients_and_used_for_new_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("one\n")
    values = without(SCRAM, "KAFKA_SASL_PASSWORD") | {"KAFKA_SASL_PASSWORD_FILE": str(file)}
    found = settings_with(monkeypatch, values)
    watch, client = CredentialsWatch(found), Watched()
    watch.add(client)
    watch.look()
    assert client.given == []
    file.write_text("two\n")
    watch.look()
    watch.look()
    assert client.given == [("me", "two")]
    assert found.kafka_client_config()["sasl.password"] == "two"
    file.write_text("")  # about to be written
    watch.look()
    file.unlink()
    watch.look()
    assert client.given == [("me", "two")]


def test_real_clients_can_be_watched_and_are_not_kept_alive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("one")
    values = without(SCRAM, "KAFKA_SASL_PASSWORD") | {"KAFKA_SASL_PASSWORD_FILE": str(file)}
    found = settings_with(monkeypatch, {**values, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    watch = CredentialsWatch(found)
    consumer = clients.consumer(found, {"group.id": "x"})
    made = [clients.admin(found, {}), clients.producer(found, {}), consumer]
    for client in made:
        watch.add(client)
    consumer.close()
    file.write_text("two")
    watch.look()
    del client, made, consumer
    assert not list(watch._clients)


def test_a_child_process_gets_the_same_connections_and_of_a_secret_in_a_file_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    values = without(SCRAM, "KAFKA_SASL_PASSWORD") | {
        "KAFKA_SASL_PASSWORD_FILE": str(file),
        "KAFKA_CONFIG_SOCKET_TIMEOUT_MS": "7000",
        "SCHEMA_REGISTRY_TOKEN": "a-token",
    }
    found = settings_with(monkeypatch, values)
    child = found.connection_environment()
    assert SECRET not in str(child)
    for name in [*values, "KAFKA_BOOTSTRAP_SERVERS"]:
        monkeypatch.delenv(name, raising=False)
    again = settings_with(monkeypatch, child)
    assert again.kafka_client_config() == found.kafka_client_config()
    assert again.kafka_options("*") == found.kafka_options("*")
    assert again.secret("SCHEMA_REGISTRY_TOKEN") == "a-token"
    code = "import json; from streams.settings import load_settings; print(json.dumps(load_settings().masked()))"
    shown = subprocess.run([sys.executable, "-c", code], env={**os.environ, **child}, capture_output=True, check=True)
    assert json.loads(shown.stdout)["KAFKA_SASL_USERNAME"] == "me"
