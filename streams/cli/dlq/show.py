"""`streams dlq show`: shows one dead letter in detail."""

from typing import Annotated

import typer

from streams.cli.dlq.options import ByOption, TopicOption, actor_of
from streams.cli.dlq.results import details_row, echo_details
from streams.cli.dlq.session import open_inbox, progress_line
from streams.cli.output import Format, FormatOption, echo_json
from streams.deadletters.review.look import details
from streams.deadletters.review.look import reveal as revealed


def show_command(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the letter, or its beginning.")],
    topic: TopicOption = None,
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="With --reveal: why the data has to be shown, for the audit.")
    ] = "",
    by: ByOption = None,
    output: FormatOption = Format.TEXT,
    *,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show personal fields, too; this is recorded in the audit.")
    ] = False,
) -> None:
    """Show everything about one dead letter: why, its bytes, its fields, its schema, its earlier attempts.

    Personal fields are masked, and so is everything whose meaning is not known.
    """
    with open_inbox(topic) as inbox, progress_line() as told:
        inbox.refresh(lambda name, read: told(f"reading {name}", read, 0))
        found = inbox.the_one(letter_id)
        shown = revealed(inbox, found, actor_of(by, why)) if reveal else details(inbox, found, reveal=False)
    if output is Format.JSON:
        echo_json(details_row(shown))
    else:
        echo_details(shown)
