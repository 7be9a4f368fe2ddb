"""Code blocks of the pages, and the command lines in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typer.main import get_command

from streams.cli import app

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "loadtest").rglob("README.md")])
_BLOCK: Final = re.compile(r"^( *)```([a-z]*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE: Final = re.compile(r"(?<!`)`(streams [^`]+)`(?!`)")
_SEPARATORS: Final = frozenset({"|", "||", "&&", ";", "&"})
_PROMPT: Final = "$ "
_PLACEHOLDER: Final = re.compile(r"[A-Z][A-Z0-9_-]*|<[a-z ]+>|\.\.\.")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, without their indentation."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        body = re.sub(rf"^ {{0,{len(found[1])}}}", "", found[3], flags=re.MULTILINE)
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[2], body)


def command_lines(block: Block) -> Iterator[list[str]]:
    """Words of each `streams ...` in a block of commands, after its name."""
    text = block.text.replace("\\\n", " ")
    has_prompt = any(line.startswith(_PROMPT) for line in text.splitlines())
    for line in text.splitlines():
        if not re.search(r"(?:^|[\s/$(])streams +[a-z-]", line) or (has_prompt and not line.startswith(_PROMPT)):
            continue
        yield from _of_line(line.removeprefix(_PROMPT))


def _of_line(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.commenters = "#"
    lexer.whitespace_split = True
    part: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _SEPARATORS:
            part.append(word)
            continue
        place = next((at for at, each in enumerate(part) if each == "streams" or each.endswith("/streams")), None)
        if place is not None and all(re.fullmatch(r"[A-Z_]+=.*", each) for each in part[:place]):
            yield part[place + 1 :]
        part = []


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Words of each `streams ...` that stands in a sentence or a table, after its name; forms with placeholders too."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for found in _INLINE.finditer(text):
        line = re.sub(r"[\[\]]", " ", found[1].replace("\\|", "|").split(" | ")[0])
        yield line.split()[1:]


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words after its name.

    Raises:
        LookupError: there is no such command.

    """
    command: Any = get_command(app)
    rest = list(words)
    while rest and getattr(command, "commands", None) and not rest[0].startswith("-"):
        below = command.commands.get(rest[0])
        if below is None:
            if getattr(command, "invoke_without_command", False):
                break
            raise LookupError(f"streams {' '.join(words)}: there is no command {rest[0]!r}")
        command, rest = below, rest[1:]
    return command, rest


def options_of(command: Any) -> set[str]:
    """The options of a command, in all their forms."""
    return {form for one in command.params for form in (*one.opts, *one.secondary_opts)} | {"--help"}


def is_placeholder(word: str) -> bool:
    """Whether a word stands for something, as `TOPIC` does."""
    return _PLACEHOLDER.fullmatch(word) is not None
