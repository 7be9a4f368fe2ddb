"""The reference of settings: name, type, bounds and default from `Settings`, meaning from `docs/settings.md`."""

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr

from docsite.reference.tables import code, table
from streams.settings import Settings

_ROW = re.compile(r"^\| ((?:`[A-Z_<>*]+`(?:, )?)+) \| (.*?) \| (.*) \|$", re.MULTILINE)


def page(root: Path) -> str:
    """The page as Markdown; `root` is the folder of the project."""
    said = meanings((root / "docs" / "settings.md").read_text(encoding="utf-8"))
    rows = [
        (code(name.upper()), _described(_meaning(name, said), field)) for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# All settings",
            "",
            "Every environment variable, as `Settings` declares and checks it. [Settings](../settings.md) explains",
            "secrets from files, options of the Kafka client, and what is read when. A secret `X` may be given as",
            "`X_FILE`, the path of a file that holds it.",
            "",
            *table(("variable", "meaning, type, bounds, default"), rows),
        ]
    )


def meanings(text: str) -> dict[str, str]:
    """What a page of settings says of each variable or pattern of variables."""
    return {name: meaning for names, _, meaning in _ROW.findall(text) for name in re.findall(r"`([A-Z_*]+)", names)}


def _meaning(name: str, said: dict[str, str]) -> str:
    found = next((text for pattern, text in said.items() if fnmatch.fnmatch(name.upper(), pattern)), "")
    return re.sub(r"\]\((?!\w+:)([^)]*)\)", r"](../\1)", found.replace("\\|", "|"))


def _described(meaning: str, field: Any) -> str:
    kind = ", ".join(part for part in (_type(field.annotation), _bounds(field.metadata)) if part)
    return "<br>".join(part for part in (meaning, f"<small>{kind}; default {_default(field)}</small>") if part)


def _type(annotation: Any) -> str:
    return ", ".join(dict.fromkeys(_names(annotation)))


def _names(annotation: Any) -> Iterator[str]:
    if annotation is type(None):
        return
    if get_origin(annotation) is Literal:
        yield from (code(str(value)) for value in get_args(annotation))
    elif get_args(annotation):
        for one in get_args(annotation):
            yield from _names(one)
    else:
        yield {SecretStr: "secret", str: "text", int: "whole number", float: "number", bool: "true or false"}.get(
            annotation, "path" if annotation is Path else str(annotation)
        )


def _bounds(metadata: list[Any]) -> str:
    words = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
    found = [
        text.format(f"{value:,}")
        for one in metadata
        for name, text in words.items()
        if (value := getattr(one, name, None)) is not None
    ]
    for one in metadata:
        if getattr(one, "min_length", None):
            found.append(f"at least {one.min_length} characters")
        if getattr(one, "max_length", None):
            found.append(f"at most {one.max_length:,} characters")
        if getattr(one, "pattern", None):
            found.append(code(one.pattern))
    return ", ".join(found)


def _default(field: Any) -> str:
    value = field.default
    if value is None or value == "":
        return "none"
    return code(str(value).lower() if isinstance(value, bool) else str(value))
