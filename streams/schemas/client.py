"""Client of a schema registry with Confluent's API. It tells "no such schema" from "no usable answer".

"No such schema" is an answer about the data and is raised only when the registry itself says so (HTTP 404 with its
error code 40403). Everything else that is not an answer (refused, timed out, 5xx, 401, a proxy's 404, a page instead of
JSON) says nothing about the data and is `RegistryUnavailable`: wait and ask again, never reject the record.

One call is one HTTP request: no hidden retries. To wait for the registry use `wait_for_registry`, or retry.
Error texts name the registry without credentials.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

# Whichever of httpx2 and httpx confluent-kafka runs on: its exceptions are what a failed request raises.
from confluent_kafka.schema_registry.common._httpx_compat import httpx
from confluent_kafka.schema_registry.error import SchemaRegistryError

from streams.errors import UsageError
from streams.limits import SCHEMA_REFERENCES_MAX
from streams.masking import without_credentials
from streams.resilience.retry import Backoff, Retrier, quietly
from streams.schemas.access import Access, registry_access, unusable_registry
from streams.schemas.causes import advice
from streams.schemas.references import Reference, inlined
from streams.schemas.registered import (
    AVRO,
    RegisteredSchema,
    RegisteredVersion,
    RegistryUnavailable,
    SchemaRefused,
    UnknownSchema,
    UnusableSchema,
    refuse_other_kinds,
    same_schema,
)
from streams.schemas.registry_calls import (
    COMPATIBILITY_NOT_SET,
    SCHEMA_NOT_FOUND,
    SUBJECT_NOT_FOUND,
    VERSION_NOT_FOUND,
    RegistryCalls,
    error_text,
    is_not_found,
    subject_path,
)
from streams.settings import Settings

__all__ = [
    "RegisteredSchema", "RegisteredVersion", "Registry", "RegistryUnavailable", "SchemaRefused", "UnknownSchema",
    "UnusableSchema", "same_schema", "wait_for_registry",
]  # fmt: skip

T = TypeVar("T")

REQUEST_TIMEOUT_S: Final = 5.0
"""Time limit for connecting, sending and each wait for bytes (confluent-kafka has none by default)."""


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
    def _client(self) -> "RegistryCalls":
        """The client; replaced when a secret or a certificate has changed in its file.

        Secrets are read with each request instead of comparing modification times, which may be equal for two writes.
        Files of a few bytes are read in microseconds, a request takes milliseconds.
        """
        access = registry_access(self._settings)
        if access != self._made_with:
            self._made, self._made_with = self._new_client(access), access
        return self._made

    def _new_client(self, access: Access) -> "RegistryCalls":
        try:
            return RegistryCalls({**access.config, "timeout": self._timeout_s, "max.retries": 0}, token=access.token)
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
            if is_not_found(error, SCHEMA_NOT_FOUND):
                raise UnknownSchema(f"the registry at {self.url_shown} has no schema with id {schema_id}") from None
            raise self._unavailable(error_text(error)) from None
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

        Confluent's registry has GUIDs from version 8 on. One without that endpoint (Apicurio 3.3) answers 404 without
        an error code; if it answers other requests, that counts as an answer too.

        Raises:
            UnknownSchema: the registry has no such GUID, or does not look up GUIDs.
            RegistryUnavailable: no usable answer.

        """
        try:
            schema_id = self._ask(lambda: self._client.id_of_guid(guid))
        except SchemaRegistryError as error:
            if error.http_status_code != 404:
                raise self._unavailable(error_text(error)) from None
            is_answer = is_not_found(error, SCHEMA_NOT_FOUND)
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
        refuse_other_kinds(schema.kind, name)
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
            refuse_other_kinds(version.kind, f"{name} refers to {reference.subject} version {reference.version}, which")
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
                if not is_not_found(error, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):
                    raise self._unavailable(error_text(error)) from None
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
            return self._ask(lambda: self._client.post_id(subject_path(subject, "versions"), schema))
        except SchemaRegistryError as error:
            if error.http_status_code in {409, 422}:
                raise SchemaRefused(f"{subject}: the registry refuses the schema: {error_text(error)}") from None
            raise self._unavailable(error_text(error)) from None

    def lookup(self, subject: str, schema: str) -> int:
        """Id of a schema that is registered under a subject.

        Raises:
            UnknownSchema: the subject or this schema of it is not registered.
            RegistryUnavailable: no usable answer.

        """
        try:
            return self._ask(lambda: self._client.post_id(subject_path(subject), schema))
        except SchemaRegistryError as error:
            if is_not_found(error, SCHEMA_NOT_FOUND, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):
                raise UnknownSchema(
                    f"{subject}: the schema is not registered at {self.url_shown}: run `streams schemas register`"
                ) from None
            raise self._unavailable(error_text(error)) from None

    def versions(self, subject: str) -> list[int]:
        """Versions registered under a subject, ascending; empty for an unknown subject.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            return sorted(self._ask(lambda: self._client.get_versions(subject)))
        except SchemaRegistryError as error:
            if is_not_found(error, SUBJECT_NOT_FOUND):
                return []
            raise self._unavailable(error_text(error)) from None

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
                if not is_not_found(error, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):  # otherwise it was deleted meanwhile
                    raise self._unavailable(error_text(error)) from None
        return found

    def default_compatibility(self) -> str | None:
        """Compatibility mode of subjects that have none of their own.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            return self._ask(self._client.default_compatibility)
        except SchemaRegistryError as error:
            if is_not_found(error, COMPATIBILITY_NOT_SET):
                return None
            raise self._unavailable(error_text(error)) from None

    def set_compatibility(self, subject: str, mode: str) -> None:
        """Set the compatibility mode of a subject, which need not have a schema yet.

        Raises:
            SchemaRefused: there is no such mode.
            RegistryUnavailable: no usable answer.

        """
        try:
            self._ask(lambda: self._client.set_compatibility(subject, mode))
        except SchemaRegistryError as error:
            if error.http_status_code == 422:
                raise SchemaRefused(f"{subject}: no compatibility mode {mode!r}") from None
            raise self._unavailable(error_text(error)) from None

    def compatibility(self, subject: str) -> str | None:
        """Compatibility mode of a subject itself; None when it follows the registry's default.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            return str(self._ask(lambda: self._client.get_compatibility(subject)))
        except SchemaRegistryError as error:
            if is_not_found(error, COMPATIBILITY_NOT_SET, SUBJECT_NOT_FOUND):
                return None
            raise self._unavailable(error_text(error)) from None

    def check(self, subject: str, schema: str) -> list[str]:
        """Why a schema cannot be registered under a subject now; empty when it can.

        Confluent's registry gives its reasons one by one. Apicurio's (3.3) gives none: then the one text says so.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            return self._ask(lambda: self._client.incompatibilities(subject, schema))
        except SchemaRegistryError as error:
            if is_not_found(error, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):
                return []
            if error.http_status_code == 422:
                return [error_text(error)]
            raise self._unavailable(error_text(error)) from None

    def delete_version(self, subject: str, version: int) -> None:
        """Delete a version of a subject (soft delete); its number is not used again.

        Raises:
            UnknownSchema: it is not there (any more).
            SchemaRefused: the registry refuses to delete it, such as a version that another schema refers to.
            RegistryUnavailable: no usable answer.

        """
        try:
            self._ask(lambda: self._client.delete_version(subject, version))
        except SchemaRegistryError as error:
            if is_not_found(error, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):
                raise UnknownSchema(f"{subject} version {version} is not in the registry at {self.url_shown}") from None
            if error.http_status_code in {405, 409, 422}:
                raise SchemaRefused(
                    f"{subject} version {version}: the registry keeps it: {error_text(error)}"
                ) from None
            raise self._unavailable(error_text(error)) from None

    def ping(self) -> None:
        """Ask for something cheap.

        Raises:
            RegistryUnavailable: no usable answer.

        """
        try:
            self._ask(lambda: self._client.get_subjects(limit=1))
        except SchemaRegistryError as error:
            raise self._unavailable(error_text(error)) from None

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
