"""What the gateway takes and answers, as an OpenAPI 3.1 document made of the schemas, and as a page."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streams import __version__
from streams.gateway.sources import Source
from streams.ingest.fields import Field, Kind

_TYPES: Final[Mapping[Kind, dict[str, Any]]] = {
    Kind.TEXT: {"type": "string"},
    Kind.LONG: {"type": "integer", "format": "int64"},
    Kind.INT: {"type": "integer", "format": "int32"},
    Kind.DOUBLE: {"type": "number"},
    Kind.FLOAT: {"type": "number"},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.TIME: {"oneOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "format": "int64"}]},
    Kind.ENUM: {"type": "string"},
}
_STYLE: Final = (
    "body{font:16px system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "td,th{text-align:left;padding:.2rem .8rem .2rem 0}"
)
_ANSWERS: Final[Mapping[str, str]] = {
    "202": "Every record is acknowledged by Kafka, or a duplicate of another one of the request.",
    "401": "No credential, or none that is known.",
    "403": "The credential is for other sources.",
    "404": "There is no such source or format.",
    "408": "The body did not arrive in time.",
    "409": "A signed request was taken before.",
    "413": "The body, or the number of records, is too large.",
    "415": "Content-Type, Content-Encoding or charset is not read.",
    "422": "At least one record is no event: it is a dead letter. The others are acknowledged.",
    "429": "The sender is too fast, or has to pause. Retry-After says for how long.",
    "503": "Kafka does not acknowledge, or too much is under way. Send again after Retry-After, with the same ids.",
}
_RESULT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["accepted", "duplicates", "rejected", "results"],
    "properties": {
        "accepted": {"type": "integer"},
        "duplicates": {"type": "integer"},
        "rejected": {"type": "integer"},
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "status"],
                "properties": {
                    "index": {"type": "integer"},
                    "status": {"enum": ["accepted", "duplicate", "rejected"]},
                    "event_id": {"type": ["string", "null"]},
                    "reason": {"type": "string"},
                    "message": {"type": "string"},
                    "pointer": {"type": "string"},
                    "dead_letter": {"type": "string"},
                },
            },
        },
    },
}
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}


def openapi(sources: Sequence[Source], formats: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The document. `formats`: names and titles of the formats of devices."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Events", "version": __version__},
        "paths": {f"/v1/events/{source.name}": {"post": _operation(source, formats)} for source in sources},
        "components": {
            "schemas": {
                "Result": _RESULT,
                "Problem": _PROBLEM,
                **{_component(source): _event(source) for source in sources},
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic", "description": "The token as the password."},
                "signature": {
                    "type": "apiKey", "in": "header", "name": "webhook-signature",
                    "description": "Standard Webhooks, with webhook-id and webhook-timestamp.",
                },
            },
        },
        "security": [{"token": []}, {"password": []}, {"signature": []}],
    }  # fmt: skip


def page(document: Mapping[str, Any]) -> str:
    """Return the OpenAPI document as a page to read."""
    parts = []
    for path, methods in document["paths"].items():
        name = path.rpartition("/")[2]
        schema = document["components"]["schemas"][name]
        rows = "".join(
            _row(field, _type_words(of), "yes" if field in schema["required"] else "", of.get("description", ""))
            for field, of in schema["properties"].items()
        )
        answers = "".join(_row(status, of["description"]) for status, of in methods["post"]["responses"].items())
        parts.append(
            f"<h2><code>POST {html.escape(path)}</code></h2><p>{html.escape(methods['post']['description'])}</p>"
            f"<table><tr><th>field</th><th>type</th><th>required</th><th></th></tr>{rows}</table>"
            f"<table><tr><th>status</th><th></th></tr>{answers}</table>"
        )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Events</title><style>{_STYLE}</style>'
        f'<h1>Events</h1><p>As OpenAPI: <a href="/openapi.json">/openapi.json</a></p>{"".join(parts)}</html>'
    )


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _type_words(of: Mapping[str, Any]) -> str:
    if "enum" in of:
        return ", ".join(word for word in of["enum"] if word is not None)
    if "oneOf" in of:
        return "ISO 8601, or a number since 1970"
    kind = of.get("type", "")
    return kind if isinstance(kind, str) else " or ".join(kind)


def _component(source: Source) -> str:
    return source.name


def _operation(source: Source, formats: Sequence[tuple[str, str]]) -> dict[str, Any]:
    one = {"$ref": f"#/components/schemas/{_component(source)}"}
    parameters: list[dict[str, Any]] = [
        {
            "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 256},
            "description": "Gives records without an id one: a request that is sent again with it is the same events.",
        },
        {
            "name": "Prefer", "in": "header", "schema": {"const": "return=minimal"},
            "description": "Leave records that were accepted out of the results.",
        },
    ]  # fmt: skip
    if formats:
        parameters.append(
            {
                "name": "format", "in": "query", "schema": {"enum": [name for name, _ in formats]},
                "description": "The body is that of a device: " + ", ".join(title for _, title in formats),
            }
        )  # fmt: skip
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    result = {"application/json": {"schema": {"$ref": "#/components/schemas/Result"}}}
    return {
        "operationId": f"send.{source.name}",
        "description": f"Events for {source.name}: one, an array, one a line (NDJSON), or Avro; also gzip.",
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"oneOf": [one, {"type": "array", "items": one}]}},
                "application/x-ndjson": {"schema": one},
                "application/avro": {"schema": {"type": "string", "contentEncoding": "binary"}},
            },
        },
        "responses": {
            status: {"description": words, "content": result if status in {"202", "422"} else problem}
            for status, words in _ANSWERS.items()
        },
    }


def _event(source: Source) -> dict[str, Any]:
    docs = {field["name"]: field.get("doc", "") for field in source.schema.parsed["fields"]}
    filled = {source.pipeline.id_field, source.pipeline.sequence_field}
    required = [
        field.name for field in source.fields if not (field.nullable or field.has_default or field.name in filled)
    ]
    properties = {field.name: _property(field, docs[field.name]) for field in source.fields}
    return {"type": "object", "required": required, "properties": properties}


def _property(field: Field, doc: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(_TYPES[field.kind])
    if field.symbols:
        found["enum"] = [*field.symbols, *([None] if field.nullable else [])]
    if field.nullable and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    if field.has_default:
        found["default"] = field.default
    if doc:
        found["description"] = doc
    return found
