"""Every help page at 80 columns."""

import itertools

import pytest
import typer
from typer.testing import CliRunner

from streams.cli import app


def commands(of: typer.Typer, *above: str) -> list[tuple[str, ...]]:
    """Every command and group, as its words."""
    found = [above]
    found += [(*above, one.name or str(getattr(one.callback, "__name__", ""))) for one in of.registered_commands]
    for group in of.registered_groups:
        assert group.typer_instance is not None
        assert group.name is not None
        found += commands(group.typer_instance, *above, group.name)
    return found


@pytest.fixture(scope="module")
def pages() -> dict[tuple[str, ...], list[str]]:
    """The lines of each page, without the usage."""
    runner = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"})
    found = {}
    for words in commands(app):
        shown = runner.invoke(app, [*words, "--help"])
        assert 0 == shown.exit_code
        lines = shown.stdout.splitlines()
        found[words] = lines[lines.index("") + 1 :]
    return found


def test_no_line_is_wider_than_the_terminal(pages):
    assert {} == {words: lines for words, lines in pages.items() if any(len(line) > 80 for line in lines)}


def test_no_line_of_a_paragraph_ends_before_the_next_word_would_fit(pages):
    """A line that is short although the next word has room is a line end of the source."""
    ragged = []
    for words, lines in pages.items():
        prose = list(itertools.takewhile(lambda line: not line or line.startswith(" "), lines))
        for before, after in itertools.pairwise(prose):
            if before.strip() and after.strip() and len(before) + 1 + len(after.split()[0]) < 76:
                ragged.append((words, before, after))
    assert [] == ragged


def test_every_command_is_described_in_whole_sentences(pages):
    """Click cuts what doesn't fit on one line."""
    assert {} == {
        words: cut for words, lines in pages.items() if (cut := [one for one in lines if one.endswith("...")])
    }
    for words, lines in pages.items():
        for command in (name[-1] for name in pages if name[:-1] == words and name):
            (described,) = [line for line in lines if line.startswith(f"  {command} ")]
            assert len(described.split()) > 2


def test_a_flag_wants_no_value(pages):
    assert [] == [line for lines in pages.values() for line in lines if "<bool>" in line]
