"""`streams dlq`: dead letters listed, shown, replayed, discarded."""

import datetime as dt
import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.dlq_results import (
    details_row,
    echo_details,
    echo_discard,
    echo_listing,
    echo_replay,
    entry_row,
)
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, StreamsError, UsageError

if TYPE_CHECKING:
    from streams.deadletters.audit import Actor
    from streams.deadletters.index import Filter
    from streams.review.inbox import Inbox
    from streams.review.replay import ReplayProgress

dlq_app = typer.Typer(help="Dead letters: review, fix, replay, discard.", no_args_is_help=True)

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class GroupBy(StrEnum):
    """What letters are counted by."""

    REASON = "reason"
    DEVICE = "device"
    SCHEMA_ID = "schema-id"
    SOURCE = "source"
    ATTEMPT = "attempt"


TopicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--topic", metavar="TOPIC", help="Dead-letter topic, or the source it belongs to; repeatable. Default: all."
    ),
]
ReasonOption = Annotated[
    list[str] | None, typer.Option("--reason", help="Rejected for this reason; repeatable.", metavar="REASON")
]
DeviceOption = Annotated[
    list[str] | None, typer.Option("--device", help="Key of the record: device or order; repeatable.", metavar="KEY")
]
SchemaOption = Annotated[
    list[int] | None, typer.Option("--schema-id", help="Schema id that the envelope names; repeatable.", metavar="ID")
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="From this time on: ISO 8601, or an age such as 90s, 15m, 2h, 7d, 1w."
    ),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before this time: as --since.")]
PinOption = Annotated[
    str | None,
    typer.Option(
        "--pin",
        metavar="PIN",
        help="Only what was there at the dry run that printed this; what has come since is left.",
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All open letters, without ids or filters.")]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who does it, for the audit. Default: the user's name.")
]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of letters, or beginnings of them.")]


@dlq_app.command("list")
def list_command(
    topic: TopicOption = None,
    reason: ReasonOption = None,
    device: DeviceOption = None,
    schema_id: SchemaOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=0, help="Letters shown, the newest first.")] = 20,
    group_by: Annotated[GroupBy, typer.Option("--group-by", help="What the counts are by.")] = GroupBy.REASON,
    output: FormatOption = Format.TEXT,
    *,
    only_open: Annotated[bool, typer.Option("--open", help="Only letters that nothing was done about.")] = False,
    fail_on_found: Annotated[
        bool, typer.Option("--fail-on-found", help="Exit status 100 when there are letters that are meant.")
    ] = False,
) -> None:
    """Count dead letters, then show the newest of them.

    A letter that failed more than once counts once, as its latest attempt. With --since, older records are not even
    read, which makes it fast on a topic of any size.
    """
    from streams.review.choice import check_reasons  # noqa: PLC0415 - start-up time of the command line
    from streams.review.look import listing  # noqa: PLC0415 - as above

    wanted = _filter(None, reason, device, schema_id, since, until, is_open=True if only_open else None)
    with _inbox(topic) as inbox, _bar() as told:
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


@dlq_app.command("show")
def show_command(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the letter, or its beginning.")],
    topic: TopicOption = None,
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="With --reveal: why it has to be seen, for the audit.")
    ] = "",
    by: ByOption = None,
    output: FormatOption = Format.TEXT,
    *,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show personal fields, too; that they were shown is written down.")
    ] = False,
) -> None:
    """Show everything about one dead letter: why, its bytes, its fields, its schema, its earlier attempts.

    Personal fields are masked, and so is all of which it cannot be told what it is.
    """
    from streams.review.look import details  # noqa: PLC0415 - start-up time of the command line
    from streams.review.look import reveal as revealed  # noqa: PLC0415 - as above

    with _inbox(topic) as inbox, _bar() as told:
        inbox.refresh(lambda name, read: told(f"reading {name}", read, 0))
        found = inbox.the_one(letter_id)
        shown = revealed(inbox, found, _actor(by, why)) if reveal else details(inbox, found, reveal=False)
    if output is Format.JSON:
        echo_json(details_row(shown))
    else:
        echo_details(shown)


