"""A schema registry with Confluent's API, with the answers told apart that callers must tell apart.

"No such schema" is an answer about the data and is raised only when the registry itself says so (HTTP 404 with its
error code 40403). Everything else that is not an answer (refused, timed out, 5xx, 401, a proxy's 404, a page instead of
JSON) says nothing about the data and is `RegistryUnavailable`: to be waited out, never to be turned into a reject.

One call is one HTTP request: no hidden retries. Whoever wants to wait uses `wait_for_registry`, or retries itself.
Error texts name the registry without credentials.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

from confluent_kafka.schema_registry import SchemaRegistryClient

# Whichever of httpx2 and httpx confluent-kafka runs on: its exceptions are what a failed request raises.
from confluent_kafka.schema_registry.common._httpx_compat import httpx
from confluent_kafka.schema_registry.error import SchemaRegistryError

from streams.errors import StreamsError, UsageError
from streams.limits import SCHEMA_REFERENCES_MAX
from streams.masking import without_credentials
from streams.resilience.retry import Backoff, Retrier, quietly
from streams.schemas.access import Access, registry_access, unusable_registry
from streams.schemas.causes import advice
from streams.schemas.references import Reference, inlined
from streams.settings import Settings

T = TypeVar("T")

REQUEST_TIMEOUT_S: Final = 5.0
"""Bound of connecting, of sending and of every wait for bytes (confluent-kafka's default is no bound at all)."""
SCHEMA_NOT_FOUND: Final = 40403
SUBJECT_NOT_FOUND: Final = 40401
VERSION_NOT_FOUND: Final = 40402
COMPATIBILITY_NOT_SET: Final = 40408
AVRO: Final = "AVRO"
_KINDS: Final = {"PROTOBUF": "Protobuf", "JSON": "JSON Schema"}
_DEFAULT_CONTEXT: Final = "."


class UnknownSchema(StreamsError):
    """The registry answered: it has no such schema."""


class RegistryUnavailable(StreamsError):
    """The registry did not answer, or not in a way that says anything about the schema."""

    def __init__(self, message: str, reason: str = "", *, answered: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        """Why, without the rest of the message."""
        self.answered = answered
        """Whether something answers at its address: with an error (401, 500), or with what no registry says."""


class SchemaRefused(StreamsError):
    """The registry answered: it does not accept this schema (incompatible, or not valid)."""


class UnusableSchema(StreamsError):
    """The registry has this schema, but no Avro value can be read with it: Protobuf, JSON Schema, or not readable."""


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as the registry holds it."""

    text: str
    kind: str = AVRO
    """`AVRO`, `PROTOBUF` or `JSON`."""
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version of a subject as the registry holds it."""

    version: int
    schema_id: int
    text: str
    kind: str = AVRO
    """`AVRO`, `PROTOBUF` or `JSON`."""
    references: tuple[Reference, ...] = ()


class Registry:
    """Typed access to the registry of `settings`. Safe to use from several threads.

    Schemas by id never change, so those once fetched are remembered; everything else is asked for each time.
    """

    def __init__(self, settings: Settings, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.url_shown = without_credentials(settings.schema_registry_url)
        self._settings, self._timeout_s = settings, timeout_s
        self._made_with = registry_access(settings)
        self._made = self._new_client(self._made_with)

    @property
    def _client(self) -> "_Client":
        """The client; replaced when a secret or a certificate has changed in its file."""
        access = registry_access(self._settings)
        if access != self._made_with:
            self._made, self._made_with = self._new_client(access), access
        return self._made

    def _new_client(self, access: Access) -> "_Client":
        try:
            return _Client({**access.config, "timeout": self._timeout_s, "max.retries": 0}, token=access.token)
        except (ValueError, OSError) as error:
            raise UsageError(unusable_registry(self._settings, error)) from None

    def schema_by_id(self, schema_id: int) -> str:
        """Text of the Avro schema with this id, the types that it refers to written out.

        Raises:
            UnknownSchema: the registry has no such id, or not what it refers to.
            UnusableSchema: it is no Avro schema (Protobuf, JSON Schema).
            RegistryUnavailable: no usable answer.

        """
        try:
            found = self._ask(lambda: self._client.get_schema(schema_id))
        except SchemaRegistryError as error:
            if _is_not_found(error, SCHEMA_NOT_FOUND):
                raise UnknownSchema(f"the registry at {self.url_shown} has no schema with id {schema_id}") from None
            raise self._unavailable(_shown(error)) from None
        if not isinstance(found.schema_str, str):
            raise self._unavailable(f"its answer for schema id {schema_id} holds no schema")
        references = tuple(
            Reference(str(each.name), str(each.subject), int(each.version or 0)) for each in found.references or ()
        )
        return self.resolve(
            RegisteredSchema(found.schema_str, found.schema_type or AVRO, references), f"schema {schema_id}"
        )

    def id_of_guid(self, guid: str) -> int:
        """Id of the schema with this GUID (in its usual form, 36 characters).

        Confluent's registry has GUIDs from version 8 on. One that does not know the question (Apicurio 3.3) answers it
        with a 404 of no error code; if it answers others, that is an answer too.

        Raises:
            UnknownSchema: the registry has no such GUID, or does not look up GUIDs.
            RegistryUnavailable: no usable answer.

        """
        try:
            schema_id = self._ask(lambda: self._client.id_of_guid(guid))
        except SchemaRegistryError as error:
            if error.http_status_code != 404:
                raise self._unavailable(_shown(error)) from None
            is_answer = _is_not_found(error, SCHEMA_NOT_FOUND)
        else:
            if schema_id is not None:
                return schema_id
            is_answer = True
        if is_answer:
            raise UnknownSchema(f"the registry at {self.url_shown} has no schema with GUID {guid}")
        self.ping()
        raise UnknownSchema(
            f"the registry at {self.url_shown} does not look schemas up by GUID ({guid}); have the producer send the "
            "schema's id, in the header or as a prefix"
        )

    def resolve(self, schema: RegisteredSchema | RegisteredVersion, name: str = "the schema") -> str:
        """Text of an Avro schema, the types that it refers to written out: each defined once, where it is first used.

        A schema without references is returned as it is. `name` is what error texts call it.

        Raises:
            UnknownSchema: the registry does not have what it refers to.
            UnusableSchema: it, or what it refers to, is no Avro schema.
            RegistryUnavailable: no usable answer.

        """
        _refuse_other_kinds(schema.kind, name)
        try:
            return inlined(schema.text, self._referenced(schema.references, name))
        except ValueError as error:
            raise UnusableSchema(f"{name} cannot be put together with its references: {error}") from None

    def _referenced(self, references: Sequence[Reference], name: str) -> list[str]:
        """Texts of all schemas that are referred to, directly or through others; each version once."""
        found: dict[tuple[str, int], str] = {}
        waiting = list(references)
        while waiting:
            reference = waiting.pop(0)
            place = (reference.subject, reference.version)
            if place in found:
                continue
            if len(found) == SCHEMA_REFERENCES_MAX:
                raise UnusableSchema(f"{name} refers to more than {SCHEMA_REFERENCES_MAX} schemas")
            version = self._version_referenced(reference, name)
            _refuse_other_kinds(
                version.kind, f"{name} refers to {reference.subject} version {reference.version}, which"
            )
            found[place] = version.text
            waiting += version.references
        return list(found.values())

    def _version_referenced(self, reference: Reference, name: str) -> RegisteredVersion:
        for is_deleted_too in (False, True):  # what others refer to may have been deleted, and is kept all the same
            try:
                return self._ask(
                    lambda deleted=is_deleted_too: self._client.registered(  # type: ignore[misc]
                        reference.subject, reference.version, is_deleted_too=deleted
                    )
                )
            except SchemaRegistryError as error:
                if not _is_not_found(error, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):
                    raise self._unavailable(_shown(error)) from None
        raise UnknownSchema(
            f"{name} refers to {reference.subject} version {reference.version}, which the registry at "
            f"{self.url_shown} does not have"
        )

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

    def delete_version(self, subject: str, version: int) -> None:
        """Take a version out of a subject: a soft delete, its number is not given again.

        Raises:
            UnknownSchema: it is not there (any more).
            SchemaRefused: the registry does not let it go, such as a version that another schema refers to.
            RegistryUnavailable: no usable answer.

        """
        try:
            self._ask(lambda: self._client.delete_version(subject, version))
        except SchemaRegistryError as error:
            if _is_not_found(error, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):
                raise UnknownSchema(f"{subject} version {version} is not in the registry at {self.url_shown}") from None
            if error.http_status_code in {405, 409, 422}:
                raise SchemaRefused(f"{subject} version {version}: the registry keeps it: {_shown(error)}") from None
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
            raise self._unavailable("it does not answer in time", answered=False) from None
        except httpx.TransportError as error:
            raise self._unavailable(str(error) or type(error).__name__, answered=False) from None
        except (ValueError, KeyError, TypeError, AttributeError, httpx.HTTPError):
            raise self._unavailable("something answers there, but not a schema registry") from None

    def _unavailable(self, reason: str, *, answered: bool = True) -> RegistryUnavailable:
        what, mend = "no usable answer" if answered else "no answer", advice(self._settings, reason, answered=answered)
        return RegistryUnavailable(
            f"{what} from the schema registry at {self.url_shown}: {reason}; {mend}", reason, answered=answered
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

    def __init__(self, config: dict[str, Any], *, token: str | None) -> None:
        super().__init__(config)
        if token is not None:  # its own way of bearer tokens wants a logical cluster, as Confluent Cloud has them
            self._rest_client.session.headers["Authorization"] = f"Bearer {token}"

    def post_id(self, path: str, schema: str) -> int:
        """Post a schema and return the id of the answer.

        Its own `register_schema` and `lookup_schema` answer from a cache, which after a wipe of the registry is wrong.
        """
        answer: Any = self._rest_client.post(path, body={"schema": schema})
        return int(answer["id"])

    def registered(self, subject: str, version: int, *, is_deleted_too: bool = False) -> "RegisteredVersion":
        """A version of a subject; its own `get_version` hides the text's type and answers from a cache."""
        query = {"deleted": "true"} if is_deleted_too else {}
        answer: Any = self._rest_client.get(_path(subject, "versions", str(version)), query)
        return RegisteredVersion(
            int(answer["version"]), int(answer["id"]), str(answer["schema"]), str(answer.get("schemaType") or AVRO),
            tuple(
                Reference(str(each["name"]), str(each["subject"]), int(each["version"]))
                for each in answer.get("references") or ()
            ),
        )  # fmt: skip

    def id_of_guid(self, guid: str) -> int | None:
        """Id of a GUID's schema in the default context, or in the first one that has it."""
        answer: Any = self._rest_client.get(f"schemas/guids/{quote(guid, safe='')}/ids")
        ids = {str(each.get("context") or _DEFAULT_CONTEXT): int(each["id"]) for each in answer}
        return ids.get(_DEFAULT_CONTEXT, next(iter(ids.values()), None))

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


def _refuse_other_kinds(kind: str, name: str) -> None:
    if kind != AVRO:
        raise UnusableSchema(f"{name} is {_KINDS.get(kind, kind)}, not Avro")


def _path(subject: str, *rest: str) -> str:
    return "/".join(["subjects", quote(subject, safe=""), *rest])


def _is_not_found(error: SchemaRegistryError, *codes: int) -> bool:
    return error.http_status_code == 404 and error.error_code in codes


def _shown(error: SchemaRegistryError) -> str:
    message = " ".join(str(error.error_message).split())
    return f"HTTP {error.http_status_code}: {message[:500]}"
