"""Everything that the site is built from, in one folder: pages of the project, generated reference, configuration."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from docsite.markdown import for_the_site
from docsite.navigation import Entry, Section, sections
from docsite.reference import api, command_line, exit_status, headers, metrics, settings, topics

ROOT: Final = Path(__file__).parents[1]
HOME: Final = "index.md"
_THEME: Final = Path(__file__).parent / "theme"
_REFERENCE: Final = "Reference"
"""Section of `docs/README.md` that the generated pages come first in."""
_PLACES: Final = {"README.md": HOME, "docs/README.md": "pages.md"}
"""Where a file is on the site, if not under its own name in small letters."""
_FIGURES: Final = "images/figures/"


@dataclass(frozen=True, slots=True)
class Page:
    """A generated page."""

    title: str
    place: str
    text: str


def stage(target: Path, root: Path = ROOT) -> Path:
    """Fill a folder, which is emptied before, and return the configuration that `zensical build` takes.

    Raises:
        NavigationError: a page is listed nowhere in `docs/README.md`.
        NameWithoutPage: a public name of the API is on no page.

    """
    found = sections(root)
    pages = target / "pages"
    shutil.rmtree(target, ignore_errors=True)
    pages.mkdir(parents=True)
    listed = {file for section in found for file in section.files()} | {*_PLACES}
    for file in sorted(listed):
        _write(pages / place_of(file), _page(root, file, listed))
    shutil.copytree(root / "docs" / "images", pages / "images")
    shutil.copytree(_THEME, pages, dirs_exist_ok=True)
    generated = list(reference(root))
    for page in generated:
        _write(pages / page.place, page.text)
    config = target / "zensical.toml"
    config.write_text(_config(root, found, generated), encoding="utf-8")
    return config


def place_of(file: str) -> str:
    """Where a file of the project is on the site, relative to its root."""
    if file in _PLACES:
        return _PLACES[file]
    return file.removeprefix("docs/") if file.startswith("docs/") else file.lower().replace("/readme.md", ".md")


def reference(root: Path) -> Iterator[Page]:
    """The generated pages."""
    yield Page("Command line", "reference/command-line.md", command_line.page())
    yield Page("All settings", "reference/settings.md", settings.page(root))
    yield Page("Metrics", "reference/metrics.md", metrics.page())
    yield Page("Topics and groups", "reference/topics.md", topics.page())
    yield Page("Headers and reasons", "reference/headers.md", headers.page())
    yield Page("Exit status", "reference/exit-status.md", exit_status.page())
    for name, title, text in api.pages():
        yield Page(title, f"reference/api/{name}.md", text)


def _write(page: Path, text: str) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")


def _page(root: Path, file: str, listed: set[str]) -> str:
    def link(image: str, text: str, target: str) -> str:
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target) or not path:
            return f"{image}[{text}]({target})"
        meant = str((root / file).parent.joinpath(path).resolve().relative_to(root.resolve()))
        meant += "/README.md" if (root / meant).is_dir() else ""
        if image:
            return _image(root, file, text, meant)
        if meant not in listed:
            return text if f"`{meant}`" in text else f"{text} (`{meant}` in the repository)"
        up = "../" * place_of(file).count("/")
        return f"[{text}]({up}{place_of(meant)}{'#' + anchor if anchor else ''})"

    return for_the_site((root / file).read_text(encoding="utf-8"), link)


def _image(root: Path, file: str, text: str, meant: str) -> str:
    """A figure goes into the page, so that it has the colours of the page; any other picture stays a file."""
    if _FIGURES in meant:
        drawing = (root / meant).read_text(encoding="utf-8")
        return f'<div class="figure">{" ".join(drawing.split())}</div>'
    return f"![{text}]({'../' * place_of(file).count('/')}{place_of(meant)})"


def _config(root: Path, found: tuple[Section, ...], generated: list[Page]) -> str:
    nav: list[str] = [_inline("Home", HOME)]
    for section in found:
        entries = [_entry(entry) for entry in section.entries]
        if section.title == _REFERENCE:
            api_pages = [_inline(page.title, page.place) for page in generated if "/api/" in page.place]
            others = [_inline(page.title, page.place) for page in generated if "/api/" not in page.place]
            entries = [*others, _inline_list("Python API", api_pages), *entries]
        nav.append(_inline_list(section.title, entries))
    base = (Path(__file__).parent / "zensical.toml").read_text(encoding="utf-8")
    base = base.replace('paths = ["."]', f"paths = [{json.dumps(str(root))}]")
    own = ['docs_dir = "pages"', 'site_dir = "site"', "nav = [", *(f"  {entry}," for entry in nav), "]"]
    return "\n".join(["[project]", *own, base])


def _entry(entry: Entry) -> str:
    if not entry.below:
        return _inline(entry.title, place_of(entry.file))
    below = [_inline("Overview", place_of(entry.file)), *map(_entry, entry.below)]
    return _inline_list(entry.title, below)


def _inline(title: str, place: str) -> str:
    return f"{{ {json.dumps(title)} = {json.dumps(place)} }}"


def _inline_list(title: str, entries: list[str]) -> str:
    return f"{{ {json.dumps(title)} = [{', '.join(entries)}] }}"
