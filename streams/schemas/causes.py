"""What to do when the registry cannot be used, by its client's error."""

import re
from typing import Final
from urllib.parse import urlsplit

from streams.certificates import expired_at
from streams.masking import separate
from streams.settings import Settings

_UNVERIFIED: Final = "CERTIFICATE_VERIFY_FAILED"
_WANTS_CERTIFICATE: Final = re.compile(r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE", re.IGNORECASE)
_REFUSES_CERTIFICATE: Final = re.compile(
    r"ALERT_(UNKNOWN_CA|CERTIFICATE_EXPIRED|CERTIFICATE_UNKNOWN|BAD_CERTIFICATE|DECRYPT_ERROR)", re.IGNORECASE
)
_NO_TLS: Final = re.compile(r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|UNEXPECTED_EOF", re.IGNORECASE)
_OTHER_HOST: Final = re.compile(r"hostname mismatch|IP address mismatch", re.IGNORECASE)


def advice(settings: Settings, reason: str, *, answered: bool) -> str:
    """The cause if it is known, and the variable to check; `answered`: the registry gave an answer."""
    if answered:
        return _of_answer(settings, reason)
    return _of_tls(settings, reason) or "start it with `streams local up`, or set SCHEMA_REGISTRY_URL"


def _of_answer(settings: Settings, reason: str) -> str:
    if reason.startswith("HTTP 401"):
        if settings.schema_registry_token is not None:
            return "the registry refuses the token: check SCHEMA_REGISTRY_TOKEN, and whether it has expired"
        if settings.schema_registry_username is not None or "@" in settings.schema_registry_url:
            return (
                "the registry refuses the credentials: check SCHEMA_REGISTRY_USERNAME and SCHEMA_REGISTRY_PASSWORD, or "
                "those in SCHEMA_REGISTRY_URL"
            )
        return (
            "the registry requires credentials: set SCHEMA_REGISTRY_USERNAME and SCHEMA_REGISTRY_PASSWORD, or "
            "SCHEMA_REGISTRY_TOKEN"
        )
    if reason.startswith("HTTP 403"):
        return "the registry knows this user, who lacks the right for it: rights are granted in the registry"
    return "look at SCHEMA_REGISTRY_URL, its credentials, and the registry's log"


def _of_tls(settings: Settings, reason: str) -> str | None:
    if _UNVERIFIED in reason:
        return _of_its_certificate(settings, reason)
    if _REFUSES_CERTIFICATE.search(reason):
        return _expired(settings) or (
            "the registry refuses the client's certificate: it is from a CA that the registry does not know; check "
            "SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION"
        )
    if _WANTS_CERTIFICATE.search(reason):
        return (
            "the registry requires a client certificate: set SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION and "
            "SCHEMA_REGISTRY_SSL_KEY_LOCATION"
        )
    if _NO_TLS.search(reason) and settings.schema_registry_url.startswith("https:"):
        return "the port does not speak TLS: does SCHEMA_REGISTRY_URL have to begin with http://?"
    if "disconnected" in reason and settings.schema_registry_url.startswith("http:"):
        return "the connection was closed without an answer: does SCHEMA_REGISTRY_URL have to begin with https://?"
    return None


def _of_its_certificate(settings: Settings, reason: str) -> str:
    if "certificate has expired" in reason:
        return "the registry's certificate has expired"
    if _OTHER_HOST.search(reason):
        hosts = ", ".join(str(urlsplit(url).hostname) for url in separate(settings.schema_registry_url))
        return f"the registry's certificate is not for {hosts}: connect by a name that is in it"
    if settings.schema_registry_ssl_ca_location is None:
        return "the registry's certificate is from no CA that is known here: set SCHEMA_REGISTRY_SSL_CA_LOCATION"
    return (
        f"the registry's certificate is not from the CA in {settings.schema_registry_ssl_ca_location} "
        "(SCHEMA_REGISTRY_SSL_CA_LOCATION)"
    )


def _expired(settings: Settings) -> str | None:
    """A sentence that the client's own certificate has expired, if it has."""
    path = settings.schema_registry_ssl_certificate_location
    end = expired_at(path)
    if end is None:
        return None
    return (
        f"the client's certificate in {path} (SCHEMA_REGISTRY_SSL_CERTIFICATE_LOCATION) has expired, on {end:%Y-%m-%d}"
    )
