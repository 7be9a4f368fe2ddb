"""How to connect to the registry: address, TLS, credentials; and why a client cannot be made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streams.masking import without_credentials
from streams.settings import Settings

_FILES: Final = (
    "SCHEMA_REGISTRY_SSL_CA_LOCATION",
    "SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION",
    "SCHEMA_REGISTRY_SSL_KEY_LOCATION",
)


@dataclass(frozen=True, slots=True)
class Access:
    """Arguments of a registry client. Two are equal while no secret and no certificate has changed."""

    config: Mapping[str, str]
    token: str | None
    """The bearer token."""
    written_ns: tuple[int, ...]
    """Modification times of the certificate files."""

    def __repr__(self) -> str:
        return f"Access({without_credentials(self.config['url'])})"


def registry_access(settings: Settings) -> Access:
    """The connection arguments as of now: secrets in files are read again."""
    paths = [path for name in _FILES if (path := getattr(settings, name.lower())) is not None]
    return Access(
        settings.schema_registry_config(), settings.secret("SCHEMA_REGISTRY_TOKEN"), tuple(map(_written_ns, paths))
    )


def unusable_registry(settings: Settings, error: Exception) -> str:
    """Why no registry client can be made, with the variable that is wrong."""
    for name in _FILES:
        path: Path | None = getattr(settings, name.lower())
        if path is not None and not path.exists():
            return f"{name}: cannot read {path}: no such file"
    shown = without_credentials(settings.schema_registry_url)
    if settings.schema_registry_ssl_key_location is not None:
        return (
            f"SCHEMA_REGISTRY_SSL_KEY_LOCATION: certificate and key cannot be used ({type(error).__name__}); is the "
            "key that of the certificate, and SCHEMA_REGISTRY_SSL_KEY_PASSWORD its password?"
        )
    if settings.schema_registry_ssl_ca_location is not None:
        return f"SCHEMA_REGISTRY_SSL_CA_LOCATION: {settings.schema_registry_ssl_ca_location} holds no certificate"
    return f"SCHEMA_REGISTRY_URL: {shown} cannot be used; is it a http(s) URL?"


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
