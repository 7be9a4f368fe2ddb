"""How `streams dlq` prints letters and what was done about them."""

import datetime as dt
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.output import Format, echo_json

if TYPE_CHECKING:
    from streams.review.look import Details, Entry
    from streams.review.replay import ReplayResult


def _iso(time_ms: int | None) -> str | None:
    if time_ms is None:
        return None
    try:
        moment = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return str(time_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def entry_row(entry: "Entry") -> dict[str, Any]:
    """A letter for JSON output."""
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


def echo_entries(entries: "list[Entry]") -> None:
    """Print letters, one a line."""
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


def details_row(shown: "Details") -> dict[str, Any]:
    """Everything about a letter for JSON output."""
    view, failure = shown.view, shown.view.failure
    row = entry_row(shown.entry)
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


def echo_details(shown: "Details") -> None:
    """Print everything about a letter."""
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


def echo_replay(result: "ReplayResult", dry_run: bool, attempts_max: int, output: Format) -> None:  # noqa: FBT001
    """Print what a replay did."""
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
