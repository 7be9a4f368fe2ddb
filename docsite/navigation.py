"""The navigation of the site: what `docs/README.md` lists, in its order. A page that is listed nowhere is an error.

A section of the site is a heading of the second level, an entry is an item of the list below it. An entry that is the
`README.md` of a folder brings the other pages of the folder with it, each under its own title.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

INDEX: Final = "README.md"
_SECTION: Final = re.compile(r"^## (.+)$")
_ENTRY: Final = re.compile(r"^- \[([^\]]+)\]\(([^)#]+)\)")
_TITLE: Final = re.compile(r"^# (.+)$", re.MULTILINE)


class NavigationError(Exception):
    """A page that no entry leads to, or an entry that leads to no page."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A page in the navigation: its title, its file relative to the root of the project, and pages below it."""

    title: str
    file: str
    below: tuple["Entry", ...] = ()

    def files(self) -> list[str]:
        """Files of this entry and of those below."""
        return [self.file, *(file for entry in self.below for file in entry.files())]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the site."""

    title: str
    entries: tuple[Entry, ...]

    def files(self) -> list[str]:
        """Files of all entries."""
        return [file for entry in self.entries for file in entry.files()]


def sections(root: Path) -> tuple[Section, ...]:
    """The navigation of the project in this folder.

    Raises:
        NavigationError: a page below `docs/` is listed nowhere or twice, or a file that is listed is not there.

    """
    found = _listed(root)
    files = [file for section in found for file in section.files()]
    pages = {str(page.relative_to(root)) for page in (root / "docs").rglob("*.md")} - {f"docs/{INDEX}"}
    wrong = [f"{file}: listed, but there is no such file" for file in files if not (root / file).is_file()]
    wrong += [f"{file}: listed {files.count(file)} times" for file in sorted({*files}) if files.count(file) > 1]
    wrong += [f"{page}: listed nowhere; add it to docs/{INDEX}" for page in sorted(pages - {*files})]
    if wrong:
        raise NavigationError("\n".join(wrong))
    return found


def _listed(root: Path) -> tuple[Section, ...]:
    found: list[Section] = []
    for line in (root / "docs" / INDEX).read_text(encoding="utf-8").splitlines():
        if heading := _SECTION.match(line):
            found.append(Section(heading[1], ()))
        elif (entry := _ENTRY.match(line)) and found:
            file = str((root / "docs" / entry[2]).resolve().relative_to(root.resolve()))
            found[-1] = replace(found[-1], entries=(*found[-1].entries, Entry(entry[1], file, _folder(root, file))))
    return tuple(found)


def _folder(root: Path, file: str) -> tuple[Entry, ...]:
    """Pages beside the index of a folder."""
    page = root / file
    if page.name != INDEX or page.parent == root:
        return ()
    beside = sorted(each for each in page.parent.glob("*.md") if each.name != INDEX)
    return tuple(Entry(title_of(each), str(each.relative_to(root))) for each in beside)


def title_of(page: Path) -> str:
    """The heading of a page, without code marks."""
    found = _TITLE.search(page.read_text(encoding="utf-8"))
    if found is None:
        raise NavigationError(f"{page}: has no heading of the first level")
    return found[1].replace("`", "")