@dlq_app.command("replay")
def replay_command(
    ids: IdsArgument = None,
    topic: TopicOption = None,
    reason: ReasonOption = None,
    device: DeviceOption = None,
    schema_id: SchemaOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")] = None,
    rate: Annotated[int | None, typer.Option(min=1, help="Records a second at most.")] = None,
    attempts_max: Annotated[
        int | None, typer.Option("--attempts-max", min=1, help="Leave alone what has failed so often. Default: 5.")
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option("--transform", metavar="MODULE:FUNCTION", help="Repair each letter on its way (see the runbook)."),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the worker, to tell what became of them.")
    ] = 5.0,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Why, for the audit: what was repaired.")] = "",
    by: ByOption = None,
    pin: PinOption = None,
    output: FormatOption = Format.TEXT,
    *,
    everything: AllOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; say what would be sent where, and rejected again.")
    ] = False,
) -> None:
    """Send open dead letters back to the topics that they came from, each exactly once.

    Key, bytes and headers are the original ones. Killed at any moment and run again, it does what is left: what was
    sent is recorded in the audit topic in the same transaction. Say which letters: by id, by a filter, or --all.

    Exit status 100: some letters cannot be replayed, and the reasons are told; the others were.
    """
    from streams.limits import DLQ_ATTEMPTS_MAX  # noqa: PLC0415 - start-up time of the command line
    from streams.review.replay import ReplayOptions, replay  # noqa: PLC0415 - as above

    wanted = _chosen(_filter(ids, reason, device, schema_id, since, until, pin=pin), everything=everything)
    options = ReplayOptions(
        wanted=wanted,
        actor=_actor(by, why),
        limit=limit,
        rate=rate,
        attempts_max=attempts_max or DLQ_ATTEMPTS_MAX,
        transform=transform,
        wait_s=wait,
        dry_run=dry_run,
    )
    with _inbox(topic) as inbox, _bar() as told:

        def progress(now: "ReplayProgress") -> None:
            told(now.phase, now.done, now.total)

        result = replay(inbox, options, progress)
        missing = _missing_ids(inbox, ids)
    echo_replay(result, options.dry_run, options.attempts_max, output)
    if missing:
        raise StreamsError(f"no dead letter {missing[0]}: `streams dlq list` shows those that there are")
    if result.refused:
        problem = f"{result.refused} of {result.selected} dead letters cannot be replayed, they are open as before"
        raise (FoundSomething if result.replayed or dry_run else StreamsError)(problem)


@dlq_app.command("discard")
def discard_command(
    ids: IdsArgument = None,
    why: Annotated[
        str,
        typer.Option("--why", metavar="TEXT", help="Why nothing more is to be done about them; mandatory."),
    ] = "",
    topic: TopicOption = None,
    reason: ReasonOption = None,
    rejected_for: Annotated[list[str] | None, typer.Option("--rejected-for", hidden=True)] = None,
    device: DeviceOption = None,
    schema_id: SchemaOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")] = None,
    by: ByOption = None,
    pin: PinOption = None,
    output: FormatOption = Format.TEXT,
    *,
    everything: AllOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say how many are meant.")] = False,
) -> None:
    """Say of open dead letters that nothing more is to be done about them, and why.

    Nothing is deleted: the audit topic says who discarded what, when and why, and they are open no more. Say which
    letters: by id, by a filter, or --all.

    Exit status 100: some letters belong to no declared flow and were left; the others were discarded.
    """
    from streams.review.discard import discard  # noqa: PLC0415 - start-up time of the command line

    # Where something else says which letters are meant: a filter that is misspelt must not mean more than it says.
    may_be_why = bool(ids or everything or rejected_for)
    was_why = _why_of_old(reason, why) if may_be_why else ""
    reasons = [*(() if was_why else reason or ()), *(rejected_for or ())]
    wanted = _filter(ids, reasons, device, schema_id, since, until, pin=pin)
    why = was_why or why
    if not (why.strip() or dry_run):
        raise UsageError('a discard needs a reason: --why "why nothing more is to be done"')
    wanted = _chosen(wanted, everything=everything)
    with _inbox(topic) as inbox:
        if dry_run and not why and may_be_why and _is_why_of_old(inbox, wanted):
            wanted = _chosen(replace(wanted, reasons=frozenset()), everything=everything)
        result = discard(inbox, wanted, _actor(by, why), limit=limit, dry_run=dry_run)
        missing = _missing_ids(inbox, ids)
    echo_discard(result, dry_run, output)
    if missing:
        raise StreamsError(f"no dead letter {missing[0]}: `streams dlq list` shows those that there are")
    if result.refusals.count:
        problem = (
            f"{result.refusals.count} of {result.selected} dead letters cannot be discarded, they are open as before"
        )
        raise (FoundSomething if result.discarded or dry_run else StreamsError)(problem)


