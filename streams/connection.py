"""Finds connection settings that contradict each other, or hold credentials; messages name the variables."""

from collections.abc import Mapping
from typing import Any, Final

from streams.object_stores import refusal_of

_PASSWORD_MECHANISMS: Final = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
_TLS_FILES: Final = ("KAFKA_SSL_CA_LOCATION", "KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION")
_OIDC: Final = (
    "KAFKA_SASL_OAUTHBEARER_CLIENT_ID",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET",
    "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL",
)
_OAUTH: Final = (*_OIDC, "KAFKA_SASL_OAUTHBEARER_SCOPE", "KAFKA_SASL_OAUTHBEARER_EXTENSIONS")
_ENDPOINT: Final = "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL"
_REGION: Final = "KAFKA_SASL_OAUTHBEARER_AWS_REGION"
_STORES: Final = ("STREAMS_DELTA_URL", "STREAMS_SNAPSHOT_URL")
_LOOPBACK: Final = ("http://127.0.0.1", "http://localhost", "http://[::1]")


def contradiction(values: Mapping[str, Any]) -> str | None:
    """What is wrong with connection settings, in words that name variables; None: nothing.

    `values`: by variable name, None for what is not set.
    """
    return _of_sasl(values) or _of_oauth(values) or _of_tls(values) or _of_registry(values) or _of_stores(values)


def _of_sasl(values: Mapping[str, Any]) -> str | None:
    protocol, mechanism = values["KAFKA_SECURITY_PROTOCOL"], values["KAFKA_SASL_MECHANISM"]
    if protocol.startswith("SASL_") and mechanism is None:
        return f"KAFKA_SECURITY_PROTOCOL={protocol} needs KAFKA_SASL_MECHANISM"
    given = _given(values, "KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
    if given and not protocol.startswith("SASL_"):
        return f"{given[0]} is set, but KAFKA_SECURITY_PROTOCOL={protocol} uses no SASL: set SASL_SSL"
    wanted = ("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
    missing = [name for name in wanted if values[name] is None]
    if mechanism in _PASSWORD_MECHANISMS and missing:
        return f"KAFKA_SASL_MECHANISM={mechanism} needs {' and '.join(missing)}"
    if mechanism == "OAUTHBEARER" and len(missing) < len(wanted):
        (other,) = _given(values, *wanted)[:1]
        return f"{other} is set, but KAFKA_SASL_MECHANISM=OAUTHBEARER takes {' and '.join(_OIDC[:2])}"
    return None


def _of_oauth(values: Mapping[str, Any]) -> str | None:
    mechanism, method = values["KAFKA_SASL_MECHANISM"], values["KAFKA_SASL_OAUTHBEARER_METHOD"]
    given = _given(values, "KAFKA_SASL_OAUTHBEARER_METHOD", *_OAUTH, _REGION)
    if mechanism != "OAUTHBEARER":
        return f"{given[0]} is set, but KAFKA_SASL_MECHANISM is not OAUTHBEARER" if given else None
    return _of_msk(values) if method == "aws_msk_iam" else _of_oidc(values)


def _of_msk(values: Mapping[str, Any]) -> str | None:
    others = _given(values, *_OAUTH)
    if others:
        return f"{others[0]} is set, but KAFKA_SASL_OAUTHBEARER_METHOD=aws_msk_iam asks AWS for tokens"
    if values[_REGION] is None:
        return f"KAFKA_SASL_OAUTHBEARER_METHOD=aws_msk_iam needs {_REGION}, such as eu-central-1"
    return None


def _of_oidc(values: Mapping[str, Any]) -> str | None:
    if values[_REGION] is not None:
        return f"{_REGION} is for KAFKA_SASL_OAUTHBEARER_METHOD=aws_msk_iam"
    missing = [name for name in _OIDC if values[name] is None]
    if missing:
        return f"KAFKA_SASL_MECHANISM=OAUTHBEARER needs {', '.join(missing)}"
    if not str(values[_ENDPOINT]).startswith(("https://", *_LOOPBACK)):
        return f"{_ENDPOINT} must be https://: the client's secret is sent there"
    return None


def _of_tls(values: Mapping[str, Any]) -> str | None:
    protocol = values["KAFKA_SECURITY_PROTOCOL"]
    given = _given(values, *_TLS_FILES, "KAFKA_SSL_KEY_PASSWORD")
    if given and not protocol.endswith("SSL"):
        return f"{given[0]} is set, but KAFKA_SECURITY_PROTOCOL={protocol} uses no TLS: set SSL or SASL_SSL"
    return _of_pair(values, "KAFKA_SSL_")


def _of_registry(values: Mapping[str, Any]) -> str | None:
    user, password = values["SCHEMA_REGISTRY_USERNAME"], values["SCHEMA_REGISTRY_PASSWORD"]
    urls = str(values["SCHEMA_REGISTRY_URL"])
    if (user is None) != (password is None):
        return "SCHEMA_REGISTRY_USERNAME and SCHEMA_REGISTRY_PASSWORD are set together, or neither of them"
    if user is not None and values["SCHEMA_REGISTRY_TOKEN"] is not None:
        return "SCHEMA_REGISTRY_TOKEN and SCHEMA_REGISTRY_USERNAME are both set: the registry takes one of them"
    if "@" in urls and (user is not None or values["SCHEMA_REGISTRY_TOKEN"] is not None):
        name = "SCHEMA_REGISTRY_TOKEN" if user is None else "SCHEMA_REGISTRY_USERNAME"
        return f"SCHEMA_REGISTRY_URL has a user in it, and {name} is set: leave one of them out"
    tls = _given(values, *(name.replace("KAFKA", "SCHEMA_REGISTRY") for name in _TLS_FILES))
    if tls and "https://" not in urls:
        return f"{tls[0]} is set, but SCHEMA_REGISTRY_URL is not https://"
    return _of_pair(values, "SCHEMA_REGISTRY_SSL_")


def _of_stores(values: Mapping[str, Any]) -> str | None:
    found = ((name, refusal_of(values[name])) for name in _STORES)
    return next((f"{name}: {why}" for name, why in found if why), None)


def _of_pair(values: Mapping[str, Any], prefix: str) -> str | None:
    certificate, key, password = (
        f"{prefix}{name}" for name in ("CERTIFICATE_LOCATION", "KEY_LOCATION", "KEY_PASSWORD")
    )
    for one, other in ((key, certificate), (certificate, key), (password, key)):
        if values[one] is not None and values[other] is None:
            return f"{one} is set without {other}"
    return None


def _given(values: Mapping[str, Any], *names: str) -> list[str]:
    return [name for name in names if values[name] is not None]
