"""A real registry behind TLS and authentication: basic, bearer, client certificates; what is wrong is said in words."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.errors import StreamsError
from streams.local.security import Authority
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry, RegistryUnavailable
from streams.settings import Settings, load_settings
from tests.integration.kafka_helpers import run
from tests.registry_proxy import Door, registry_proxy

pytestmark = pytest.mark.kafka

SCHEMA = json.dumps({"type": "record", "name": "Secured", "fields": [{"name": "x", "type": "int"}]})


def settings_with(values: Mapping[str, str]) -> Settings:
    """Settings of these variables and no others of the registry."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith("SCHEMA_REGISTRY_"):
                monkeypatch.delenv(name)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return load_settings()


class Place:
    """A folder with a CA, the proxy's certificate, and certificates of clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.new("registry")
        self.ca = self.write("ca.pem", self.authority.pem())

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def server(self, name: str = "server", **how: Any) -> Path:
        identity = self.authority.issue("server", **how)
        return self.write(f"{name}.pem", identity.key_pem() + identity.certificate_pem())

    def client(self, authority: Authority | None = None, *, password: str | None = None, **how: Any) -> dict[str, str]:
        """Variables of a client with a certificate."""
        identity = (authority or self.authority).issue("client", **how)
        return {
            "SCHEMA_REGISTRY_SSL_CA_LOCATION": str(self.ca),
            "SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION": str(self.write("client.crt", identity.certificate_pem())),
            "SCHEMA_REGISTRY_SSL_KEY_LOCATION": str(self.write("client.key", identity.key_pem(password))),
            **({} if password is None else {"SCHEMA_REGISTRY_SSL_KEY_PASSWORD": password}),
        }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def refusal(values: Mapping[str, str]) -> str:
    with pytest.raises(RegistryUnavailable) as caught:
        Registry(settings_with(values)).ping()
    return str(caught.value)


def test_basic_credentials_are_taken_and_wrong_ones_are_named_without_being_told(stack: Stack, place: Place) -> None:
    door = Door(basic="me:s3cret")
    password = place.write("password", b"s3cret\n")
    with registry_proxy(stack.registry_url, door, certificate=place.server()) as url:
        values = {
            "SCHEMA_REGISTRY_URL": url,
            "SCHEMA_REGISTRY_SSL_CA_LOCATION": str(place.ca),
            "SCHEMA_REGISTRY_USERNAME": "me",
            "SCHEMA_REGISTRY_PASSWORD_FILE": str(password),
        }
        registry = Registry(settings_with(values))
        schema_id = registry.register("secured.basic-value", SCHEMA)
        assert registry.lookup("secured.basic-value", SCHEMA) == schema_id
        assert json.loads(registry.schema_by_id(schema_id)) == json.loads(SCHEMA)
        door.basic = "me:an0ther"
        with pytest.raises(RegistryUnavailable, match="refuses the credentials: check SCHEMA_REGISTRY_USERNAME"):
            registry.ping()
        password.write_text("an0ther")
        registry.ping()
        wrong = {**values, "SCHEMA_REGISTRY_PASSWORD": "wr0ng"}
        assert "wr0ng" not in refusal(wrong)
        nobody = {name: values[name] for name in ("SCHEMA_REGISTRY_URL", "SCHEMA_REGISTRY_SSL_CA_LOCATION")}
        assert "requires credentials: set SCHEMA_REGISTRY_USERNAME and SCHEMA_REGISTRY_PASSWORD" in refusal(nobody)
        door.forbidden = True
        with pytest.raises(RegistryUnavailable, match="knows this user, who lacks the right"):
            registry.ping()


def test_a_bearer_token_is_taken_by_every_command_and_a_new_one_without_a_restart(stack: Stack, place: Place) -> None:
    door = Door(bearer="one")
    token = place.write("token", b"one")
    with registry_proxy(stack.registry_url, door, certificate=place.server()) as url:
        values = {
            "SCHEMA_REGISTRY_URL": url,
            "SCHEMA_REGISTRY_SSL_CA_LOCATION": str(place.ca),
            "SCHEMA_REGISTRY_TOKEN_FILE": str(token),
        }
        registry = Registry(settings_with(values))
        registry.ping()
        door.bearer = "two"
        with pytest.raises(RegistryUnavailable, match="refuses the token: check SCHEMA_REGISTRY_TOKEN"):
            registry.ping()
        token.write_text("two")
        registry.ping()
        Registry(settings_with(values)).register(GPS.subject, Catalog.load().latest(GPS.subject).text)
        door.seen.clear()
        listed = run(stack, "schemas", "list", "--format", "json", **values)
        assert listed.returncode in {0, 100}, listed.stderr
        assert GPS.subject in listed.stdout
        assert door.seen, "the command has asked through the proxy"
        refused = run(stack, "schemas", "list", **{**values, "SCHEMA_REGISTRY_TOKEN": "wr0ng-token"})
        assert refused.returncode == 1
        assert "refuses the token" in refused.stderr
        assert "wr0ng" not in refused.stderr + refused.stdout


def test_client_certificates_are_taken_and_what_is_wrong_with_one_is_named(stack: Stack, place: Place) -> None:
    with registry_proxy(stack.registry_url, Door(), certificate=place.server(), client_ca=place.ca) as url:
        address = {"SCHEMA_REGISTRY_URL": url}
        registry = Registry(settings_with({**address, **place.client(password="key-s3cret")}))  # noqa: S106
        registry.ping()
        without = {**address, "SCHEMA_REGISTRY_SSL_CA_LOCATION": str(place.ca)}
        assert "requires a client certificate: set SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION" in refusal(without)
        foreign = {**address, **place.client(Authority.new("other"))}
        assert "from a CA that the registry does not know" in refusal(foreign)
        expired = {**address, **place.client(days=-2)}
        assert "(SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION) has expired, on 20" in refusal(expired)
        place.client(password="key-s3cret")  # noqa: S106 - written into the files that the first client was made with
        registry.ping()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"days": -2}, "the registry's certificate has expired"),
        ({"hosts": ("registry.example",)}, "the registry's certificate is not for 127.0.0.1"),
    ],
)
def test_a_certificate_of_the_registry_that_is_wrong_is_named(
    stack: Stack, place: Place, how: dict[str, Any], said: str
) -> None:
    with registry_proxy(stack.registry_url, Door(), certificate=place.server(**how)) as url:
        values = {"SCHEMA_REGISTRY_URL": url, "SCHEMA_REGISTRY_SSL_CA_LOCATION": str(place.ca)}
        assert said in refusal(values)


def test_a_foreign_ca_and_a_port_that_speaks_otherwise_are_named(stack: Stack, place: Place) -> None:
    other = place.write("other.pem", Authority.new("other").pem())
    with registry_proxy(stack.registry_url, Door(), certificate=place.server()) as url:
        values = {"SCHEMA_REGISTRY_URL": url, "SCHEMA_REGISTRY_SSL_CA_LOCATION": str(other)}
        assert f"the registry's certificate is not from the CA in {other}" in refusal(values)
        assert "is from no CA that is known here: set SCHEMA_REGISTRY_SSL_CA_LOCATION" in refusal(
            {"SCHEMA_REGISTRY_URL": url}
        )
        assert "begin with https://" in refusal({"SCHEMA_REGISTRY_URL": url.replace("https", "http")})
    plain = stack.registry_url.replace("http:", "https:")
    assert "does not speak TLS" in refusal({"SCHEMA_REGISTRY_URL": plain})
    with pytest.raises(StreamsError):
        Registry(settings_with({"SCHEMA_REGISTRY_URL": plain})).ping()
