"""Compatibility of Avro schemas, offline: the verdict, and why.

The verdict is that of the `avro` package (Apache's own; the rules that Confluent's and Apicurio's registries apply in
Java). It says that two schemas are incompatible, but not which reason belongs to which place: reasons, messages and
locations are unordered sets. So this module asks it again for each part, from the schema down to the fields, and
describes each refusal. A schema that is refused as a whole but in no part is reported so; nothing is accepted that the
package refuses.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import avro.errors
import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from streams.schemas.gate.findings import Rule
from streams.schemas.gate.logical import difference, unit
from streams.schemas.located import ITEMS, VALUES

Schema = Any
"""A schema as the `avro` package parses it."""


class InvalidSchema(Exception):
    """Not a schema by the rules of the `avro` package; the message says why."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A place where a reader cannot read what a writer writes."""

    path: tuple[str, ...]
    rule: Rule
    reader: str
    """What the reader's schema has there, in words."""
    writer: str
    other: str = ""
    """A further name: the field's possible earlier name, the symbols, the branch."""


def parsed(text: str) -> Schema:
    """A schema for `can_read` and `misfits`.

    Raises:
        InvalidSchema: it is none.

    """
    try:
        schema = json.loads(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", avro.errors.IgnoredLogicalType)  # lint checks them
            return avro.schema.parse(json.dumps(_with_full_aliases(schema)))
    except (avro.errors.AvroException, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidSchema(" ".join(str(error).split())[:300] or type(error).__name__) from None


def can_read(reader: Schema, writer: Schema) -> bool:
    """Whether every value of `writer` can be read as one of `reader`, by Avro's rules."""
    found = ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)  # type: ignore[no-untyped-call]
    return bool(found.compatibility is SchemaCompatibilityType.compatible)


def misfits(reader: Schema, writer: Schema) -> list[Misfit]:
    """Why `reader` cannot read `writer`; empty exactly if it can."""
    if can_read(reader, writer):
        return []
    found = list(dict.fromkeys(_misfits(reader, writer, (), frozenset())))
    return found or [Misfit((), Rule.TYPE_MISMATCH, _words(reader), _words(writer))]


def _misfits(
    reader: Schema, writer: Schema, path: tuple[str, ...], above: frozenset[tuple[int, int]]
) -> Iterator[Misfit]:
    pair = (id(reader), id(writer))
    if pair in above or can_read(reader, writer):
        return
    above |= {pair}
    if writer.type == "union":
        for branch in writer.schemas:
            yield from _misfits(reader, branch, path, above)
    elif reader.type == "union":
        alike = next((branch for branch in reader.schemas if _are_alike(branch, writer)), None)
        if alike is None:
            yield Misfit(path, Rule.MISSING_BRANCH, _words(reader), _words(writer), _words(writer))
        else:
            yield from _misfits(alike, writer, path, above)
    elif reader.type != writer.type:
        yield Misfit(path, Rule.TYPE_MISMATCH, _words(reader), _words(writer))
    elif reader.type == "array":
        yield from _misfits(reader.items, writer.items, (*path, ITEMS), above)
    elif reader.type == "map":
        yield from _misfits(reader.values, writer.values, (*path, VALUES), above)
    else:
        yield from _misfits_of_named(reader, writer, path, above)


def _misfits_of_named(
    reader: Schema, writer: Schema, path: tuple[str, ...], above: frozenset[tuple[int, int]]
) -> Iterator[Misfit]:
    if reader.name != writer.name and writer.fullname not in reader.props.get("aliases", ()):
        yield Misfit(path, Rule.NAME_MISMATCH, _words(reader), _words(writer), writer.name)
    if reader.type == "fixed" and reader.size != writer.size:
        yield Misfit(path, Rule.SIZE_MISMATCH, f"{reader.size} bytes", f"{writer.size} bytes")
    if reader.type == "enum" and reader.props.get("default") not in reader.symbols:
        missing = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
        if missing:
            yield Misfit(path, Rule.MISSING_SYMBOLS, _words(reader), _words(writer), ", ".join(missing))
    if reader.type == "record":
        yield from _misfits_of_fields(reader, writer, path, above)


def _misfits_of_fields(
    reader: Schema, writer: Schema, path: tuple[str, ...], above: frozenset[tuple[int, int]]
) -> Iterator[Misfit]:
    written = writer.fields_dict
    matched = {each.name: _written_name(each, written) for each in reader.fields}
    for field in reader.fields:
        name = matched[field.name]
        if name is not None:
            yield from _misfits(field.type, written[name].type, (*path, field.name), above)
        elif not field.has_default:
            unread = [each for each in writer.fields if each.name not in matched.values()]
            former = next((each.name for each in unread if can_read(field.type, each.type)), "")
            yield Misfit((*path, field.name), Rule.MISSING_DEFAULT, _words(field.type), "nothing", former)


def _written_name(field: Schema, written: Any) -> str | None:
    """Name of the writer's field that a reader's field reads."""
    return next((str(name) for name in (field.name, *field.props.get("aliases", ())) if name in written), None)


def _are_alike(reader: Schema, writer: Schema) -> bool:
    """Whether a branch is meant to read a type: of the same kind, and for named types of the same name."""
    if reader.type != writer.type:
        return False
    named = reader.type in {"record", "enum", "fixed"}
    return not named or reader.name == writer.name or writer.fullname in reader.props.get("aliases", ())


def changed_meanings(reader: Schema, writer: Schema) -> list[Misfit]:
    """Values that Avro's rules allow to be read, but with another meaning.

    The logical types differ in unit, scale or zone, also where the stored type is promoted or is a branch of a union;
    or text is read as the bytes of a number.
    """
    return list(dict.fromkeys(
        Misfit(path, Rule.MEANING_CHANGED, _meaning(read), _meaning(written))
        for path, read, written in _leaves(reader, writer, _possible_branches)
        if _is_another_meaning(written, read)
    ))  # fmt: skip


def _leaves(
    reader: Schema,
    writer: Schema,
    branches: Callable[[Schema, Schema], Iterator[tuple[Schema, Schema]]],
    path: tuple[str, ...] = (),
    above: frozenset[tuple[int, int]] = frozenset(),
) -> Iterator[tuple[tuple[str, ...], Schema, Schema]]:
    """Places where two schemas have types without parts of the same kind; `branches` pairs a union's branches."""
    pair = (id(reader), id(writer))
    if pair in above:
        return
    above |= {pair}
    if "union" in {reader.type, writer.type}:
        for left, right in branches(reader, writer):
            yield from _leaves(left, right, branches, path, above)
    elif reader.type == writer.type == "array":
        yield from _leaves(reader.items, writer.items, branches, (*path, ITEMS), above)
    elif reader.type == writer.type == "map":
        yield from _leaves(reader.values, writer.values, branches, (*path, VALUES), above)
    elif reader.type == writer.type == "record":
        for field in reader.fields:
            name = _written_name(field, writer.fields_dict)
            if name is not None:
                yield from _leaves(field.type, writer.fields_dict[name].type, branches, (*path, field.name), above)
    else:
        yield path, reader, writer


def _possible_branches(reader: Schema, writer: Schema) -> Iterator[tuple[Schema, Schema]]:
    """Each branch that may have been written, with the branches that may be read.

    Avro takes the reader's first branch to which the writer's type can be promoted; Java's library prefers a branch of
    the same type. Both are looked at.
    """
    readers = reader.schemas if reader.type == "union" else (reader,)
    for written in writer.schemas if writer.type == "union" else (writer,):
        first = next((branch for branch in readers if can_read(branch, written)), None)
        alike = next((branch for branch in readers if _are_alike(branch, written)), None)
        if first is not None:
            yield first, written
        if alike is not None and alike is not first:
            yield alike, written


def _is_another_meaning(writer: Schema, reader: Schema) -> bool:
    if not can_read(reader, writer):
        return False  # reported already, by Avro's rules
    return difference(*({**each.props, "type": str(each.type)} for each in (writer, reader))) is not None


def _meaning(schema: Schema) -> str:
    """What a type stores, in words: its logical type, if it has one."""
    return unit({**schema.props, "type": str(schema.type)}) or _words(schema)


def texts_of_bytes(reader: Schema, writer: Schema) -> list[Misfit]:
    """Where bytes are read as a string: allowed, but not every byte string is UTF-8."""
    return list(dict.fromkeys(
        Misfit(path, Rule.TEXT_OF_BYTES, "string", "bytes")
        for path, here, there in _leaves(reader, writer, _read_branches)
        if (here.type, there.type) == ("string", "bytes")
    ))  # fmt: skip


def _read_branches(reader: Schema, writer: Schema) -> Iterator[tuple[Schema, Schema]]:
    """Each branch that may have been written, with the first one of the reader that takes it."""
    if writer.type == "union":
        yield from ((reader, branch) for branch in writer.schemas)
    else:
        first = next((branch for branch in reader.schemas if can_read(branch, writer)), None)
        if first is not None:
            yield first, writer


def _words(schema: Schema) -> str:
    """A type in words."""
    match schema.type:
        case "union":
            return f"one of {', '.join(_words(branch) for branch in schema.schemas)}"
        case "array":
            return f"array of {_words(schema.items)}"
        case "map":
            return f"map of {_words(schema.values)}"
        case "record" | "enum" | "fixed":
            return f"{schema.type} {schema.name}"
        case kind:
            return str(kind)


def _with_full_aliases(schema: Any, namespace: str = "") -> Any:
    """The schema with its types' aliases written out in full: the `avro` package (1.12) compares them literally."""
    if isinstance(schema, list):
        return [_with_full_aliases(branch, namespace) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    full = dict(schema)
    if schema.get("type") in ("record", "error", "enum", "fixed"):  # a list is no member of a set
        before, _, _ = str(schema.get("name", "")).rpartition(".")
        namespace = before or str(schema.get("namespace") or namespace)
        aliases = schema.get("aliases")
        if isinstance(aliases, list):
            full["aliases"] = [a if "." in str(a) or not namespace else f"{namespace}.{a}" for a in aliases]
    for part in ("type", "items", "values"):
        if isinstance(schema.get(part), dict | list):
            full[part] = _with_full_aliases(schema[part], namespace)
    if isinstance(schema.get("fields"), list):
        full["fields"] = [_with_full_aliases(field, namespace) for field in schema["fields"]]
    return full
