"""`streams dlq replay`: replays open dead letters."""

from typing import Annotated

import typer

from streams.cli.dlq.options import Choice, actor_of, choice
from streams.cli.dlq.results import echo_replay
from streams.cli.dlq.session import missing_ids, open_inbox, progress_line
from streams.cli.output import Format, FormatOption
from streams.cli.shared_options import given_by
from streams.deadletters.review.replay import ReplayOptions, ReplayProgress, replay
from streams.errors import FoundSomething, StreamsError
from streams.limits import DLQ_ATTEMPTS_MAX


@given_by(choice)
def replay_command(
    chosen: Choice,
    rate: Annotated[int | None, typer.Option(min=1, help="Records a second at most.")] = None,
    attempts_max: Annotated[
        int | None,
        typer.Option("--attempts-max", min=1, help="Leave letters alone that have failed this often. Default: 5."),
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option(
            "--transform", metavar="MODULE:FUNCTION", help="Repair each letter before it is sent (see the runbook)."
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the worker to record the outcomes.")
    ] = 5.0,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Why, for the audit: what was repaired.")] = "",
    output: FormatOption = Format.TEXT,
    *,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Send nothing; print what would be sent where, and what would be rejected again."
        ),
    ] = False,
) -> None:
    """Send open dead letters back to the topics that they came from, each exactly once.

    Key, bytes and headers are the original ones. If it is killed, run it again for the rest: what was
    sent is recorded in the audit topic in the same transaction. Say which letters: by id, by a filter, or --all.

    Exit status 100: some letters cannot be replayed, for the reasons printed; the others were.
    """
    options = ReplayOptions(
        wanted=chosen.insisted(chosen.filter()),
        actor=actor_of(chosen.by, why),
        limit=chosen.limit,
        rate=rate,
        attempts_max=attempts_max or DLQ_ATTEMPTS_MAX,
        transform=transform,
        wait_s=wait,
        dry_run=dry_run,
    )
    with open_inbox(chosen.filters.topics) as inbox, progress_line() as told:

        def progress(now: ReplayProgress) -> None:
            told(now.phase, now.done, now.total)

        result = replay(inbox, options, progress)
        missing = missing_ids(inbox, chosen.ids)
    echo_replay(result, options.dry_run, options.attempts_max, output)
    if missing:
        raise StreamsError(f"no dead letter {missing[0]}: `streams dlq list` shows those that there are")
    if result.refused:
        problem = f"{result.refused} of {result.selected} dead letters cannot be replayed, they are open as before"
        raise (FoundSomething if result.replayed or dry_run else StreamsError)(problem)
