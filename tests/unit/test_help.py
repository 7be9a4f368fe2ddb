"""Every help page at 80 columns."""

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import typer

from streams.cli import app
from streams.cli.help import unwrapped


def commands(of: typer.Typer, *above: str) -> list[tuple[str, ...]]:
    """Every command and group, as its words."""
    found = [above]
    found += [(*above, one.name or str(getattr(one.callback, "__name__", ""))) for one in of.registered_commands]
    for group in of.registered_groups:
        assert group.typer_instance is not None
        assert group.name is not None
        found += commands(group.typer_instance, *above, group.name)
    return found


def page(words: tuple[str, ...]) -> list[str]:
    shown = subprocess.run(
        [sys.executable, "-m", "streams", *words, "--help"], env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return shown.stdout.splitlines()


@pytest.fixture(scope="module")
def pages() -> dict[tuple[str, ...], list[str]]:
    every = commands(app)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(every, pool.map(page, every), strict=True))


def test_no_line_is_wider_than_the_terminal(pages):
    assert {} == {words: lines for words, lines in pages.items() if any(len(line) > 80 for line in lines)}


def test_no_line_of_a_paragraph_ends_before_the_next_word_would_fit(pages):
    """The first line of a pair is short although the next word has room: a line end of the source."""
    ragged = []
    for words, lines in pages.items():
        prose = [line.rstrip() for line in lines[2:]]
        end = next((at for at, line in enumerate(prose) if line.startswith("╭")), len(prose))
        for before, after in itertools.pairwise(prose[:end]):
            if before.startswith(" ") and after.startswith(" ") and after.strip():
                next_word = after.split()[0]
                if before.strip() and "Usage:" not in before and len(before) + 1 + len(next_word) < 80:
                    ragged.append((words, before, after))
    assert [] == ragged


def test_a_paragraph_is_joined_and_a_list_is_not():
    assert "a b\n\nc d" == unwrapped("a\nb\n\nc\nd")
    assert "a:\n    b\n    c\n\n- d\n- e" == unwrapped("a:\n    b\n    c\n\n- d\n- e")
