"""Which values of a writer's type can be read as a reader's type: Avro's schema resolution, as in fastavro.

All schemas here are as `fastavro.parse_schema` gives them: names and references in full; logical types are off.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Any

PROMOTIONS: Final[Mapping[str, frozenset[str]]] = {
    "int": frozenset({"int", "long", "float", "double"}),
    "long": frozenset({"long", "float", "double"}),
    "float": frozenset({"float", "double"}),
    "double": frozenset({"double"}),
    "string": frozenset({"string"}),
    "boolean": frozenset({"boolean"}),
}
"""Types of simple columns, and what each may be read as by a cast."""
_ALWAYS: Final[Mapping[str, frozenset[str]]] = {
    **PROMOTIONS,
    "string": frozenset({"string", "bytes"}),
    "bytes": frozenset({"bytes"}),
    "null": frozenset({"null"}),
}
"""What each primitive type can always be read as; not bytes as string, which may not be UTF-8."""


class Types:
    """The named types of a writer's and a reader's schema, to follow references."""

    def __init__(self, writer: Schema, reader: Schema) -> None:
        self._writer = {each["name"]: each for each in named_types(writer)}
        self._reader = {each["name"]: each for each in named_types(reader)}

    def written(self, schema: Schema) -> Schema:
        """A type of the writer, references followed."""
        return self._writer.get(schema, schema) if isinstance(schema, str) else schema

    def read(self, schema: Schema) -> Schema:
        """A type of the reader, references followed."""
        return self._reader.get(schema, schema) if isinstance(schema, str) else schema


def last_name(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition(".")[2]


def kind_of(schema: Schema) -> str:
    """Name of a type."""
    if isinstance(schema, list):
        return "union"
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def is_named_for(writer: Schema, reader: Schema) -> bool:
    """Whether a reader's named type matches a writer's: the same name, ignoring namespaces, or an alias."""
    name, aliases = writer["name"], reader.get("aliases", ())
    return last_name(name) == last_name(reader["name"]) or name in aliases or last_name(name) in aliases


def resolves(writer: Schema, reader: Schema, types: Types) -> bool:  # noqa: PLR0911 - one for each kind of type
    """Whether every value of `writer` can be read as `reader`, apart from strings that are not UTF-8. In doubt: no.

    Neither may contain itself.
    """
    writer, reader = types.written(writer), types.read(reader)
    if isinstance(writer, list):
        return all(resolves(branch, reader, types) for branch in writer)
    if isinstance(reader, list):
        first = first_choice(writer, reader, types)
        return first is not None and resolves(writer, first, types)
    written, read = kind_of(writer), kind_of(reader)
    if written in _ALWAYS:
        return read in _ALWAYS[written]
    if written != read:
        return False
    match written:
        case "array":
            return resolves(writer["items"], reader["items"], types)
        case "map":
            return resolves(writer["values"], reader["values"], types)
        case "fixed":
            return is_named_for(writer, reader) and bool(writer["size"] == reader["size"])
        case "enum":
            known = set(writer["symbols"]) <= set(reader["symbols"]) or reader.get("default") in reader["symbols"]
            return is_named_for(writer, reader) and known
        case "record":
            return is_named_for(writer, reader) and _fields_resolve(writer, reader, types)
        case _:
            return False


def first_choice(writer: Schema, reader: list[Schema], types: Types) -> Schema | None:
    """The branch of a reader's union that a type (no union) is read as; None when there is none."""
    return next((read for read in map(types.read, reader) if _is_first_choice(writer, read)), None)


def _is_first_choice(writer: Schema, reader: Schema) -> bool:
    """Whether a branch is chosen for a type, without looking into it."""
    written, read = kind_of(writer), kind_of(reader)
    if written in _ALWAYS:
        return read in _ALWAYS[written] or (written == "bytes" and read == "string")
    return written == read and (written in {"array", "map"} or is_named_for(writer, reader))


def _fields_resolve(writer: Schema, reader: Schema, types: Types) -> bool:
    return all(
        "default" in field if written is None else resolves(written["type"], field["type"], types)
        for written, field in matched_fields(writer, reader)
    )


def matched_fields(writer: Schema, reader: Schema) -> Iterator[tuple[Schema | None, Schema]]:
    """The reader's fields, each with the writer's field that it is read from."""
    written = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        name = next((n for n in (field["name"], *field.get("aliases", ())) if n in written), None)
        yield (None if name is None else written[name]), field


def may_skip(writer: Schema, reader: Schema) -> bool:
    """Whether some field of a writer's record may be missing in the reader's record. In doubt: yes."""
    readers = [each for each in named_types(reader) if each["type"] == "record"]
    for written in named_types(writer):
        if written["type"] != "record":
            continue
        names = {field["name"] for field in written["fields"]}
        pairs = [read for read in readers if is_named_for(written, read)]
        known = [{each["name"] for each, _ in matched_fields(written, read) if each is not None} for read in pairs]
        if not known or any(names - each for each in known):
            return True
    return False


def unexpected_fields(writer: Schema, reader: Schema) -> tuple[str, ...]:
    """Paths of the writer's fields that the reader does not know, in the writer's order.

    Neither may contain itself.
    """
    return tuple(dict.fromkeys(_unexpected(writer, reader, "", Types(writer, reader))))


def _unexpected(writer: Schema, reader: Schema, path: str, types: Types) -> Iterator[str]:
    writer, reader = types.written(writer), types.read(reader)
    if isinstance(writer, list) or isinstance(reader, list):
        readers = reader if isinstance(reader, list) else [reader]
        for branch in map(types.written, writer if isinstance(writer, list) else [writer]):
            chosen = first_choice(branch, readers, types)
            if chosen is not None:
                yield from _unexpected(branch, chosen, path, types)
        return
    written = kind_of(writer)
    if written != kind_of(reader):
        return
    match written:
        case "array":
            yield from _unexpected(writer["items"], reader["items"], f"{path}[]", types)
        case "map":
            yield from _unexpected(writer["values"], reader["values"], f"{path}{{}}", types)
        case "record":
            known = {w["name"]: field for w, field in matched_fields(writer, reader) if w is not None}
            for field in writer["fields"]:
                name = f"{path}.{field['name']}" if path else str(field["name"])
                if field["name"] in known:
                    yield from _unexpected(field["type"], known[field["name"]]["type"], name, types)
                else:
                    yield name


def unshadowed(writer: Schema, reader: Schema) -> Schema:
    """The reader with only those field aliases that are needed to read the writer.

    A field's own name takes precedence over its aliases, and the first alias over the others; fastavro fails on a
    writer that has more than one of them.
    """
    found = copy.deepcopy(reader)
    records = [each for each in named_types(writer) if each["type"] == "record"]
    for read in named_types(found):
        if read["type"] != "record":
            continue
        names = {f["name"] for written in records if is_named_for(written, read) for f in written["fields"]}
        for field in read["fields"]:
            if "aliases" in field:
                needed = [alias for alias in field["aliases"] if alias in names and field["name"] not in names]
                field["aliases"] = needed[:1]
    return found


def named_types(schema: Schema) -> Iterator[dict[str, Any]]:
    """Every named type that is defined in a schema."""
    if isinstance(schema, list):
        for branch in schema:
            yield from named_types(branch)
    elif isinstance(schema, dict):
        if schema.get("type") in ("record", "enum", "fixed") and "name" in schema:
            yield schema
        for field in schema.get("fields", ()):
            yield from named_types(field["type"])
        for part in ("type", "items", "values"):
            if isinstance(schema.get(part), dict | list):
                yield from named_types(schema[part])
