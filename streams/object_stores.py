"""What clients of object stores have in common: options of a user, and why a store refuses, in words.

obstore and deltalake quote a store's whole answer over many lines, and what went wrong is a code in one of them.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from streams.masking import masked, without_credentials

_S3: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_AZURE: Final = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
_VARIABLES: Final = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS", "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    **dict.fromkeys(("az", "azure", "adl", "abfs", "abfss", "wasb", "wasbs"), _AZURE),
}  # fmt: skip
"""Of each scheme where credentials are set; of others as for S3."""
_WITH_ACCOUNT: Final = frozenset({"abfs", "abfss", "wasb", "wasbs"})
"""Schemes of addresses that may be CONTAINER@ACCOUNT/PATH."""
_NO_BUCKET: Final = "NoSuchBucket"
_CODES: Final = {
    _NO_BUCKET: "there is no such bucket: create it, or correct the address",
    "InvalidAccessKeyId": "the store does not know the access key: see AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not belong to the access key: see AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired: see AWS_SESSION_TOKEN",
    "InvalidToken": "the session token is not valid: see AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "the clock of this machine differs too much from that of the store",
    "AccessDenied": "the credentials lack the right to do this: see AWS_ACCESS_KEY_ID and the policy of the bucket",
    "AuthorizationHeaderMalformed": "the bucket is in another region: see AWS_REGION",
    "PermanentRedirect": "the bucket is in another region: see AWS_REGION",
    "SlowDown": "the store asks for fewer requests",
}
"""Codes of S3 (`<Code>` of its answers)."""
_CREDENTIALS: Final = (
    "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
)
_PLAIN_HTTP: Final = "the endpoint is http, without encryption: use https, or allow it by AWS_ALLOW_HTTP=true"
_NO_CONNECTION: Final = "nothing answers at {host}: see AWS_ENDPOINT_URL, or the store is down"
_SIGNS: Final = (
    ("/latest/api/token", _CREDENTIALS),
    ("/latest/meta-data/iam/", _CREDENTIALS),
    ("URL scheme is not allowed", _PLAIN_HTTP),
    ("builder error", _PLAIN_HTTP),
    ("Received redirect without LOCATION", "the bucket is in another region: see AWS_REGION"),
    ("client error (Connect)", _NO_CONNECTION),
    ("tcp connect error", _NO_CONNECTION),
    ("dns error", _NO_CONNECTION),
    ("timed out", "{host} does not answer in time"),
)
"""What libraries say where there was no answer of the store itself; the first two: of the service for roles."""
_BUCKET_END: Final = re.compile(r"[/?#]")
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_CODE: Final = re.compile(r"<Code>([A-Za-z]+)</Code>")
_REQUEST: Final = re.compile(r"Error performing [A-Z]+ (https?://[^/\s]+)")
_STATUS: Final = re.compile(r"Server returned non-2xx status code\W+(\d{3} [A-Za-z ]+)")
_OF_USERS: Final = (
    "allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate", "proxy_excludes", "timeout",
    "connect_timeout",
)  # fmt: skip
"""Options of the connection that a user may set, for S3 as `AWS_` and the name in capitals."""


def refusal_of(address: str) -> str:
    """Why an address of an object store is not taken, where it holds more than bucket and path; empty: it does not.

    The words never quote it: it may hold credentials, in front of `@` (a secret with `/` looks like a path) or in a
    query. A path without a scheme and `file://` hold none.
    """
    scheme, colon, rest = address.strip().partition("://")
    scheme = scheme.lower()
    if not colon or scheme == "file":
        return ""
    bucket = _BUCKET_END.split(rest, maxsplit=1)[0]
    if scheme in _WITH_ACCOUNT and bucket.count("@") == 1:
        bucket = bucket.replace("@", "")
    if not ({"?", "#"} & set(rest) or {"@", ":"} & set(bucket)):
        return ""
    variables = _VARIABLES.get(scheme, _S3)
    return f"an address has no credentials in it, only {scheme}://BUCKET/PATH: set {variables} in the environment"


def client_options(environment: Mapping[str, str], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Options of obstore's connection: `ours`, and over them those of the user.

    obstore takes these options from the environment only where it is given none at all.
    """
    found = {name: environment.get(f"AWS_{name.upper()}", "") for name in _OF_USERS}
    return {**ours, **{name: value for name, value in found.items() if value}}


def cause_of(error: BaseException | str) -> str:
    """Why an object store refuses, in a line without secrets; empty where the error does not say."""
    text = _COLOURS.sub("", str(error))
    code = _CODE.search(text)
    if code is not None and code[1] in _CODES:
        return f"{_CODES[code[1]]} ({code[1]})"
    request = _REQUEST.search(text)
    host = "the store" if request is None else without_credentials(request[1])
    for sign, why in _SIGNS:
        if sign in text:
            return why.format(host=host)
    status = _STATUS.search(text)
    if status is None:
        return ""
    return f"{host} answers {status[1].strip()}" + ("" if code is None else f" ({code[1]})")


def in_words(error: BaseException) -> str:
    """Its cause; or the first line of what the client says, without secrets."""
    return cause_of(error) or masked((str(error).splitlines() or [type(error).__name__])[0])


def is_without_bucket(error: BaseException) -> bool:
    """Whether it is the bucket that is not there, rather than an object of it."""
    return f"<Code>{_NO_BUCKET}</Code>" in str(error)