# --- arguments --------------------------------------------------------------------------------------------------------


def _filter(
    ids: list[str] | None,
    reasons: list[str] | None,
    devices: list[str] | None,
    schema_ids: list[int] | None,
    since: str | None,
    until: str | None,
    *,
    is_open: bool | None = None,
    pin: str | None = None,
) -> "Filter":
    from streams.deadletters.index import Filter  # noqa: PLC0415 - start-up time of the command line
    from streams.deadletters.pin import pin_of  # noqa: PLC0415 - as above

    for letter_id in ids or ():
        if not re.fullmatch("[0-9a-f]{6,24}", letter_id):
            raise UsageError(f"{letter_id!r} is not an id: 24 hexadecimal digits, or at least the first 6 of them")
    try:
        pinned = None if pin is None else pin_of(pin)
    except ValueError as error:
        raise UsageError(f"--pin: {error}") from None
    return Filter(
        ids=frozenset(ids or ()),
        reasons=frozenset(reasons or ()),
        keys=frozenset(device.encode() for device in devices or ()),
        schema_ids=frozenset(schema_ids or ()),
        since_ms=None if since is None else _time_ms("--since", since),
        until_ms=None if until is None else _time_ms("--until", until),
        is_open=is_open,
        pin=pinned,
    )


def _chosen(wanted: "Filter", *, everything: bool) -> "Filter":
    if not (wanted.narrows or everything):
        raise UsageError("say which dead letters: by id, by a filter, or --all")
    return wanted


def _why_of_old(reasons: list[str] | None, why: str) -> str:
    """The text that `discard --reason` took before it was a filter, as far as it can be nothing else: it has blanks."""
    text = (reasons or [""])[0].strip()
    if why.strip() or len(reasons or ()) != 1 or not any(map(str.isspace, text)):
        return ""
    _say_of_old(text)
    return text


def _is_why_of_old(inbox: "Inbox", wanted: "Filter") -> bool:
    """As `_why_of_old`, of a single word of a dry run, which changes nothing: it is no reason of any letter."""
    from streams.review.choice import known_reasons  # noqa: PLC0415 - start-up time of the command line

    if len(wanted.reasons) != 1:
        return False
    inbox.refresh()
    if not wanted.reasons.isdisjoint(chain(*known_reasons(inbox))):
        return False
    _say_of_old(*wanted.reasons)
    return True


def _say_of_old(text: str) -> None:
    echo_line(f"streams: --reason is a filter; {text!r} is no reason and is taken as --why", err=True)


def _time_ms(option: str, text: str) -> int:
    now = dt.datetime.now(dt.UTC)
    age = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    try:
        if age:
            moment = now - dt.timedelta(seconds=int(age[1]) * _UNITS_S[age[2]])
        else:
            moment = dt.datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text}: must be ISO 8601 (2026-05-01T08:00, UTC) or an age such as 2h") from None


def _actor(by: str | None, why: str) -> "Actor":
    import getpass  # noqa: PLC0415 - start-up time of the command line

    from streams.deadletters.audit import Actor  # noqa: PLC0415 - as above

    try:
        name = by or getpass.getuser()
    except (KeyError, OSError):
        raise UsageError("who are you? This machine does not know: say it with --by") from None
    try:
        return Actor(name, why.strip(), uuid.uuid4().hex[:12])
    except ValueError as error:
        raise UsageError(str(error)) from None


def _missing_ids(inbox: "Inbox", ids: list[str] | None) -> list[str]:
    from streams.deadletters.index import Filter  # noqa: PLC0415 - start-up time of the command line

    return [each for each in ids or () if not inbox.find(Filter(ids=frozenset({each})))]


@contextmanager
def _inbox(topics: list[str] | None) -> "Iterator[Inbox]":
    from streams.logs import configure_logging  # noqa: PLC0415 - start-up time of the command line
    from streams.review.inbox import Inbox  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.WARNING)
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL + 1)  # what it cannot do is raised, and told in one line
    inbox = Inbox(settings, topics)
    try:
        yield inbox
    finally:
        inbox.close()


@contextmanager
def _bar() -> "Iterator[Any]":
    """A line on standard error that tells how far it is, if that is a terminal."""
    from rich.console import Console  # noqa: PLC0415 - start-up time of the command line

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _phase, _done, _total: None
        return
    with console.status("connecting") as status:

        def told(phase: str, done: int, total: int) -> None:
            status.update(f"{phase}: {done:,}" + (f" of {total:,}" if total else ""))

        yield told
