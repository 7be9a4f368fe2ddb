"""A schema registry with Confluent's API, with the answers told apart that callers must tell apart.

"No such schema" is an answer about the data and is raised only when the registry itself says so (HTTP 404 with its
error code 40403). Everything else that is not an answer (refused, timed out, 5xx, 401, a proxy's 404, a page instead of
JSON) says nothing about the data and is `RegistryUnavailable`: to be waited out, never to be turned into a reject.

One call is one HTTP request: no hidden retries. Whoever wants to wait uses `wait_for_registry`, or retries itself.
Error texts name the registry without credentials.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

from confluent_kafka.schema_registry import SchemaRegistryClient

# Whichever of httpx2 and httpx confluent-kafka runs on: its exceptions are what a failed request raises.
from confluent_kafka.schema_registry.common._httpx_compat import httpx
from confluent_kafka.schema_registry.error import SchemaRegistryError

from streams.errors import StreamsError
from streams.masking import without_credentials
from streams.retry import Backoff, Retrier, quietly
from streams.settings import Settings

T = TypeVar("T")

REQUEST_TIMEOUT_S: Final = 5.0
"""Bound of connecting, of sending and of every wait for bytes (confluent-kafka's default is no bound at all)."""
SCHEMA_NOT_FOUND: Final = 40403
SUBJECT_NOT_FOUND: Final = 40401
VERSION_NOT_FOUND: Final = 40402
COMPATIBILITY_NOT_SET: Final = 40408


class UnknownSchema(StreamsError):
    """The registry answered: it has no such schema."""


class RegistryUnavailable(StreamsError):
    """The registry did not answer, or not in a way that says anything about the schema."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """Why, without the rest of the message."""


class SchemaRefused(StreamsError):
    """The registry answered: it does not accept this schema (incompatible, or not valid)."""


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version of a subject as the registry holds it."""

    version: int
    schema_id: int
    text: str


class Registry:
    """Typed access to the registry of `settings`. Safe to use from several threads.

    Schemas by id never change, so those once fetched are remembered; everything else is asked for each time.
    """

    def __init__(self, settings: Settings, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.url_shown = without_credentials(settings.schema_registry_url)
        try:
            self._client = _Client({"url": settings.schema_registry_url, "timeout": timeout_s, "max.retries": 0})
        except (ValueError, OSError):
            raise StreamsError(f"SCHEMA_REGISTRY_URL: {self.url_shown} cannot be used; is it a http(s) URL?") from None

    def schema_by_id(self, schema_id: int) -> str:
        """Text of the schema with this id.

        Raises:
            UnknownSchema: the registry has no such id.
            RegistryUnavailable: no usable answer.

        """
        try:
            schema = self._ask(lambda: self._client.get_schema(schema_id))
        except SchemaRegistryError as error:
            if _is_not_found(error, SCHEMA_NOT_FOUND):
                raise UnknownSchema(f"the registry at {self.url_shown} has no schema with id {schema_id}") from None
            raise self._unavailable(_shown(error)) from None
        if not isinstance(schema.schema_str, str):
            raise self._unavailable(f"its answer for schema id {schema_id} holds no schema")
        return schema.schema_str

    def register(self, subject: str, schema: str) -> int:
        """Register a schema under a subject and return its id; registering again changes nothing.

        Raises:
            SchemaRefused: incompatible with the versions before it, or not a valid schema.
            RegistryUnavailable: no usable answer.

        """
        try:
            return self._ask(lambda: self._client.post_id(_path(subject, "versions"), schema))
        except SchemaRegistryError as error:
            if error.http_status_code in {409, 422}:
                raise SchemaRefused(f"{subject}: the registry refuses the schema: {_shown(error)}") from None
            raise self._unavailable(_shown(error)) from None

    def lookup(self, subject: str, schema: str) -> int:
        """Id of a schema that is registered under a subject.

        Raises:
            UnknownSchema: the subject or this schema of it is not registered.
            RegistryUnavailable: no usable answer.

        """
        try:
            return self._ask(lambda: self._client.post_id(_path(subject), schema))
        except SchemaRegistryError as error:
            if _is_not_found(error, SCHEMA_NOT_FOUND, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):
                raise UnknownSchema(
                    f"{subject}: the schema is not registered at {self.url_shown}: run `streams schemas register`"
                ) from None
            raise self._unavailable(_shown(error)) from None

    def versions(self, subject: str) -> list[int]:
        """Versions registered under a subject, ascending; empty for an unknown subject.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            return sorted(self._ask(lambda: self._client.get_versions(subject)))
        except SchemaRegistryError as error:
            if _is_not_found(error, SUBJECT_NOT_FOUND):
                return []
            raise self._unavailable(_shown(error)) from None

    def registered(self, subject: str) -> list["RegisteredVersion"]:
        """Everything registered under a subject, oldest version first; empty for an unknown subject.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        found: list[RegisteredVersion] = []
        for version in self.versions(subject):
            try:
                found.append(self._ask(lambda version=version: self._client.registered(subject, version)))  # type: ignore[misc]
            except SchemaRegistryError as error:
                if not _is_not_found(error, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):  # else deleted in the meantime
                    raise self._unavailable(_shown(error)) from None
        return found

    def default_compatibility(self) -> str | None:
        """Compatibility mode of subjects that have none of their own.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            return self._ask(self._client.default_compatibility)
        except SchemaRegistryError as error:
            if _is_not_found(error, COMPATIBILITY_NOT_SET):
                return None
            raise self._unavailable(_shown(error)) from None

    def set_compatibility(self, subject: str, mode: str) -> None:
        """Set the compatibility mode of a subject (it need not have a schema yet).

        Raises:
            SchemaRefused: there is no such mode.
            RegistryUnavailable: no usable answer.

        """
        try:
            self._ask(lambda: self._client.set_compatibility(subject, mode))
        except SchemaRegistryError as error:
            if error.http_status_code == 422:
                raise SchemaRefused(f"{subject}: no compatibility mode {mode!r}") from None
            raise self._unavailable(_shown(error)) from None

    def compatibility(self, subject: str) -> str | None:
        """Compatibility mode of a subject itself; None when it follows the registry's default.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            return str(self._ask(lambda: self._client.get_compatibility(subject)))
        except SchemaRegistryError as error:
            if _is_not_found(error, COMPATIBILITY_NOT_SET, SUBJECT_NOT_FOUND):
                return None
            raise self._unavailable(_shown(error)) from None

    def check(self, subject: str, schema: str) -> list[str]:
        """Why a schema could not be registered under a subject now; empty when it could, or has nothing before it.

        Confluent's registry gives its reasons one by one. Apicurio's (3.3) says only that it is so: then the one text
        says that no reason was given.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            return self._ask(lambda: self._client.incompatibilities(subject, schema))
        except SchemaRegistryError as error:
            if _is_not_found(error, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):
                return []
            if error.http_status_code == 422:
                return [_shown(error)]
            raise self._unavailable(_shown(error)) from None

    def ping(self) -> None:
        """Ask for something cheap.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            self._ask(lambda: self._client.get_subjects(limit=1))
        except SchemaRegistryError as error:
            raise self._unavailable(_shown(error)) from None

    def _ask(self, request: Callable[[], T]) -> T:
        try:
            return request()
        except httpx.TimeoutException:
            raise self._unavailable("it does not answer in time") from None
        except httpx.TransportError as error:
            raise self._unavailable(str(error) or type(error).__name__) from None
        except (ValueError, KeyError, TypeError, AttributeError, httpx.HTTPError):
            raise self._unavailable("something answers there, but not a schema registry") from None

    def _unavailable(self, reason: str) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"no answer from the schema registry at {self.url_shown}: {reason}; "
            "start it with `streams local up`, or set SCHEMA_REGISTRY_URL",
            reason,
        )


def wait_for_registry(registry: Registry, *, timeout_s: float) -> None:
    """Return when the registry answers; ask with exponential backoff and jitter for at most `timeout_s` seconds.

    Raises:
        RegistryUnavailable: it has not answered by then.

    """
    Retrier(say=quietly).call(
        "waiting for the schema registry",
        registry.ping,
        passing=RegistryUnavailable,
        backoff=Backoff(first_s=0.1, pause_s_max=2.0, give_up_s=timeout_s),
    )


class _Client(SchemaRegistryClient):
    """Confluent's client, plus the calls whose answers it shortens or remembers for too long."""

    def post_id(self, path: str, schema: str) -> int:
        """Post a schema and return the id of the answer.

        Its own `register_schema` and `lookup_schema` answer from a cache, which after a wipe of the registry is wrong.
        """
        answer: Any = self._rest_client.post(path, body={"schema": schema})
        return int(answer["id"])

    def registered(self, subject: str, version: int) -> "RegisteredVersion":
        """A version of a subject; its own `get_version` hides the text's type and answers from a cache."""
        answer: Any = self._rest_client.get(_path(subject, "versions", str(version)))
        return RegisteredVersion(int(answer["version"]), int(answer["id"]), str(answer["schema"]))

    def default_compatibility(self) -> str:
        """Mode of subjects without one of their own."""
        answer: Any = self._rest_client.get("config")
        return str(answer["compatibilityLevel"])

    def incompatibilities(self, subject: str, schema: str) -> list[str]:
        """Reasons against a schema; its own `test_compatibility_all_versions` drops them."""
        path = f"compatibility/{_path(subject, 'versions')}?verbose=true"
        answer: Any = self._rest_client.post(path, body={"schema": schema})
        if answer["is_compatible"]:
            return []
        reasons = [str(reason) for reason in answer.get("messages") or ()]
        return reasons or ["incompatible (the registry gives no reason)"]


def same_schema(one: str, other: str) -> bool:
    """Whether two schema texts say the same, whatever their spacing and order of attributes."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except json.JSONDecodeError:
        return False


def _path(subject: str, *rest: str) -> str:
    return "/".join(["subjects", quote(subject, safe=""), *rest])


def _is_not_found(error: SchemaRegistryError, *codes: int) -> bool:
    return error.http_status_code == 404 and error.error_code in codes


def _shown(error: SchemaRegistryError) -> str:
    message = " ".join(str(error.error_message).split())
    return f"HTTP {error.http_status_code}: {message[:500]}"
