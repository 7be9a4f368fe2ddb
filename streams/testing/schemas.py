"""A flow's schemas as a registry would have them, from its files."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro

from streams.avro.framing import FRAME_BYTES, SchemaKey, schema_id_of
from streams.flow.declaration import Pipeline
from streams.flow.inputs import Input
from streams.schemas.catalog import Catalog


@dataclass(frozen=True, slots=True)
class Schema:
    """A version of a schema, under its id."""

    id: int
    text: str
    parsed: Any

    def encode(self, event: Mapping[str, Any]) -> bytes:
        """The framed value.

        Raises:
            ValueError: the event does not fit the schema.

        """
        stream = io.BytesIO(b"\0" + self.id.to_bytes(FRAME_BYTES - 1, "big"))
        stream.seek(FRAME_BYTES)
        try:
            fastavro.schemaless_writer(stream, self.parsed, dict(event), strict_allow_default=True)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"{dict(event)!r} does not fit the schema of the source: {error}") from None
        return stream.getvalue()


class RegisteredSchemas:
    """Every version of the flow's schemas under an id of its own, as a registry would have them."""

    def __init__(self, catalog: Catalog, pipelines: Sequence[Pipeline]) -> None:
        """`pipelines`: the stages of a flow; they have the same ids."""
        topics = (topic for pipeline in pipelines for topic in pipeline.topics())
        subjects = dict.fromkeys(topic.subject for topic in topics if topic.subject)
        self._by_subject: dict[str, list[Schema]] = {}
        self._by_id: dict[int, Schema] = {}
        for subject in subjects:
            for version in catalog.versions(subject):
                parsed = fastavro.parse_schema(json.loads(version.text))
                schema = Schema(len(self._by_id) + 1, version.text, parsed)
                self._by_id[schema.id] = schema
                self._by_subject.setdefault(subject, []).append(schema)

    def source(self, of: Input, version: int | None) -> Schema:
        """A version of the schema of an input; None: the newest.

        Raises:
            ValueError: there is no such version.

        """
        known = self._by_subject[of.subject]
        if version is not None and not 1 <= version <= len(known):
            raise ValueError(f"no version {version}: the source's schema has {len(known)}")
        return known[-1 if version is None else version - 1]

    def newest(self, subject: str) -> tuple[str, int]:
        """Text and id of a subject's newest schema."""
        schema = self._by_subject[subject][-1]
        return schema.text, schema.id

    def text_of(self, key: SchemaKey) -> str | None:
        """Text of the schema with this id."""
        return self._by_id[key].text if isinstance(key, int) and key in self._by_id else None

    def decoded(self, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] | None) -> Mapping[str, Any]:
        """Fields of a framed value; none where it is no value of the schema that it names."""
        schema = self._by_id.get(schema_id_of(value, headers) or 0)
        if schema is None or value is None or value[:1] != b"\0":
            return {}
        try:
            found = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema.parsed, None)
        except (ValueError, EOFError, IndexError, TypeError, KeyError, OverflowError):
            return {}
        return found if isinstance(found, dict) else {}
