"""`streams dlq list`: counts and lists dead letters."""

from enum import StrEnum
from typing import Annotated

import typer

from streams.cli.dlq.options import Filters, filters
from streams.cli.dlq.results import echo_listing, entry_row
from streams.cli.dlq.session import open_inbox, progress_line
from streams.cli.output import Format, FormatOption, echo_json
from streams.cli.shared_options import given_by
from streams.deadletters.review.choice import check_reasons
from streams.deadletters.review.look import listing
from streams.errors import FoundSomething


class GroupBy(StrEnum):
    """How letters are grouped for the counts."""

    REASON = "reason"
    DEVICE = "device"
    SCHEMA_ID = "schema-id"
    SOURCE = "source"
    ATTEMPT = "attempt"


@given_by(filters)
def list_command(
    narrowed: Filters,
    limit: Annotated[int, typer.Option(min=0, help="Letters shown, the newest first.")] = 20,
    group_by: Annotated[GroupBy, typer.Option("--group-by", help="Group the counts by this.")] = GroupBy.REASON,
    output: FormatOption = Format.TEXT,
    *,
    only_open: Annotated[bool, typer.Option("--open", help="Only letters that nothing was done about.")] = False,
    fail_on_found: Annotated[
        bool, typer.Option("--fail-on-found", help="Exit status 100 when letters are selected.")
    ] = False,
) -> None:
    """Count dead letters, then show the newest of them.

    A letter that failed more than once counts once, as its latest attempt. With --since, older records are not read, so
    that it is fast on a topic of any size.
    """
    wanted = narrowed.filter(is_open=True if only_open else None)
    with open_inbox(narrowed.topics) as inbox, progress_line() as told:
        inbox.refresh(lambda name, read: told(f"reading {name}", read, 0), since_ms=wanted.since_ms)
        check_reasons(inbox, wanted)
        found = listing(inbox, wanted, group_by=group_by.value, limit=limit)
    if output is Format.JSON:
        groups = [{group_by.value: name, "count": count, "open": still} for name, count, still in found.groups]
        entries = [entry_row(entry) for entry in found.entries]
        echo_json({"total": found.total, "open": found.open, "groups": groups, "entries": entries})
    else:
        echo_listing(found)
    if fail_on_found and found.total:
        raise FoundSomething
