"""`streams dlq discard`: discards open dead letters."""

from dataclasses import replace
from itertools import chain
from typing import Annotated

import typer

from streams.cli.dlq.options import Choice, actor_of, choice
from streams.cli.dlq.results import echo_discard
from streams.cli.dlq.session import missing_ids, open_inbox
from streams.cli.output import Format, FormatOption, echo_line
from streams.cli.shared_options import given_by
from streams.deadletters.letter.filter import Filter
from streams.deadletters.review.choice import known_reasons
from streams.deadletters.review.discard import discard
from streams.deadletters.review.inbox import Inbox
from streams.errors import FoundSomething, StreamsError, UsageError


@given_by(choice)
def discard_command(
    chosen: Choice,
    why: Annotated[
        str,
        typer.Option("--why", metavar="TEXT", help="Why nothing more has to be done about them; mandatory."),
    ] = "",
    rejected_for: Annotated[list[str] | None, typer.Option("--rejected-for", hidden=True)] = None,
    output: FormatOption = Format.TEXT,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print how many letters are selected.")
    ] = False,
) -> None:
    """Discard open dead letters: record that nothing more has to be done about them, and why.

    Nothing is deleted: the audit topic records who discarded what, when and why, and the letters are no longer open.
    Select letters by id, by a filter, or with --all.

    Exit status 100: some letters belong to no declared flow and were left; the others were discarded.
    """
    # Only if something else selects letters: a misspelt filter must not select more than intended.
    may_be_why = bool(chosen.ids or chosen.everything or rejected_for)
    reasons = chosen.filters.reasons or []
    was_why = _why_of_old(reasons, why) if may_be_why else ""
    wanted = replace(chosen.filter(), reasons=frozenset([*(() if was_why else reasons), *(rejected_for or ())]))
    why = was_why or why
    if not (why.strip() or dry_run):
        raise UsageError('a discard needs a reason: --why "why nothing more has to be done"')
    wanted = chosen.insisted(wanted)
    with open_inbox(chosen.filters.topics) as inbox:
        if dry_run and not why and may_be_why and _is_why_of_old(inbox, wanted):
            wanted = chosen.insisted(replace(wanted, reasons=frozenset()))
        result = discard(inbox, wanted, actor_of(chosen.by, why), limit=chosen.limit, dry_run=dry_run)
        missing = missing_ids(inbox, chosen.ids)
    echo_discard(result, dry_run, output)
    if missing:
        raise StreamsError(f"no dead letter {missing[0]}: `streams dlq list` shows those that there are")
    if result.refusals.count:
        problem = (
            f"{result.refusals.count} of {result.selected} dead letters cannot be discarded, they are open as before"
        )
        raise (FoundSomething if result.discarded or dry_run else StreamsError)(problem)


def _why_of_old(reasons: list[str], why: str) -> str:
    """The text that `discard --reason` took before it was a filter, if it can be nothing else: it has spaces."""
    text = (reasons or [""])[0].strip()
    if why.strip() or len(reasons) != 1 or not any(map(str.isspace, text)):
        return ""
    _say_of_old(text)
    return text


def _is_why_of_old(inbox: Inbox, wanted: Filter) -> bool:
    """As `_why_of_old`, of a single word of a dry run, which changes nothing: it is no reason of any letter."""
    if len(wanted.reasons) != 1:
        return False
    inbox.refresh()
    if not wanted.reasons.isdisjoint(chain(*known_reasons(inbox))):
        return False
    _say_of_old(*wanted.reasons)
    return True


def _say_of_old(text: str) -> None:
    echo_line(f"streams: --reason is a filter; {text!r} is no reason and is taken as --why", err=True)
