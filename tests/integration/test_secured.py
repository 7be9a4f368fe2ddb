"""The secured local stack: roles with their rights, causes in words, secrets that change, tokens of an issuer."""

import base64
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.jwk import ECKey

from loadtest.fleet import Fleet
from loadtest.fleet.fill import Filler
from logistics.flows.gps import GPS
from streams.acls.rights import Grant, Kind, Operation, on_topic
from streams.acls.roles import Role, principal_of
from streams.errors import StreamsError, UsageError
from streams.kafka import acls, clients
from streams.kafka.admin import described, settled, wait_for_broker
from streams.kafka.credentials import CredentialsWatch
from streams.kafka.topics import apply_topics
from streams.kafka_options import PREFIX
from streams.local import ports
from streams.local.kafka import Extension
from streams.local.security import ROLES, Authority, Security
from streams.local.stack import Stack, running_stack
from streams.resilience.retry import Retrier
from streams.schemas.client import Registry
from streams.settings import Settings, load_settings
from streams.sinks.base import CycleAborted
from streams.sinks.kafka.transactions import KafkaTransactions
from tests import rights
from tests.integration.kafka_helpers import QUICK_START, run
from tests.integration.workers import (
    NEVER_IDLE,
    Probe,
    Traffic,
    assert_exactly_once,
    end_of_run,
    rough_shape,
    verdict,
    wait_drained,
    wait_until,
    workers,
)
from tests.rights_ground import WORKED, Ground, prepare

pytestmark = pytest.mark.kafka

AUDIENCE: Final = "kafka"
CLIENT_SECRET: Final = "client-s3cret"  # noqa: S105 - a test's
EVENTS: Final = 3_000
_VALIDATOR: Final = "OAuthBearerValidatorCallbackHandler"
_OAUTH: Final = "org.apache.kafka.common.security.oauthbearer"


@dataclass(frozen=True)
class Issuer:
    """A token endpoint with TLS: client credentials against a signed token."""

    url: str
    key: ECKey
    ca: Path


