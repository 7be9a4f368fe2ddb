"""The documents of the project: links lead somewhere, indexes are complete, what is named exists."""

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from typer.main import get_command

from streams.cli import app
from streams.settings import load_settings

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
DECISIONS: Final = DOCS / "adr"
WORDS_MAX: Final = 700
PAGES: Final = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _tokens(page: Path) -> Iterator[Token]:
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()


def _links(page: Path) -> list[str]:
    found = [token.attrGet("href") or token.attrGet("src") for token in _tokens(page)]
    return [unquote(str(link)) for link in found if link]


def _anchors(page: Path) -> set[str]:
    """Names of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _dead(page: Path) -> Iterator[str]:
    for link in _links(page):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert [] == list(_dead(page))


@pytest.mark.parametrize("page", [ROOT / "ARCHITECTURE.md", DOCS / "modules.md", *DECISIONS.glob("*.md")], ids=_name)
def test_every_module_that_a_page_places_in_a_folder_is_there(page: Path) -> None:
    named = {*re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text(encoding="utf-8"))}
    folders = ("streams", "logistics", "loadtest", "docsite", "tests", "deploy", "native")
    files = [f"/{path.relative_to(ROOT)}" for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [] == [name for name in sorted(named) if not any(file.endswith(f"/{name}") for file in files)]


def test_the_readme_is_short() -> None:
    assert WORDS_MAX >= len((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_the_readme_shows_the_flow_that_runs() -> None:
    shown = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    shipped = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "logistics" / "flows").glob("*.py"))
    assert 1 == len(shown)
    assert shown[0] in shipped


def test_the_index_of_pages_is_complete() -> None:
    listed = {(DOCS / link).resolve() for link in _links(DOCS / "README.md")}
    pages = {*DOCS.glob("*.md"), DECISIONS / "README.md", DOCS / "runbooks" / "README.md"} - {DOCS / "README.md"}
    assert set() == pages - listed


def test_the_index_of_decisions_says_number_title_status_and_date_of_each() -> None:
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d+) \| \[(.+)\]\((.+)\) \| (.+) \| ([\d-]+) \|$", index, re.MULTILINE)
    assert [_decision(page) for page in sorted(DECISIONS.glob("[0-9]*.md"))] == listed


def _decision(page: Path) -> tuple[str, ...]:
    text = page.read_text(encoding="utf-8")
    found = re.match(r"# (\d+)\. (.+)\n\nStatus: (accepted|superseded by \d+), (\d{4}-\d\d-\d\d)\.\n", text)
    assert found is not None, f"{page.name} does not begin with `# N. Title` and `Status: accepted, YYYY-MM-DD.`"
    number, title, status, date = found.groups()
    assert int(page.name[:4]) == int(number)
    return number, title, page.name, status, date


def test_every_command_is_on_the_page_of_commands_and_nothing_else() -> None:
    root = get_command(app)
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    documented = set()
    for line in re.findall(r"^\| (`streams .*?) \| ", page, re.MULTILINE):
        first, *others = (part.split() for part in re.findall(r"`([^`]+)`", line))
        documented |= {tuple(_names(first[1:]))} | {tuple(_names([*first[1:2], *other])) for other in others}
    assert _commands(root) == documented


def _names(words: list[str]) -> Iterator[str]:
    """The words of a command before its arguments and options."""
    for word in words:
        if not re.fullmatch(r"[a-z-]+", word) or word.startswith("-"):
            return
        yield word


def _commands(command: object, before: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    children = getattr(command, "commands", None)
    if children is None:
        return {before}
    own = {before} if before and getattr(command, "invoke_without_command", False) else set()
    return own.union(*(_commands(child, (*before, name)) for name, child in children.items()))


def test_every_setting_is_on_a_page() -> None:
    """Settings of users are on their page, those of tests where tests are described. `_FILE` belongs to its setting."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    patterns = set(re.findall(r"`([A-Z_]+\*?)", text))
    names = {name.removesuffix("_FILE") for name in load_settings().masked()}
    assert set() == {name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=_name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(
        re.findall(r"(?:^|`)make ([a-z-]+)(?=[`\n]| +#| [A-Z]+=)", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert set() == named - targets
