"""What a secured local stack is made of: a CA, the certificate of its servers, a principal with a password per role.

All lies in `security/` of the stack's directory, which only its owner can read:

    ca.pem, ca.key           the CA that was made for this stack
    server.pem               key and certificate of Kafka and the registry, for 127.0.0.1 and localhost
    server.crt, server.key   the same as two files
    <role>.password          the password of the principal that is named like the role

They are made once and stay: a certificate or a password can be replaced by hand.
"""

import datetime as dt
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from streams.acls.comparison import compare
from streams.acls.roles import Role, principal_of, rights_of
from streams.flow.declaration import Pipeline
from streams.kafka import acls
from streams.kafka.admin import settled

NAME: Final = "security"
"""Name of the directory."""
SERVER_PRINCIPAL: Final = "User:CN=server"
"""Principal of Kafka itself, which is a super user."""
ADMIN: Final = "admin"
"""The role that may do everything."""
VALID_DAYS: Final = 825
SCRAM_ITERATIONS: Final = 8_192
PASSWORD_BYTES: Final = 24

ROLES: Final = (ADMIN, *(role.value for role in Role))
"""Each is a principal. The rights of all but the first are the least ones for the declared flows (`streams.acls`)."""

_SCRAM_LOGIN: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"
BROKER_PROPERTIES: Final = f"""\
ssl.keystore.type=PEM
ssl.keystore.location={NAME}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={NAME}/ca.pem
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.clients.scram-sha-512.sasl.jaas.config={_SCRAM_LOGIN} required;
listener.name.detour.scram-sha-512.sasl.jaas.config={_SCRAM_LOGIN} required;
listener.name.internal.ssl.client.auth=required
listener.name.controller.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users={SERVER_PRINCIPAL};User:{ADMIN}
"""


@dataclass(frozen=True)
class Authority:
    """A CA. Its certificates are for servers and clients alike."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, name: str = "streams local stack") -> "Authority":
        """A CA with a fresh key, valid for `VALID_DAYS`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {secrets.token_hex(4)}")])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = _certificate(subject, subject, key.public_key(), VALID_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(
        self, name: str, *, days: int = VALID_DAYS, hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    ) -> "Identity":
        """A key and a certificate for `name`; `days` below 0: one that has ended so many days ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _certificate(subject, self.certificate.subject, key.public_key(), days)
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_name_of, hosts))), critical=False)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return Identity(builder.sign(self.key, hashes.SHA256()), key)

    def pem(self) -> bytes:
        """The certificate in PEM, without the key."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Identity:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """The certificate in PEM, without the key."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, password: str | None = None) -> bytes:
        """The key, encrypted if there is a password."""
        return _key_pem(self.key, password)


@dataclass(frozen=True)
class Security:
    """The files of one secured stack."""

    stack: Path

    @property
    def directory(self) -> Path:
        """Directory that the files are in."""
        return self.stack / NAME

    @property
    def ca(self) -> Path:
        """Certificate of the CA."""
        return self.directory / "ca.pem"

    def password_file(self, role: str) -> Path:
        """File with the password of a role's principal."""
        return self.directory / f"{role}.password"

    def client(self, role: str) -> dict[str, str]:
        """Variables with which a client connects as the principal of a role."""
        return {
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SSL_CA_LOCATION": str(self.ca),
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": role,
            "KAFKA_SASL_PASSWORD_FILE": str(self.password_file(role)),
            "SCHEMA_REGISTRY_SSL_CA_LOCATION": str(self.ca),
        }

    def make(self) -> None:
        """Create the files that are missing."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.ca.exists():
            authority = Authority.new()
            server = authority.issue("server")
            _write(self.directory / "ca.key", _key_pem(authority.key, None))
            _write(self.directory / "server.key", server.key_pem())
            _write(self.directory / "server.crt", server.certificate_pem())
            _write(self.directory / "server.pem", server.key_pem() + server.certificate_pem())
            _write(self.ca, authority.pem())  # last: it says that all of it is there
        for role in ROLES:
            if not self.password_file(role).exists():
                _write(self.password_file(role), f"{secrets.token_urlsafe(PASSWORD_BYTES)}\n".encode())

    def as_server(self, address: str) -> dict[str, str]:
        """Configuration of a client that connects to Kafka's own listener at `address`, as Kafka itself."""
        return {
            "bootstrap.servers": address,
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.ca),
            "ssl.certificate.location": str(self.directory / "server.crt"),
            "ssl.key.location": str(self.directory / "server.key"),
        }

    def grant(self, admin: AdminClient, flows: Sequence[Pipeline], shown: frozenset[str] = frozenset()) -> None:
        """Make the principals of all roles with the passwords of their files; give them their rights, and no others.

        Raises:
            StreamsError: Kafka refuses, or does not answer.

        """
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
        users: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(role, info, self.password_file(role).read_text().strip().encode())
            for role in ROLES
        ]
        for role, made in admin.alter_user_scram_credentials(users).items():
            settled(f"making the principal {role}", made)
        there = acls.grants(admin)
        for each in Role:
            principal = principal_of(each)
            found = compare(principal, rights_of([each], flows, shown), there)
            acls.take(admin, [one for one in (*found.beyond, *found.denied) if one.principal == principal])
            acls.grant(admin, principal, found.lacking)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    end = now + dt.timedelta(days=days)
    begin = min(now, end) - dt.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey, password: str | None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _write(path: Path, content: bytes) -> None:
    """A file that only its owner can read, there as a whole or not at all."""
    fresh = path.with_suffix(f"{path.suffix}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)
