"""Answers of a schema registry: schemas, versions of subjects, and the errors that callers tell apart."""

import json
from dataclasses import dataclass
from typing import Final

from streams.errors import StreamsError
from streams.schemas.references import Reference

AVRO: Final = "AVRO"
_KINDS: Final = {"PROTOBUF": "Protobuf", "JSON": "JSON Schema"}


class UnknownSchema(StreamsError):
    """The registry answered: it has no such schema."""


class RegistryUnavailable(StreamsError):
    """The registry did not answer, or its answer says nothing about the schema."""

    def __init__(self, message: str, reason: str = "", *, answered: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        """The reason, without the rest of the message."""
        self.answered = answered
        """Whether something answers at its address: with an error (401, 500), or unlike a registry."""


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


def same_schema(one: str, other: str) -> bool:
    """Whether two schema texts are equal, apart from spacing and order of attributes."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except json.JSONDecodeError:
        return False


def refuse_other_kinds(kind: str, name: str) -> None:
    """Refuse what is not Avro; `name` is what the error text calls it.

    Raises:
        UnusableSchema: `kind` is another one.

    """
    if kind != AVRO:
        raise UnusableSchema(f"{name} is {_KINDS.get(kind, kind)}, not Avro")
