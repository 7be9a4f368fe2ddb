import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streams.cli
from streams.cli.output import echo_json, echo_line, printable, printable_lines


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("abc\u202egnp", "abc\\u202egnp"),
        ("\U000e0041", "\\U000e0041"),
        ("\udcff", "\\udcff"),
        ("Kühlwagen 7 ключ •", "Kühlwagen 7 ключ •"),
        (42, "42"),
    ],
)
def test_what_a_terminal_would_act_upon_is_escaped_and_all_else_stays(raw: int | str, shown: str) -> None:
    assert shown == printable(raw)


@given(st.text(st.characters()))
def test_any_text_can_be_printed_on_one_line_and_twice_changes_nothing(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == shown.encode().decode()
    assert shown == printable(shown)
    assert text.count("\n") == printable_lines(text).count("\n")


def test_a_printed_line_and_a_json_document_carry_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x7f\x9b\u202e\n"
    echo_line(evil)
    echo_line(evil, err=True)
    echo_json({evil: evil})
    out, err = capsys.readouterr()
    assert all(line.isprintable() for line in (out + err).split("\n"))
    assert evil == json.loads(out[out.index("{") :])[evil]


def test_no_command_prints_past_the_functions_that_make_texts_safe() -> None:
    commands = Path(streams.cli.__file__).parent.rglob("*.py")
    printing = re.compile(r"typer\.echo\b|\bprint\(")
    assert ["output.py"] == [path.name for path in sorted(commands) if printing.search(path.read_text())]


def test_a_child_process_searches_no_module_in_the_working_directory() -> None:
    sources = Path(streams.__file__).parent.rglob("*.py")
    started = [line for path in sources for line in path.read_text().splitlines() if "[sys.executable," in line]
    assert started != []
    assert [line for line in started if '"-P"' not in line] == []
