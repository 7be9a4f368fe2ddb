"""Causes of Kafka errors in words: one sentence for each error, and a look at the TLS of a broker.

librdkafka reports an expired certificate, one of a foreign CA and one for another host with the same text, and nothing
at all when a client without TLS connects to a port with TLS. So when no broker answers, a TLS handshake with one of
them finds the cause.
"""

import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError

from streams.certificates import expired_at
from streams.settings import Settings

PROBE_TIMEOUT_S: Final = 2.0
_EXPIRED, _NOT_YET, _OTHER_HOST, _OTHER_ADDRESS = 10, 9, 62, 64
"""OpenSSL's verdicts on a certificate (X509_V_ERR_*)."""
_DEFAULT_PORT: Final = 9092


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause of errors with one of these names, or with a text that matches the pattern."""

    names: tuple[str, ...]
    pattern: str
    sentence: str


CAUSES: Final = (
    Cause(
        (),
        r"invalid credentials",
        "the broker refuses the credentials: the password is wrong, or there is no such user; "
        "check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
    ),
    Cause((), r"Unsupported SASL mechanism", "the broker does not support this KAFKA_SASL_MECHANISM"),
    Cause(
        (),
        r"Failed to retrieve OIDC token|Failed to acquire SASL OAUTHBEARER token",
        "no token was given: check KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL, _CLIENT_ID, _CLIENT_SECRET, and "
        "KAFKA_HTTPS_CA_LOCATION",
    ),
    Cause(("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED"), r"$^", "the broker refuses to authenticate this client"),
    Cause(
        (),
        r"alert certificate expired|alert certificate unknown|alert bad certificate|alert unknown ca",
        "the broker refuses the client's certificate: it has expired, or is from a CA that the broker does not know; "
        "check KAFKA_SSL_CERTIFICATE_LOCATION",
    ),
    Cause(
        (),
        r"alert certificate required|alert handshake failure",
        "the broker requires a client certificate of a CA that it knows: set KAFKA_SSL_CERTIFICATE_LOCATION and "
        "KAFKA_SSL_KEY_LOCATION",
    ),
    Cause(
        (),
        r"wrong version number|unexpected eof while reading|packet length too long",
        "the port does not speak TLS: check KAFKA_SECURITY_PROTOCOL and the port",
    ),
    Cause(
        (),
        r"certificate verify failed",
        "the broker's certificate cannot be verified: it is from another CA than that in KAFKA_SSL_CA_LOCATION, "
        "has expired, or is for another host",
    ),
    Cause(
        ("TOPIC_AUTHORIZATION_FAILED",),
        r"Topic authorization failed",
        "the principal lacks a right on the topic (an ACL: READ to consume, WRITE to produce, CREATE, DESCRIBE, and "
        "DESCRIBE_CONFIGS for its configuration)",
    ),
    Cause(
        ("GROUP_AUTHORIZATION_FAILED",),
        r"Group authorization failed",
        "the principal lacks READ on the consumer group (an ACL), or DESCRIBE where it only looks",
    ),
    Cause(
        ("TRANSACTIONAL_ID_AUTHORIZATION_FAILED",),
        r"Transactional Id authorization failed",
        "the principal lacks WRITE on the transactional id (an ACL)",
    ),
    Cause(
        ("CLUSTER_AUTHORIZATION_FAILED",),
        r"Cluster authorization failed",
        "the principal lacks a right on the cluster (an ACL)",
    ),
)
"""Known causes; the first one that matches is used."""


def cause_of(error: KafkaError) -> str | None:
    """The true cause of an error, as far as it can be told; None: the error says everything."""
    name, text = error.name(), error.str()
    if "this principal lacks" in text:  # `kafka.acls.in_words`
        return None
    for cause in CAUSES:
        if name in cause.names or re.search(cause.pattern, text):
            return cause.sentence
    return None


def cause_of_silence(settings: Settings) -> str | None:
    """Why the connection to a broker fails although it listens, by a TLS handshake with it; None: nothing was found.

    Connects to the first broker of the settings that listens, for at most `PROBE_TIMEOUT_S` seconds.
    """
    for server in settings.kafka_bootstrap_servers.split(","):
        host, port = _address(server)
        try:
            with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as connection:
                if not settings.kafka_security_protocol.endswith("SSL"):
                    return _of_plaintext(connection, settings)
                return _of_tls(connection, host, settings) or _of_own_certificate(settings)
        except OSError:
            continue
    return None


def _of_plaintext(connection: socket.socket, settings: Settings) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with context.wrap_socket(connection):
            wanted = "SASL_SSL" if settings.kafka_security_protocol.startswith("SASL") else "SSL or SASL_SSL"
            return f"the port speaks TLS: set KAFKA_SECURITY_PROTOCOL={wanted}, not {settings.kafka_security_protocol}"
    except OSError:
        return None


def _of_tls(connection: socket.socket, host: str, settings: Settings) -> str | None:
    ca = settings.kafka_ssl_ca_location
    try:
        context = ssl.create_default_context(
            cafile=None if ca is None or ca.is_dir() else ca, capath=ca if ca is not None and ca.is_dir() else None
        )
    except OSError:
        return None
    context.check_hostname = True
    try:
        with context.wrap_socket(connection, server_hostname=host):
            return None
    except ssl.SSLCertVerificationError as error:
        return _of_certificate(error, host, ca)
    except ssl.SSLError as error:
        is_foreign = error.reason in {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"}
        return "the port does not speak TLS: check KAFKA_SECURITY_PROTOCOL and the port" if is_foreign else None
    except OSError:
        return None


def _of_certificate(error: ssl.SSLCertVerificationError, host: str, ca: Path | None) -> str:
    if error.verify_code == _EXPIRED:
        return "the broker's certificate has expired"
    if error.verify_code == _NOT_YET:
        return "the broker's certificate is not valid yet; is this machine's clock right?"
    if error.verify_code in {_OTHER_HOST, _OTHER_ADDRESS}:
        return f"the broker's certificate is not for {host}: connect by a name that is in it"
    if ca is None:
        return "the broker's certificate is from no CA that this machine knows: set KAFKA_SSL_CA_LOCATION"
    return f"the broker's certificate is not from the CA in {ca} (KAFKA_SSL_CA_LOCATION)"


def _of_own_certificate(settings: Settings) -> str | None:
    path = settings.kafka_ssl_certificate_location
    end = expired_at(path)
    if end is None:
        return None
    return f"the client's certificate in {path} (KAFKA_SSL_CERTIFICATE_LOCATION) has expired, on {end:%Y-%m-%d}"


def _address(server: str) -> tuple[str, int]:
    place = server.rpartition("://")[2].strip()
    host, _, port = place.rpartition(":") if not place.endswith("]") and ":" in place else (place, "", "")
    return host.strip("[]"), int(port) if port.isdigit() else _DEFAULT_PORT
