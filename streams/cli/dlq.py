"""`streams dlq`: dead letters listed, shown, replayed, discarded."""

import datetime as dt
import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.output import Format, FormatOption, echo_json
from streams.errors import FoundSomething, StreamsError, UsageError

if TYPE_CHECKING:
    from streams.deadletters.audit import Actor
    from streams.deadletters.index import Filter
    from streams.review.inbox import Inbox
    from streams.review.look import Details, Entry
    from streams.review.replay import ReplayProgress, ReplayResult

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
    typer.Option("--topic", help="Dead-letter topic, or the source it belongs to; repeatable. Default: all declared."),
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
    str | None, typer.Option("--since", help="From this time on: ISO 8601, or an age such as 90s, 15m, 2h, 7d.")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Before this time: as --since.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who does it, for the audit. Default: the user's name.")]
IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of letters, or beginnings of them.")
]


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
    from streams.review.look import listing  # noqa: PLC0415 - start-up time of the command line

    wanted = _filter(None, reason, device, schema_id, since, until, is_open=True if only_open else None)
    with _inbox(topic) as inbox, _bar() as told:
        inbox.refresh(lambda name, read: told(f"reading {name}", read, 0), since_ms=wanted.since_ms)
        found = listing(inbox, wanted, group_by=group_by.value, limit=limit)
    if output is Format.JSON:
        groups = [{group_by.value: name, "count": count, "open": still} for name, count, still in found.groups]
        entries = [_entry_row(entry) for entry in found.entries]
        echo_json({"total": found.total, "open": found.open, "groups": groups, "entries": entries})
    else:
        typer.echo(f"{found.total:,} dead letter{'' if found.total == 1 else 's'}, {found.open:,} open")
        if found.groups:
            width = max(len(name) for name, _, _ in found.groups)
            for name, count, still in found.groups[:50]:
                typer.echo(f"  {name:<{width}}  {count:>11,}  open {still:>11,}")
            if len(found.groups) > 50:
                typer.echo(f"  ... and {len(found.groups) - 50:,} more")
        if found.entries:
            typer.echo()
            _echo_entries(found.entries)
    if fail_on_found and found.total:
        raise FoundSomething


