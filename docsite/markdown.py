"""Markdown of GitHub to that of Python-Markdown: what the two read differently, and links that leave `docs/`."""

import re
from collections.abc import Callable, Iterator
from typing import Final

from docsite.reference.tables import code as as_code

_FENCE: Final = re.compile(r"^ *(```|~~~)")
_ITEM: Final = re.compile(r"^( *)(?:[-*]|\d+\.) +\S")
_LINK: Final = re.compile(r"(?<!\\)(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"(`+)(.+?)\1")
_NESTED: Final = 4
"""Spaces by which Python-Markdown wants what belongs to an item of a list."""


def for_the_site(text: str, link: Callable[[str, str, str], str]) -> str:
    """A page as the site's renderer reads it.

    `link` gets the mark of an image (`!` or nothing), text and target of each link outside code, and returns what
    stands there instead.
    """
    return "\n".join(_linked(_lists(text.split("\n")), link))


def _linked(lines: Iterator[str], link: Callable[[str, str, str], str]) -> Iterator[str]:
    fenced = False
    for line in lines:
        if _FENCE.match(line):
            fenced = not fenced
        if fenced or _FENCE.match(line):
            yield line
        else:
            yield _outside_code(_bars(line), lambda part: _LINK.sub(lambda m: link(m[1], m[2], m[3]), part))


def _outside_code(line: str, change: Callable[[str], str]) -> str:
    """Change a line but for its code; code within the text of a link is kept by a placeholder of its own."""
    codes: list[str] = []

    def hide(found: re.Match[str]) -> str:
        codes.append(found[0])
        return f"\0{len(codes) - 1}\0"

    changed = change(_CODE.sub(hide, line))
    return re.sub("\0(\\d+)\0", lambda m: codes[int(m[1])], changed)


def _bars(line: str) -> str:
    r"""`a\|b` in code of a table: Python-Markdown would show the backslash."""
    if not line.lstrip().startswith("|") or "\\|" not in line:
        return line

    def plain(found: re.Match[str]) -> str:
        code = found[2].strip()
        if "\\|" not in code:
            return found[0]
        return as_code(code.replace("\\|", "|"))

    return _CODE.sub(plain, line)


def _lists(lines: list[str]) -> Iterator[str]:
    """Lists begin after an empty line, and what belongs to an item is indented by four spaces for each level."""
    fence_indent: int | None = None
    levels: list[tuple[int, int]] = []
    """For each open list: the columns at which its items and their text begin."""
    before = ""
    for line in lines:
        indent = len(line) - len(line.lstrip(" "))
        if fence_indent is not None:
            yield _moved(line, fence_indent, levels)
            if _FENCE.match(line):
                fence_indent = None
            before = line
            continue
        item = _ITEM.match(line)
        if line.strip() and not item:
            while levels and indent < levels[-1][1] and (not before.strip() or _FENCE.match(line)):
                levels.pop()
        if item:
            while levels and indent < levels[-1][0]:
                levels.pop()
            opens = not levels or indent >= levels[-1][1]
            if opens:
                if before.strip() and not levels:
                    yield ""
                levels.append((indent, indent + len(line[indent:]) - len(line[indent:].split(" ", 1)[1].lstrip())))
            yield " " * (_NESTED * (len(levels) - 1)) + line[indent:]
        elif _FENCE.match(line):
            fence_indent = indent
            yield _moved(line, indent, levels)
        elif levels and line.strip():
            yield " " * (_NESTED * len(levels)) + line.lstrip(" ")
        else:
            yield line
        before = line


def _moved(line: str, indent: int, levels: list[tuple[int, int]]) -> str:
    """A line of a code block within an item."""
    if not levels or not line.strip():
        return line
    return " " * (_NESTED * len(levels)) + line[min(indent, len(line) - len(line.lstrip(" "))) :]
