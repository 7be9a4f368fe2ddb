"""What is wrong with a passage: by the vocabulary of the project, and by proselint."""

import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from proselint.checks import __register__ as checks
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

from docsite.words.prose import Passage

_VOCABULARY: Final = Path(__file__).with_name("vocabulary.toml")
_CHECKS: Final = (
    "archaism", "cliches", "lexical_illusions", "malapropisms", "mixed_metaphors", "mondegreens", "nonwords",
    "oxymorons", "redundancy", "spelling", "uncomparables",
)  # fmt: skip
"""Checks of proselint that are used. Those of typography are left out: pages use only characters that a keyboard
has."""


class Finding(NamedTuple):
    """A place, and what to write instead."""

    passage: Passage
    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.passage.file}:{self.passage.line}: {self.found!r}: {self.advice}"


class _Term(NamedTuple):
    pattern: re.Pattern[str]
    write: str


@lru_cache(maxsize=1)
def vocabulary() -> tuple[_Term, ...]:
    """The terms of the vocabulary."""
    listed = tomllib.loads(_VOCABULARY.read_text(encoding="utf-8"))["term"]
    return tuple(_Term(re.compile(term["find"], re.IGNORECASE), term["write"]) for term in listed)


def by_vocabulary(passage: Passage) -> Iterator[Finding]:
    """Words that the project does not use."""
    for term in vocabulary():
        for found in term.pattern.finditer(passage.text):
            yield Finding(passage, found[0], f"write {term.write}")


def by_proselint(passage: Passage) -> Iterator[Finding]:
    """What proselint finds."""
    _registered()
    enabled = dict.fromkeys(_CHECKS, True)
    for result in LintFile(str(passage.file), passage.text).lint({"max_errors": 100, "checks": enabled}):
        at, to = result.check_result.span
        yield Finding(passage, passage.text[max(at - 1, 0) : to - 1].strip(), result.check_result.message)


@lru_cache(maxsize=1)
def _registered() -> CheckRegistry:
    registry = CheckRegistry()
    registry.register_many(checks)
    return registry
