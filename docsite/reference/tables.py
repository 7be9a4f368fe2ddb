"""Tables of Markdown."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

_ENTITIES: Final = re.compile(r"[&<>*_`\\[\]|]")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table whose first column has names; bars and line ends in cells are escaped."""
    return [
        '<div class="names" markdown>',
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(map(_cell, row))} |" for row in rows),
        "",
        "</div>",
        "",
    ]


def code(text: str) -> str:
    """Text as code, also in a cell of a table: what Markdown would take for its own is written as an entity.

    A long name may be broken after an underscore.
    """
    escaped = _ENTITIES.sub(lambda found: f"&#{ord(found[0])};", text)
    return f"<code>{escaped.replace('&#95;', '&#95;<wbr>')}</code>" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;")
