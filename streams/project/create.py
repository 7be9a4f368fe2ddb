"""Writes a new project from the templates: a flow, its schemas, its test, and what builds, checks and ships them."""

import importlib.util
import keyword
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streams import __version__
from streams.errors import StreamsError, UsageError
from streams.schemas.catalog import Catalog
from streams.schemas.lock import write_lock

DISTRIBUTION: Final = "logistics-streams"
"""Name of this library on the package index; the command and the module are called `streams`."""
_TEMPLATE: Final = Path(__file__).parent / "template"
_SUFFIX: Final = ".template"
_HIDDEN: Final = "dot_"
_PACKAGE: Final = "package"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_NAME_CHARACTERS_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Project:
    """A project that was written."""

    name: str
    package: str
    directory: Path
    files: tuple[Path, ...]
    """Paths below `directory`."""


def create_project(directory: Path) -> Project:
    """Write a new project into `directory`, which is called as the project is; what is there is never touched.

    Raises:
        UsageError: the name cannot be one of a project and of its package, or the directory is not empty.
        StreamsError: a file cannot be written.

    """
    name = directory.absolute().name
    package = _package_of(name)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is there already: nothing was written")
    words = {
        "__project__": name,
        "__package__": package,
        "__distribution__": DISTRIBUTION,
        "__version__": __version__,
    }
    files = [(_path_of(template, package), _filled(template, words)) for template in _templates()]
    for path, text in files:
        _write(directory / path, text)
    schemas = Catalog.load(directory / "schemas")
    added = write_lock(schemas, {})
    locked = [] if not added else [Path("schemas") / "versions.lock"]
    return Project(name, package, directory, tuple(sorted([path for path, _ in files] + locked)))


def _package_of(name: str) -> str:
    """Name of the package of a project.

    Raises:
        UsageError: there is none that works.

    """
    if not _NAME.fullmatch(name) or len(name) > _NAME_CHARACTERS_MAX:
        raise UsageError(
            f"{name!r} is no name of a project: lower-case letters, digits, - and _ between them, beginning with a "
            f"letter, at most {_NAME_CHARACTERS_MAX}, such as warehouse"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or _is_installed(package):
        raise UsageError(f"{name!r}: Python has a module {package!r} already, which would hide the project's package")
    return package


def _is_installed(package: str) -> bool:
    """Whether a module of this name is found; a folder without `__init__.py`, such as the project's own, is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def _templates() -> Iterator[Path]:
    """Templates, by their path below the folder of templates."""
    for path in sorted(_TEMPLATE.rglob(f"*{_SUFFIX}")):
        yield path.relative_to(_TEMPLATE)


def _path_of(template: Path, package: str) -> Path:
    parts = [part.replace(_HIDDEN, ".", 1) if part.startswith(_HIDDEN) else part for part in template.parts]
    if parts[0] == _PACKAGE:
        parts[0] = package
    return Path(*parts[:-1], parts[-1].removesuffix(_SUFFIX))


def _filled(template: Path, words: dict[str, str]) -> str:
    text = (_TEMPLATE / template).read_text(encoding="utf-8")
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StreamsError(f"{path}: cannot be written: {error.strerror or error}") from None
