"""Prose of pages and of docstrings: text with the line that it is on, code left out."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

_OFF = re.compile(r"<!-- words: off -->.*?<!-- words: on -->", re.DOTALL)
_CODE = re.compile(r"(`+).+?\1", re.DOTALL)
_PLACE_OF_CODE = "(code)"
_INDENTED = re.compile(r"^(?: {4,}|>>> ).*$", re.MULTILINE)


class Passage(NamedTuple):
    """A piece of prose."""

    file: Path
    line: int
    text: str


def of_page(page: Path) -> Iterator[Passage]:
    """Paragraphs, headings, items and cells of a page; code and addresses are left out."""
    text = _OFF.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))
    line = 1
    for token in MarkdownIt().enable("table").parse(text):
        line = token.map[0] + 1 if token.map else line
        if token.type == "inline":
            words = "".join(_words_of(child) for child in token.children or ()).strip()
            if words:
                yield Passage(page, line, words)


def _words_of(token: Token) -> str:
    match token.type:
        case "text":
            return token.content
        case "softbreak":
            return " "
        case "code_inline":
            return _PLACE_OF_CODE
        case _:
            return ""


def of_module(module: Path) -> Iterator[Passage]:
    """Docstrings of a module, its classes and functions, and those after constants and fields."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))) if not text.isspace():
                prose = _INDENTED.sub("", _CODE.sub(" ", inspect.cleandoc(text)))
                yield Passage(module, node.lineno, " ".join(prose.split()))
