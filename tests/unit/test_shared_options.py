"""Options that several commands have are declared once."""

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from streams.cli.dlq.discard import discard_command
from streams.cli.dlq.list import list_command
from streams.cli.dlq.replay import replay_command
from streams.cli.shared_options import given_by


def place(
    city: Annotated[str, typer.Option("--city")] = "Ulm", *, abroad: Annotated[bool, typer.Option("--abroad")] = False
) -> tuple[str, bool]:
    """Options of a place."""
    return city, abroad


@given_by(place)
def send(where: tuple[str, bool], parcel: Annotated[int, typer.Argument()], *, now: bool = False) -> None:
    """Send a parcel."""
    typer.echo(f"{where} {parcel} {now}")


def test_a_command_has_the_shared_options_and_its_own_and_gets_what_was_made_of_them() -> None:
    app = typer.Typer()
    app.command()(send)
    run = CliRunner().invoke

    assert "('Ulm', False) 7 False\n" == run(app, ["7"]).output
    assert "('Bonn', True) 7 True\n" == run(app, ["7", "--city", "Bonn", "--now", "--abroad"]).output
    assert "Send a parcel." in run(app, ["--help"]).output
    assert 2 == run(app, ["7", "--where", "x"]).exit_code


@pytest.mark.parametrize("command", [list_command, replay_command, discard_command])
def test_what_narrows_letters_down_is_the_same_for_all_commands(command: object) -> None:
    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]
    help_text = CliRunner().invoke(app, ["--help"], terminal_width=200).output

    for option in ("--topic", "--reason", "--device", "--schema-id", "--since", "--until", "--limit"):
        assert option in help_text
    assert ("--pin" in help_text) is ("--all" in help_text) is (command is not list_command)
