"""Counts in words. What is made safe for a terminal: test_output.py."""

import re
from pathlib import Path

import pytest

from streams.text import counted

SOURCES = sorted((Path(__file__).parents[2] / "streams").rglob("*.py"))


@pytest.mark.parametrize(
    ("count", "noun", "plural", "shown"),
    [
        (0, "record", None, "0 records"),
        (1, "record", None, "1 record"),
        (1_200, "record", None, "1,200 records"),
        (1, "query", "queries", "1 query"),
        (2, "query", "queries", "2 queries"),
    ],
)
def test_a_count_has_the_number_of_its_noun(count: int, noun: str, plural: str | None, shown: str) -> None:
    assert shown == counted(count, noun, plural)


def test_no_text_counts_partitions_members_or_records_in_the_plural_only() -> None:
    plural = re.compile(r"(?:has|have|have been|only) \{[^{}]*\} (?:partitions|members|records|rows|letters)\b")
    found = [(path.name, line) for path in SOURCES for line in path.read_text().splitlines() if plural.search(line)]
    assert [] == found
