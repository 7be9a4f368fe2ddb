"""Every help page at 80 columns."""

import itertools
import subprocess
import sys

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from streams.cli import app
from streams.cli.commands import COMMANDS
from streams.cli.help import first_paragraph
from streams.cli.lazy import LazyCommand, LazyCommands, Table

HEAVY = ("numpy", "pyarrow", "confluent_kafka", "fastavro", "faust", "rich")


def commands(table: Table = COMMANDS, *above: str) -> dict[tuple[str, ...], LazyCommand | LazyCommands]:
    """Every command and group below the top, by its words."""
    found = {}
    for name, entry in table.items():
        found[(*above, name)] = entry
        if isinstance(entry, LazyCommands):
            found |= commands(entry.commands, *above, name)
    return found


@pytest.fixture(scope="module")
def pages() -> dict[tuple[str, ...], list[str]]:
    """The lines of each page, without the usage."""
    runner = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"})
    found = {}
    for words in [(), *commands()]:
        shown = runner.invoke(app, [*words, "--help"])
        assert 0 == shown.exit_code
        lines = shown.stdout.splitlines()
        found[words] = lines[lines.index("") + 1 :]
    return found


def test_no_line_is_wider_than_the_terminal(pages: dict[tuple[()] | tuple[str, str] | tuple[str], list[str]]) -> None:
    assert {} == {words: lines for words, lines in pages.items() if any(len(line) > 80 for line in lines)}


def test_no_line_of_a_paragraph_ends_before_the_next_word_would_fit(
    pages: dict[tuple[()] | tuple[str, str] | tuple[str], list[str]],
) -> None:
    """A line that is short although the next word has room is a line end of the source."""
    ragged = []
    for words, lines in pages.items():
        prose = list(itertools.takewhile(lambda line: not line or line.startswith(" "), lines))
        for before, after in itertools.pairwise(prose):
            if before.strip() and after.strip() and len(before) + 1 + len(after.split()[0]) < 76:
                ragged.append((words, before, after))
    assert [] == ragged


def test_every_command_is_described_in_whole_sentences(
    pages: dict[tuple[()] | tuple[str, str] | tuple[str], list[str]],
) -> None:
    """Click cuts what doesn't fit on one line."""
    assert {} == {
        words: cut for words, lines in pages.items() if (cut := [one for one in lines if one.endswith("...")])
    }
    for words, lines in pages.items():
        for command in (name[-1] for name in pages if name[:-1] == words and name):
            (described,) = [line for line in lines if line.startswith(f"  {command} ")]
            assert len(described.split()) > 2


def test_a_flag_wants_no_value(pages: dict[tuple[()] | tuple[str, str] | tuple[str], list[str]]) -> None:
    assert [] == [line for lines in pages.values() for line in lines if "<bool>" in line]


@pytest.mark.parametrize(("words", "entry"), commands().items())
def test_a_list_describes_a_command_as_its_own_page_does(
    words: tuple[str, ...], entry: LazyCommand | LazyCommands
) -> None:
    command = get_command(app)
    for word in words:
        assert isinstance(command, TyperGroup)
        command = command.commands[word]
    assert words[-1] == command.name
    assert first_paragraph(command.help) == entry.summary


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["dlq", "--help"], ["no-such-command"]])
def test_what_runs_no_command_imports_none(words: list[str]) -> None:
    code = (
        "import sys, streams.cli\n"
        f"sys.argv = ['streams', *{words}]\n"
        "try: streams.cli.main()\n"
        f"finally: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "[]" == done.stderr.splitlines()[-1], done.stderr
