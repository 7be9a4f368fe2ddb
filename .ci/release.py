"""A release, from its tag: the tag names the version, and the changelog has an entry for it.

    python .ci/release.py prepare 0.2.0   # version, changelog from changelog.d/, to be committed and tagged v0.2.0
    python .ci/release.py check v0.2.0    # what the workflow of a tag asks before anything is published
    python .ci/release.py notes v0.2.0    # the entry of a version: notes of its release

The version stands in one place, `__version__` of `streams/__init__.py`.
"""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
VERSION: Final = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
NUMBER: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?")
ENTRY: Final = re.compile(r"^## (\S+) \(([^)]+)\)\n", re.MULTILINE)
UNRELEASED: Final = "unreleased"


class NotReady(Exception):
    """What is asked for cannot be done; the message says why."""


def prepared(root: Path, version: str, today: str) -> list[Path]:
    """Write the version and its entry of the changelog; returns the files that have changed.

    Lines of `changelog.d/` come first, in the order of the names of its files, then those of an unreleased entry.

    Raises:
        NotReady: it is no version, or it was released already.

    """
    if not NUMBER.fullmatch(version):
        raise NotReady(f"{version!r} is no version, such as 0.2.0 or 0.2.0rc1")
    module, changelog = root / "streams" / "__init__.py", root / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    entries = list(ENTRY.finditer(text))
    if any(entry[1] == version and entry[2] != UNRELEASED for entry in entries):
        raise NotReady(f"{version} was released already")
    fragments = sorted((root / "changelog.d").glob("*.md"))
    lines = "".join(each.read_text(encoding="utf-8").strip() + "\n" for each in fragments)
    heading = f"## {version} ({today})\n"
    if entries and entries[0][2] == UNRELEASED:
        rest = text[entries[0].end() :].lstrip("\n")
        text = f"{text[: entries[0].start()]}{heading}\n{lines}{rest}"
    else:
        place = entries[0].start() if entries else len(text)
        text = f"{text[:place]}{heading}\n{lines}\n{text[place:]}"
    changelog.write_text(text, encoding="utf-8")
    module.write_text(VERSION.sub(f'__version__ = "{version}"', module.read_text(encoding="utf-8")), encoding="utf-8")
    for each in fragments:
        each.unlink()
    return [changelog, module, *fragments]


def notes(root: Path, tag: str) -> str:
    """The entry of the version that a tag names.

    Raises:
        NotReady: the tag names another version than the source, or the changelog has no dated entry for it.

    """
    version = tag.removeprefix("v")
    found = VERSION.search((root / "streams" / "__init__.py").read_text(encoding="utf-8"))
    if tag == version or found is None or found[1] != version:
        raise NotReady(f"the tag is {tag}, the source says {found[1] if found else 'nothing'}: tag v<version>")
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = list(ENTRY.finditer(text))
    if not entries or entries[0][1] != version or entries[0][2] == UNRELEASED:
        raise NotReady(f"CHANGELOG.md does not begin with a dated entry for {version}: prepare {version} first")
    end = entries[1].start() if len(entries) > 1 else len(text)
    return text[entries[0].end() : end].strip()


def main(words: list[str]) -> str:
    match words:
        case ["prepare", version]:
            changed = prepared(ROOT, version, datetime.now(UTC).date().isoformat())
            names = " ".join(str(path.relative_to(ROOT)) for path in changed)
            return f"changed {names}\nNext: make check test, commit, git tag v{version}, push the tag"
        case ["check", tag]:
            notes(ROOT, tag)
            return f"{tag} can be released"
        case ["notes", tag]:
            return notes(ROOT, tag)
        case _:
            raise NotReady("prepare VERSION, check TAG, or notes TAG")


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except NotReady as not_ready:
        sys.exit(str(not_ready))
