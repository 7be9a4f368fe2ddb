"""The reference of the Python API: the public names of `streams` and `streams.testing`, by subject, from docstrings.

mkdocstrings reads the sources; here is only which name stands on which page.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import streams
import streams.testing

SUBJECTS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "flows": ("Flows", ("streams.flow.",)),
    "operators": (
        "Operators",
        ("streams.operators.base", "streams.operators.spec", "streams.operators.changes", "streams.operators.keyed",
         "streams.operators.output", "streams.operators.trace", "streams.batch.", "streams.state."),
    ),
    "folds": ("Folds and windows", ("streams.operators.fold.",)),
    "sinks": ("Sinks", ("streams.sinks.",)),
    "errors": ("Errors", ("streams.errors",)),
}  # fmt: skip
"""Pages by name: the title, and the modules whose public names they have."""
TESTING: Final = "testing"


class NameWithoutPage(Exception):
    """A public name whose module is on no page: add it to `SUBJECTS`."""


def pages() -> Iterator[tuple[str, str, str]]:
    """Name, title and Markdown of each page."""
    for name, (title, _) in SUBJECTS.items():
        found = sorted(public for public in homes() if subject_of(homes()[public]) == name)
        yield name, title, _page(title, "streams", [f"{homes()[public]}.{public}" for public in found])
    tested = sorted(streams.testing.__all__)
    yield TESTING, "Tests", _page("Tests", "streams.testing", [f"streams.testing.driver.{one}" for one in tested])


def homes() -> dict[str, str]:
    """The module that defines each public name of `streams`."""
    return dict(streams._HOMES)  # noqa: SLF001 - a list of the public names with their modules


def subject_of(module: str) -> str:
    """The page of a module.

    Raises:
        NameWithoutPage: it is on none.

    """
    for name, (_, modules) in SUBJECTS.items():
        if module.startswith(modules):
            return name
    raise NameWithoutPage(module)


def _page(title: str, module: str, names: list[str]) -> str:
    lines = [f"# {title}", "", f"What `from {module} import ...` offers. Other names of a module may change.", ""]
    for name in names:
        lines += [f"::: {name}", ""]
    return "\n".join(lines)
