"""Calls of a schema registry's HTTP API, one request each, on Confluent's client: paths, bodies and error codes."""

from typing import Any, Final
from urllib.parse import quote

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from streams.schemas.references import Reference
from streams.schemas.registered import AVRO, RegisteredVersion

SCHEMA_NOT_FOUND: Final = 40403
SUBJECT_NOT_FOUND: Final = 40401
VERSION_NOT_FOUND: Final = 40402
COMPATIBILITY_NOT_SET: Final = 40408
_DEFAULT_CONTEXT: Final = "."


class RegistryCalls(SchemaRegistryClient):
    """Confluent's client, plus requests whose answers that client shortens or caches for too long."""

    def __init__(self, config: dict[str, Any], *, token: str | None) -> None:
        super().__init__(config)
        if token is not None:  # its own support of bearer tokens requires a logical cluster, as in Confluent Cloud
            self._rest_client.session.headers["Authorization"] = f"Bearer {token}"

    def post_id(self, path: str, schema: str) -> int:
        """Post a schema and return the id in the answer.

        Its own `register_schema` and `lookup_schema` answer from a cache, which after a wipe of the registry is wrong.
        """
        answer: Any = self._rest_client.post(path, body={"schema": schema})
        return int(answer["id"])

    def registered(self, subject: str, version: int, *, is_deleted_too: bool = False) -> "RegisteredVersion":
        """A version of a subject; its own `get_version` hides the text's type and answers from a cache."""
        query = {"deleted": "true"} if is_deleted_too else {}
        answer: Any = self._rest_client.get(subject_path(subject, "versions", str(version)), query)
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
        path = f"compatibility/{subject_path(subject, 'versions')}?verbose=true"
        answer: Any = self._rest_client.post(path, body={"schema": schema})
        if answer["is_compatible"]:
            return []
        reasons = [str(reason) for reason in answer.get("messages") or ()]
        return reasons or ["incompatible (the registry gives no reason)"]


def subject_path(subject: str, *rest: str) -> str:
    """Path of a subject, or of something below it."""
    return "/".join(["subjects", quote(subject, safe=""), *rest])


def is_not_found(error: SchemaRegistryError, *codes: int) -> bool:
    """Whether the registry itself reports it: HTTP 404 with one of its error codes."""
    return error.http_status_code == 404 and error.error_code in codes


def error_text(error: SchemaRegistryError) -> str:
    """The registry's words for an error, on one line, with the HTTP status."""
    message = " ".join(str(error.error_message).split())
    return f"HTTP {error.http_status_code}: {message[:500]}"