@dlq_app.command("show")
def show_command(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the letter, or its beginning.")],
    topic: TopicOption = None,
    why: Annotated[str, typer.Option("--why", help="With --reveal: why it has to be seen, for the audit.")] = "",
    by: ByOption = None,
    output: FormatOption = Format.TEXT,
    *,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show personal fields, too; that they were shown is written down.")
    ] = False,
) -> None:
    """Show everything about one dead letter: why, its bytes, its fields, its schema, its earlier attempts.

    Fields whose schema says `"pii": true` are masked, and so are bytes of which it cannot be told what they are.
    """
    from streams.review.look import details  # noqa: PLC0415 - start-up time of the command line
    from streams.review.look import reveal as revealed  # noqa: PLC0415 - as above

    with _inbox(topic) as inbox, _bar() as told:
        inbox.refresh(lambda name, read: told(f"reading {name}", read, 0))
        found = inbox.the_one(letter_id)
        shown = revealed(inbox, found, _actor(by, why)) if reveal else details(inbox, found, reveal=False)
    if output is Format.JSON:
        echo_json(_details_row(shown))
    else:
        _echo_details(shown)


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
    why: Annotated[str, typer.Option("--why", help="Why, for the audit: what was repaired.")] = "",
    by: ByOption = None,
    output: FormatOption = Format.TEXT,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; say what would be sent, and rejected again.")
    ] = False,
) -> None:
    """Send open dead letters back to the topics that they came from, each exactly once.

    Key, bytes and headers are the original ones. Killed at any moment and run again, it does what is left: what was
    sent is recorded in the audit topic in the same transaction. Without ids and filters: all that are open.

    Exit status 100: some letters cannot be replayed, and the reasons are told; the others were.
    """
    from streams.limits import DLQ_ATTEMPTS_MAX  # noqa: PLC0415 - start-up time of the command line
    from streams.review.replay import ReplayOptions, replay  # noqa: PLC0415 - as above

    options = ReplayOptions(
        wanted=_filter(ids, reason, device, schema_id, since, until),
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
    _report(result, options.dry_run, options.attempts_max, output)
    if missing:
        raise StreamsError(f"no dead letter {missing[0]}: `streams dlq list` shows those that there are")
    if result.refused:
        problem = f"{result.refused} of {result.selected} dead letters cannot be replayed, they are open as before"
        raise (FoundSomething if result.replayed or dry_run else StreamsError)(problem)


@dlq_app.command("discard")
def discard_command(
    ids: IdsArgument = None,
    why: Annotated[
        str, typer.Option("--reason", "--why", help="Why nothing more is to be done about them; mandatory.")
    ] = "",
    topic: TopicOption = None,
    rejected_for: Annotated[
        list[str] | None,
        typer.Option("--rejected-for", metavar="REASON", help="Rejected for this reason; repeatable."),
    ] = None,
    device: DeviceOption = None,
    schema_id: SchemaOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")] = None,
    by: ByOption = None,
    output: FormatOption = Format.TEXT,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All open letters, without ids or filters.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say how many are meant.")] = False,
) -> None:
    """Say of open dead letters that nothing more is to be done about them, and why.

    Nothing is deleted: the audit topic says who discarded what, when and why, and they are open no more.
    """
    from streams.review.discard import discard  # noqa: PLC0415 - start-up time of the command line

    wanted = _filter(ids, rejected_for, device, schema_id, since, until)
    if not why.strip():
        raise UsageError('a discard needs a reason: --reason "why nothing more is to be done"')
    if not (wanted.narrows or everything):
        raise UsageError("say which dead letters: by id, by a filter, or --all")
    with _inbox(topic) as inbox:
        count = discard(inbox, wanted, _actor(by, why), limit=limit, dry_run=dry_run)
        missing = _missing_ids(inbox, ids)
    if output is Format.JSON:
        echo_json({"discarded": 0 if dry_run else count, "selected": count, "dry_run": dry_run})
    else:
        done = "would be discarded" if dry_run else "discarded"
        typer.echo(f"{count:,} dead letter{'' if count == 1 else 's'} {done}")
    if missing:
        raise StreamsError(f"no dead letter {missing[0]}: `streams dlq list` shows those that there are")


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
) -> "Filter":
    from streams.deadletters.index import Filter  # noqa: PLC0415 - start-up time of the command line

    for letter_id in ids or ():
        if not re.fullmatch("[0-9a-f]{6,24}", letter_id):
            raise UsageError(f"{letter_id!r} is not an id: 24 hexadecimal digits, or at least the first 6 of them")
    return Filter(
        ids=frozenset(ids or ()),
        reasons=frozenset(reasons or ()),
        keys=frozenset(device.encode() for device in devices or ()),
        schema_ids=frozenset(schema_ids or ()),
        since_ms=None if since is None else _time_ms("--since", since),
        until_ms=None if until is None else _time_ms("--until", until),
        is_open=is_open,
    )


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


# --- results ----------------------------------------------------------------------------------------------------------