class _TokenEndpoint(BaseHTTPRequestHandler):
    key: ClassVar[ECKey]
    given: ClassVar[int] = 0

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        user, _, secret = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode().partition(":")
        if form["grant_type"] != ["client_credentials"] or secret != CLIENT_SECRET:
            self._answer(401, {"error": "invalid_client"})
            return
        type(self).given += 1
        now = int(time.time())
        claims = {"sub": user, "aud": AUDIENCE, "iat": now, "exp": now + 300, "scope": form.get("scope", [""])[0]}
        token = jwt.encode({"alg": "ES256", "kid": "one"}, claims, self.key)
        self._answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": 300})

    def _answer(self, status: int, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    directory = tmp_path_factory.mktemp("issuer")
    authority = Authority.new("issuer")
    identity = authority.issue("issuer")
    (directory / "ca.pem").write_bytes(authority.pem())
    (directory / "both.pem").write_bytes(identity.key_pem() + identity.certificate_pem())
    _TokenEndpoint.key = ECKey.generate_key("P-256", {"kid": "one", "use": "sig", "alg": "ES256"})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "both.pem")
    server = HTTPServer(("127.0.0.1", 0), _TokenEndpoint)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield Issuer(f"https://127.0.0.1:{server.server_port}/token", _TokenEndpoint.key, directory / "ca.pem")
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("secured")
    keys = directory / "keys.json"
    keys.write_text(json.dumps({"keys": [issuer.key.as_dict(private=False)]}))
    extension = Extension(
        properties=(
            "listener.name.clients.sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER",
            "sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER",
            f"listener.name.clients.oauthbearer.sasl.jaas.config={_OAUTH}.OAuthBearerLoginModule required;",
            f"listener.name.clients.oauthbearer.sasl.server.callback.handler.class={_OAUTH}.{_VALIDATOR}",
            f"listener.name.clients.oauthbearer.sasl.oauthbearer.jwks.endpoint.url={keys.as_uri()}",
            f"listener.name.clients.oauthbearer.sasl.oauthbearer.expected.audience={AUDIENCE}",
        ),
        java=(f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys.as_uri()}", *QUICK_START.java),
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith(("KAFKA_", "SCHEMA_REGISTRY_")):
                monkeypatch.delenv(name)
        with running_stack(directory, secure=True, extension=extension) as stack:
            for name, value in stack.environment().items():
                monkeypatch.setenv(name, value)
            yield stack


@pytest.fixture(scope="module")
def topic(secured: Stack) -> str:
    """A source: the gateway may write it."""
    client = clients.admin(settings_with(secured.environment()), {})
    apply_topics(client, [GPS], partitions=3)
    return GPS.source


def settings_with(values: Mapping[str, str]) -> Settings:
    """Settings of these variables and no others of connections."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith(("KAFKA_", "SCHEMA_REGISTRY_")):
                monkeypatch.delenv(name)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return load_settings()


def security(stack: Stack) -> Security:
    assert stack.security is not None
    return stack.security


def authority(stack: Stack) -> Authority:
    """The CA of the stack."""
    key = load_pem_private_key((security(stack).directory / "ca.key").read_bytes(), None)
    return Authority(x509.load_pem_x509_certificate(security(stack).ca.read_bytes()), key)  # type: ignore[arg-type]


def with_plain_password(stack: Stack, role: str, password: str) -> dict[str, str]:
    values = {**stack.environment(role), "KAFKA_SASL_PASSWORD": password}
    del values["KAFKA_SASL_PASSWORD_FILE"]
    return values


# --- roles ------------------------------------------------------------------------------------------------------------


def test_each_role_does_its_work_and_a_worker_that_is_killed_writes_every_event_once(
    secured: Stack, tmp_path: Path
) -> None:
    applied = run(secured, "topics", "apply", "--partitions", "3", **secured.environment("ci"))
    assert applied.returncode == 0, applied.stderr
    shape = rough_shape(secured, devices=30, rejects={}, late=0.0, disordered=0.0)
    gateway = settings_with(secured.environment("gateway"))
    filler = Filler(gateway.kafka_bootstrap_servers, gateway.kafka_client_config())
    sent = next(Fleet(1, shape).batches(EVENTS))
    filler.send(GPS.source, sent)
    filler.flush()
    assert filler.refused == 0
    with workers(secured, tmp_path, "a") as (worker,):
        as_worker = secured.environment("worker")
        worker.start({**as_worker, **NEVER_IDLE, "STREAMS_FAILPOINT": "produced:1"})
        assert worker.wait_ended() == -signal.SIGKILL, worker.printed()[-4000:]
        worker.start(as_worker).wait_ready()
        wait_drained(Probe(secured), worker)
        lag = run(secured, "lag", "--format", "json", **secured.environment("monitor"))
        assert lag.returncode in {0, 100}, lag.stderr
        assert GPS.group in lag.stdout
        assert "lacks" not in lag.stderr
        listed = run(secured, "dlq", "list", "--format", "json", **secured.environment("steward"))
        assert listed.returncode == 0, listed.stderr
        assert worker.terminate() == 0
        said = [one.stdout + one.stderr for one in (applied, lag, listed)]
        said += [worker.log.read_text(encoding="utf-8"), run(secured, "settings", **as_worker).stdout]
        passwords = [security(secured).password_file(role).read_text().strip() for role in ROLES]
        assert not [password for password in passwords if password in "".join(said)]
    report = verdict(secured)
    assert report.ok, report
    sink = settings_with(secured.environment("sink"))
    keys = [message.value() for message in read(sink, GPS.clean, 3)]
    assert len(keys) == len(set(keys)) == report.clean > EVENTS // 2


@pytest.mark.slow
def test_passwords_change_and_workers_are_killed_under_load_and_every_event_is_there_once(
    secured: Stack, tmp_path: Path
) -> None:
    admin = clients.admin(settings_with(secured.environment()), {})
    apply_topics(admin, [GPS], partitions=3)
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096)
    file = security(secured).password_file("worker")
    shape = rough_shape(secured, devices=100)
    with workers(secured, tmp_path, "a", "b") as (one, other):
        as_worker = {**secured.environment("worker"), **NEVER_IDLE}
        for each in (one, other):
            each.start(as_worker).wait_ready()
        with Traffic(secured, shape, seed=7, records_per_s=500):
            for number in range(3):
                password = f"password-{number}-{time.time_ns()}"
                change = UserScramCredentialUpsertion("worker", info, password.encode())
                settled("changing", admin.alter_user_scram_credentials([change])["worker"])
                file.write_text(f"{password}\n")
                if number == 1:
                    secured.restart_kafka()  # whoever lives connects anew, with the new password
                (one, other)[number % 2].kill()
                time.sleep(2.0)
                (one, other)[number % 2].start(as_worker).wait_ready(120)
        assert not one.said("refuses the credentials"), one.printed()[-2000:]
        assert other.terminate() == 0
        end_of_run(one, environment=secured.environment("worker"))
        assert_exactly_once(secured, Probe(secured), one, seed=7)


def read(settings: Settings, topic: str, partitions: int) -> list[Any]:
    consumer = clients.consumer(
        settings, {"group.id": f"{GPS.group}.sink", "isolation.level": "read_committed", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: list[Any] = []
    left = set(range(partitions))
    deadline = time.monotonic() + 30
    while left:
        assert time.monotonic() < deadline, f"partitions {left} were not read to their end"
        for message in consumer.consume(10_000, 0.05):
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error.str()
                left.discard(message.partition())
    consumer.close()
    return found


def test_each_role_has_exactly_its_rights_and_the_audit_says_what_is_lacking_and_what_is_beyond(secured: Stack) -> None:
    admin = secured.environment()
    exact = run(secured, "acls", "audit", **admin)
    assert exact.returncode == 0, exact.stdout + exact.stderr
    assert exact.stdout.count("and no other") == len(Role)
    client = clients.admin(settings_with(admin), {})
    needed = on_topic(GPS.source, Operation.WRITE)
    beyond = Grant(principal_of(Role.GATEWAY), on_topic(GPS.clean, Operation.READ))
    acls.take(client, [Grant(principal_of(Role.GATEWAY), needed)])
    acls.grant(client, beyond.principal, [beyond.right])
    audited = run(secured, "acls", "audit", "--role", "gateway", **admin)
    assert audited.returncode == 100, audited.stderr
    assert f"lacks    {needed}" in audited.stdout
    assert f"beyond   {beyond.right}" in audited.stdout
    applied = run(secured, "acls", "apply", "--role", "gateway", **admin)
    assert applied.returncode == 0, applied.stderr
    assert "1 right granted" in applied.stdout
    again = run(secured, "acls", "apply", "--role", "gateway", "--format", "json", **admin)
    assert [one["granted"] for one in json.loads(again.stdout)] == [[]], "safe to repeat"
    acls.take(client, [beyond])
    refused = run(secured, "acls", "audit", **secured.environment("worker"))
    assert refused.returncode == 1
    assert "needs DESCRIBE on the cluster" in refused.stderr


def test_a_missing_right_is_named_with_what_it_is_missing_on(secured: Stack, topic: str) -> None:
    ci = settings_with(secured.environment("ci"))
    transactions = KafkaTransactions(ci, transactional_id="tests-ci", source=topic, retrier=Retrier(), reopen_s_max=1.0)
    with pytest.raises(CycleAborted, match=r"for tests-ci: .*lacks WRITE on transactional id tests-ci"):
        transactions.reopen()
    failed: list[KafkaError | None] = []
    producer = clients.producer(ci, {})
    producer.produce(topic, b"x", on_delivery=lambda error, _: failed.append(error))
    producer.flush(20)
    assert "lacks a right on the topic" in described(KafkaException(failed[0]))
    consumer = clients.consumer(ci, {"group.id": "g"})
    consumer.subscribe([topic])
    message = wait_until(lambda: consumer.poll(1.0), "an error comes")
    assert message is not None
    assert "lacks READ on the consumer group" in described(KafkaException(message.error()))
    consumer.close()


# --- causes -----------------------------------------------------------------------------------------------------------


def refusal(values: Mapping[str, str], timeout_s: float = 2.0) -> str:
    with pytest.raises(StreamsError) as caught:
        wait_for_broker(settings_with(values), timeout_s=timeout_s)
    return str(caught.value)


def test_wrong_credentials_are_said_to_be_that(secured: Stack) -> None:
    for role, password in (("worker", "wrong"), ("nobody", "wrong")):
        said = refusal(with_plain_password(secured, role, password))
        assert "the password is wrong, or there is no such user; check KAFKA_SASL_USERNAME" in said
        assert password not in said.replace("is wrong", "")


def test_a_mechanism_that_the_broker_does_not_take_is_named(secured: Stack) -> None:
    values = secured.environment("worker") | {"KAFKA_SASL_MECHANISM": "PLAIN"}
    assert "the broker does not support this KAFKA_SASL_MECHANISM" in refusal(values)


def test_a_client_without_tls_at_a_port_with_tls_is_told_so(secured: Stack) -> None:
    plain = {"KAFKA_BOOTSTRAP_SERVERS": secured.bootstrap_servers}
    assert "the port speaks TLS: set KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL, not PLAINTEXT" in refusal(plain)


def test_a_client_with_tls_at_a_port_without_is_told_so(secured: Stack) -> None:
    with HTTPServer(("127.0.0.1", 0), _TokenEndpoint) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        values = {**secured.environment("worker"), "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{server.server_port}"}
        assert "the port does not speak TLS" in refusal(values)
        server.shutdown()
        thread.join()


def test_a_foreign_ca_is_told(secured: Stack, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(Authority.new("other").pem())
    values = secured.environment("worker")
    said = refusal({**values, "KAFKA_SSL_CA_LOCATION": str(tmp_path / "other.pem")})
    assert f"the broker's certificate is not from the CA in {tmp_path / 'other.pem'} (KAFKA_SSL_CA_LOCATION)" in said
    del values["KAFKA_SSL_CA_LOCATION"]
    assert "is from no CA that this machine knows: set KAFKA_SSL_CA_LOCATION" in refusal(values)


@pytest.mark.parametrize(
    ("days", "hosts", "said"),
    [
        (-2, ("127.0.0.1",), "the broker's certificate has expired"),
        (2, ("broker.example",), "the broker's certificate is not for 127.0.0.1: connect by a name that is in it"),
    ],
)
def test_a_certificate_that_has_expired_or_is_for_another_host_is_told(
    secured: Stack, tmp_path: Path, days: int, hosts: tuple[str, ...], said: str
) -> None:
    identity = authority(secured).issue("server", days=days, hosts=hosts)
    (tmp_path / "both.pem").write_bytes(identity.key_pem() + identity.certificate_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    with HTTPServer(("127.0.0.1", 0), _TokenEndpoint) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        values = {**secured.environment("worker"), "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{server.server_port}"}
        assert said in refusal(values)
        server.shutdown()
        thread.join()


def with_certificate(stack: Stack, directory: Path, of: Authority, **how: Any) -> dict[str, str]:
    """Variables of a client with a certificate, at the listener that wants one; its key is encrypted."""
    identity = of.issue("server", **how)
    (directory / "client.crt").write_bytes(identity.certificate_pem())
    (directory / "client.key").write_bytes(identity.key_pem("key-s3cret"))
    lines = (stack.directory / "kafka.properties").read_text().splitlines()
    listeners = next(line for line in lines if line.startswith("listeners="))
    internal = next(part for part in listeners.split(",") if "INTERNAL://" in part).rpartition("//")[2]
    return {
        "KAFKA_BOOTSTRAP_SERVERS": internal,
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CA_LOCATION": str(security(stack).ca),
        "KAFKA_SSL_CERTIFICATE_LOCATION": str(directory / "client.crt"),
        "KAFKA_SSL_KEY_LOCATION": str(directory / "client.key"),
        "KAFKA_SSL_KEY_PASSWORD": "key-s3cret",
    }


def test_a_client_certificate_with_an_encrypted_key_is_taken_and_a_bad_one_is_named(
    secured: Stack, tmp_path: Path
) -> None:
    values = with_certificate(secured, tmp_path, authority(secured))
    assert wait_for_broker(settings_with(values)).list_topics(timeout=10).brokers
    with pytest.raises(UsageError, match="KEY_LOCATION: the key cannot be decrypted with KAFKA_SSL_KEY_PASSWORD"):
        wait_for_broker(settings_with({**values, "KAFKA_SSL_KEY_PASSWORD": "wrong"}))
    foreign = with_certificate(secured, tmp_path, Authority.new("other"))
    assert "the broker requires a client certificate of a CA that it knows" in refusal(foreign)
    expired = with_certificate(secured, tmp_path, authority(secured), days=-2)
    assert "(KAFKA_SSL_CERTIFICATE_LOCATION) has expired, on 20" in refusal(expired)


# --- secrets that change ----------------------------------------------------------------------------------------------


def test_a_password_that_is_changed_while_clients_live_is_used_for_their_next_connections(
    secured: Stack, topic: str
) -> None:
    file = security(secured).password_file("gateway")  # a restart of the stack keeps what is in it
    found = settings_with(secured.environment("gateway"))
    watch = CredentialsWatch(found)
    producer = clients.producer(found, {"connections.max.idle.ms": 1_000, "reconnect.backoff.max.ms": 500})
    watch.add(producer)

    def is_delivered() -> bool:
        failed: list[KafkaError | None] = []
        producer.produce(topic, b"x", on_delivery=lambda error, _: failed.append(error))
        producer.flush(15)
        return failed == [None]

    assert is_delivered()
    admin = clients.admin(settings_with(secured.environment()), {})
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096)
    upsertion = UserScramCredentialUpsertion("gateway", info, b"another-password")
    settled("changing", admin.alter_user_scram_credentials([upsertion])["gateway"])
    file.write_text("another-password\n")
    watch.look()
    secured.restart_kafka()  # every connection is made anew
    assert is_delivered()
    assert wait_for_broker(found).list_topics(timeout=10).brokers


def test_the_registry_is_asked_over_tls_and_a_token_that_changes_is_sent_with_the_next_request(
    secured: Stack, tmp_path: Path
) -> None:
    assert isinstance(Registry(settings_with(secured.environment("worker"))).versions("none"), list)
    (tmp_path / "other.pem").write_bytes(Authority.new("other").pem())
    values = {**secured.environment("worker"), "SCHEMA_REGISTRY_SSL_CA_LOCATION": str(tmp_path / "other.pem")}
    with pytest.raises(StreamsError, match="CERTIFICATE_VERIFY_FAILED"):
        Registry(settings_with(values)).ping()
    seen: list[str] = []

    class Asked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    (tmp_path / "token").write_text("one")
    with HTTPServer(("127.0.0.1", 0), Asked) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        registry = Registry(
            settings_with({"SCHEMA_REGISTRY_URL": url, "SCHEMA_REGISTRY_TOKEN_FILE": str(tmp_path / "token")})
        )
        registry.ping()
        (tmp_path / "token").write_text("two")
        registry.ping()
        server.shutdown()
        thread.join()
    assert seen == ["Bearer one", "Bearer two"]


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_client_connects_with_a_token_of_an_issuer_and_a_refused_secret_is_named(
    secured: Stack, issuer: Issuer, topic: str
) -> None:
    values = {
        "KAFKA_BOOTSTRAP_SERVERS": secured.bootstrap_servers,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CA_LOCATION": str(security(secured).ca),
        "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "admin",
        "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": CLIENT_SECRET,
        "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": issuer.url,
        "KAFKA_SASL_OAUTHBEARER_SCOPE": "kafka",
        "KAFKA_HTTPS_CA_LOCATION": str(issuer.ca),
        f"{PREFIX}SOCKET_TIMEOUT_MS": "20000",
    }
    before = _TokenEndpoint.given
    found = settings_with(values)
    assert topic in wait_for_broker(found).list_topics(timeout=10).topics
    assert _TokenEndpoint.given > before
    failed: list[KafkaError | None] = []
    producer = clients.producer(found, {})
    producer.produce(topic, b"x", on_delivery=lambda error, _: failed.append(error))
    producer.flush(20)
    assert failed == [None]
    said = refusal({**values, "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": "wrong-secret"}, timeout_s=5.0)
    assert "no token was given: check KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL" in said
    assert "wrong-secret" not in said


def test_a_stack_that_runs_secured_is_not_taken_for_one_that_does_not(secured: Stack) -> None:
    with pytest.raises(StreamsError, match="already runs, with --secure"):
        Stack(secured.directory, secured.kafka.port, secured.registry.port).start()
    assert not ports.is_free(secured.kafka.port)
    for path in security(secured).directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


# --- rights, one role at a time; the whole matrix: `make rights-matrix` -----------------------------------------------

MISSING: Final = {
    Role.GATEWAY: (Kind.TRANSACTIONAL_ID, Operation.WRITE),
    Role.STEWARD: (Kind.TOPIC, Operation.WRITE),
    Role.MONITOR: (Kind.TOPIC, Operation.DESCRIBE),
    Role.SINK: (Kind.GROUP, Operation.READ),
    Role.CI: (Kind.TOPIC, Operation.CREATE),
    Role.WORKER: (Kind.TOPIC, Operation.READ),
    Role.OPERATOR: (Kind.TRANSACTIONAL_ID, Operation.WRITE),
    Role.AUDITOR: (Kind.TOPIC, Operation.READ),
}


@pytest.fixture(scope="module")
def schemas(secured: Stack) -> None:
    prepare(secured)


@pytest.mark.slow
@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize("role", list(Role))
def test_a_role_works_with_exactly_its_rights_and_says_what_it_lacks(
    secured: Stack, tmp_path: Path, role: Role
) -> None:
    with_all, without_one = (Ground(secured, tmp_path) for _ in range(2))
    for ground in (with_all, without_one) if role is not Role.CI else ():
        ground.make()
    said = rights.without(with_all, role, None)
    assert said == WORKED, said
    kind, operation = MISSING[role]
    right = next(one for one in without_one.rights(role) if (one.kind, one.operation) == (kind, operation))
    said = rights.without(without_one, role, right)
    assert rights.names(said, right), (right, said)