def _iso(time_ms: int | None) -> str | None:
    if time_ms is None:
        return None
    try:
        moment = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return str(time_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _entry_row(entry: "Entry") -> dict[str, Any]:
    letter = entry.letter
    return {
        "id": letter.id,
        "status": entry.status,
        "outcome": None if entry.outcome is None else entry.outcome.value,
        "reason": letter.reason,
        "message": letter.message,
        "device": entry.key,
        "schema_id": letter.schema_id,
        "attempt": letter.attempt,
        "source": letter.source,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": _iso(letter.timestamp_ms),
        "first_failed_at": _iso(letter.first_failed_at),
        "resolved_at": _iso(entry.resolved_at_ms) if entry.act is not None else None,
    }


def _echo_entries(entries: "list[Entry]") -> None:
    widths = [max(len(each) for each in column) for column in zip(*map(_cells, entries), strict=True)]
    for entry in entries:
        cells = [f"{cell:<{width}}" for cell, width in zip(_cells(entry), widths, strict=True)]
        typer.echo(f"{'  '.join(cells)}  {_line(entry.letter.message)}".rstrip())


def _cells(entry: "Entry") -> list[str]:
    letter = entry.letter
    status = entry.status if entry.outcome is None else f"{entry.status}, {entry.outcome.value}"
    number = "" if letter.attempt == 1 else f"attempt {letter.attempt}"
    return [letter.id, _iso(letter.timestamp_ms) or "", status, letter.reason, _line(entry.key), number]


def _line(text: str) -> str:
    """A text that cannot do anything to a terminal, on one line."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[:200]


def _details_row(shown: "Details") -> dict[str, Any]:
    view, failure = shown.view, shown.view.failure
    row = _entry_row(shown.entry)
    row |= {
        "reason_in_words": view.reason_in_words,
        "envelope": shown.kind.name.lower(),
        "key": view.key,
        "origin": {
            "topic": shown.origin.topic,
            "partition": shown.origin.partition,
            "offset": shown.origin.offset,
            "group": shown.origin.group,
        },
        "headers": [{"name": name, "value": value} for name, value in view.headers],
        "envelope_headers": [{"name": name, "value": value} for name, value in shown.envelope],
        "bytes": view.size_bytes,
        "hex": "".join("".join(each.digits) for each in view.hex_rows),
        "hex_from": view.hex_rows[0].offset if view.hex_rows else 0,
        "hex_omitted_bytes": view.hex_omitted_bytes,
        "fields": [
            {"path": leaf.path, "start": leaf.start, "end": leaf.end, "value": leaf.shown, "pii": leaf.is_personal}
            for leaf in view.leaves
        ],
        "failure": None
        if failure is None
        else {"position": failure.start, "end": failure.end, "field": failure.path, "message": failure.message},
        "schema": {"id": shown.schema_id, "text": shown.schema_text, "problem": shown.schema_problem},
        "masked": view.is_masked,
        "earlier_attempts": [
            {
                "attempt": each.attempt,
                "reason": each.reason,
                "message": each.message,
                "source": each.source_place,
                **each.replayed,
            }
            for each in shown.earlier
        ],
        "resolution": shown.resolution,
    }
    return row


def _echo_details(shown: "Details") -> None:
    entry, view, letter = shown.entry, shown.view, shown.entry.letter
    origin = shown.origin
    typer.echo(f"dead letter   {letter.id}  {', '.join(_cells(entry)[2:3])}")
    typer.echo(f"reason        {letter.reason}: {view.reason_in_words}")
    typer.echo(f"message       {_line(letter.message)}")
    typer.echo(f"attempt       {letter.attempt}, first failed at {_iso(letter.first_failed_at)}")
    typer.echo(f"read from     {origin.topic}-{origin.partition}@{origin.offset} by {origin.group}")
    typer.echo(f"lies at       {letter.topic}-{letter.partition}@{letter.offset}, {_iso(letter.timestamp_ms)}")
    typer.echo(f"key           {_line(view.key)}")
    for name, value in view.headers:
        typer.echo(f"header        {_line(name)}: {_line(value)}")
    _echo_bytes(shown)
    _echo_schema(shown)
    if shown.earlier:
        typer.echo("\nearlier attempts")
        for each in shown.earlier:
            by = f", replayed by {each.replayed['by']}" if "by" in each.replayed else ""
            at = _iso(each.replayed["replayed_at"]) if isinstance(each.replayed.get("replayed_at"), int) else None
            typer.echo(f"  {each.attempt}  {each.reason}: {_line(each.message)} ({each.source_place}{_line(by)}, {at})")
    if shown.resolution is not None:
        typer.echo("\nresolution")
        for name, value in shown.resolution.items():
            typer.echo(f"  {name:<17} {_line(str(_iso(value) if name in {'at', 'outcome_at'} else value))}")
    typer.echo("\nheaders of the envelope")
    for name, value in shown.envelope:
        typer.echo(f"  {name}: {_line(value)}")
    if view.is_masked:
        typer.echo("\nPersonal data is masked (•••, ··); --reveal shows it, and is audited.")


def _echo_bytes(shown: "Details") -> None:
    view, failure = shown.view, shown.view.failure
    typer.echo(f"\nvalue, {view.size_bytes:,} bytes")
    for row in view.hex_rows:
        marks = "".join("^^ " if marked else "   " for marked in row.marked).rstrip()
        typer.echo(f"  {row.offset:08x}  {' '.join(row.digits):<47}  {row.characters}")
        if marks:
            typer.echo(f"            {marks}")
    if view.hex_omitted_bytes:
        typer.echo(f"  ({view.hex_omitted_bytes:,} more bytes are not shown)")
    if failure is not None:
        field = f", field {failure.path}" if failure.path else ""
        typer.echo(f"  fails at byte {failure.start}{field}: {_line(failure.message)}")


def _echo_schema(shown: "Details") -> None:
    view, failure = shown.view, shown.view.failure
    typer.echo(f"\nwriter schema {shown.schema_id if shown.schema_id is not None else '-'}")
    if shown.schema_text is None:
        typer.echo(f"  {shown.schema_problem}")
        return
    typer.echo(f"  {shown.schema_text}")
    typer.echo("\nfields, as far as they can be read")
    width = max((len(leaf.path) for leaf in view.leaves), default=0)
    for leaf in view.leaves:
        mark = "  <-- here" if failure is not None and failure.path == leaf.path else ""
        typer.echo(f"  {leaf.start:>6}-{leaf.end:<6} {leaf.path:<{width}}  {_line(leaf.shown)}{mark}")
    if failure is not None and not any(leaf.path == failure.path for leaf in view.leaves):
        typer.echo(f"  {failure.start:>6}        {failure.path or '(end)'}  <-- {_line(failure.message)}")


def _report(result: "ReplayResult", dry_run: bool, attempts_max: int, output: Format) -> None:  # noqa: FBT001
    if output is Format.JSON:
        echo_json(
            {
                "dry_run": dry_run,
                "selected": result.selected,
                "replayed": result.replayed,
                "capped": result.capped,
                "left_out": result.left_out,
                "refused": result.refused,
                "refusals": [{"id": each.id, "why": each.why} for each in result.refusals],
                "would_be_rejected": dict(result.would_be_rejected),
                "outcomes": dict(result.outcomes),
                "pending": result.replayed - result.outcomes.total(),
                "seconds": round(result.seconds, 3),
                "records_per_second": round(result.records_per_second),
                "records_per_cpu_second": round(result.records_per_cpu_second),
            }
        )
        return
    if dry_run:
        fit = result.selected - result.capped - result.refused - result.left_out
        typer.echo(f"{fit:,} of {result.selected:,} open dead letters would be replayed; nothing was sent")
        for reason, count in result.would_be_rejected.most_common():
            typer.echo(f"  {count:,} of them would be rejected again: {reason}")
    else:
        took = f"{result.seconds:.1f} s, {result.records_per_second:,.0f} a second"
        typer.echo(f"{result.replayed:,} of {result.selected:,} open dead letters replayed; {took}")
        _echo_outcomes(result)
    if result.capped:
        typer.echo(f"  {result.capped:,} have failed {attempts_max} times or more and were left alone (--attempts-max)")
    if result.left_out:
        typer.echo(f"  {result.left_out:,} were left out by the transform, they are open as before")
    for each in result.refusals:
        typer.echo(f"  {each.id}: {each.why}", err=True)


def _echo_outcomes(result: "ReplayResult") -> None:
    from streams.deadletters.audit import Outcome  # noqa: PLC0415 - start-up time of the command line
    from streams.review.replay import explained  # noqa: PLC0415 - as above

    for name, count in result.outcomes.most_common():
        typer.echo(f"  {count:,} {explained(Outcome(name))}")
    if pending := result.replayed - result.outcomes.total():
        typer.echo(f"  {pending:,} are not processed yet; `streams dlq list` tells later what became of them")
