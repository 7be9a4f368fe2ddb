"""How `streams dlq` prints letters and what was done about them."""

import datetime as dt
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streams.cli.output import Format, echo_json, echo_line, echo_lines, printable
from streams.deadletters.letter.audit import Outcome
from streams.deadletters.letter.foreign import Origin
from streams.deadletters.letter.pin import Pin
from streams.deadletters.review.choice import Refusal
from streams.deadletters.review.discard import DiscardResult
from streams.deadletters.review.look import Details, Entry, Listing
from streams.deadletters.review.replay import ReplayResult, explained
from streams.text import counted

GROUPS_SHOWN: Final = 50
CHARACTERS_SHOWN: Final = 200
"""Characters shown of a text that others have written."""


def _iso(time_ms: int | None) -> str | None:
    if time_ms is None:
        return None
    try:
        moment = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError, TypeError):  # an audit record may be somebody else's
        return str(time_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def entry_row(entry: Entry) -> dict[str, Any]:
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


def echo_listing(found: Listing) -> None:
    """Print counts, then letters."""
    echo_line(f"{counted(found.total, 'dead letter')}, {found.open:,} open")
    shown = [(_line(name), count, still) for name, count, still in found.groups[:GROUPS_SHOWN]]
    width = max((len(name) for name, _, _ in shown), default=0)
    for name, count, still in shown:
        echo_line(f"  {name:<{width}}  {count:>11,}  open {still:>11,}")
    if len(found.groups) > GROUPS_SHOWN:
        echo_line(f"  ... and {len(found.groups) - GROUPS_SHOWN:,} more")
    if found.entries:
        echo_line()
        echo_entries(found.entries)


def echo_entries(entries: list[Entry]) -> None:
    """Print letters, one a line."""
    widths = [max(len(each) for each in column) for column in zip(*map(_cells, entries), strict=True)]
    for entry in entries:
        cells = [f"{cell:<{width}}" for cell, width in zip(_cells(entry), widths, strict=True)]
        echo_line(f"{'  '.join(cells)}  {_line(entry.letter.message)}".rstrip())


def _cells(entry: Entry) -> list[str]:
    letter = entry.letter
    status = entry.status if entry.outcome is None else f"{entry.status}, {entry.outcome.value}"
    number = "" if letter.attempt == 1 else f"attempt {letter.attempt}"
    return [letter.id, _iso(letter.timestamp_ms) or "", status, _line(letter.reason), _line(entry.key), number]


def _line(text: str) -> str:
    """Others' text, on one line and shortened."""
    return printable(text[:CHARACTERS_SHOWN])[:CHARACTERS_SHOWN]


def details_row(shown: Details) -> dict[str, Any]:
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


def echo_details(shown: Details) -> None:
    """Print everything about a letter."""
    entry, view, letter = shown.entry, shown.view, shown.entry.letter
    origin = shown.origin
    echo_line(f"dead letter   {letter.id}  {', '.join(_cells(entry)[2:3])}")
    echo_line(f"reason        {letter.reason}: {view.reason_in_words}")
    echo_line(f"message       {_line(letter.message)}")
    echo_line(f"attempt       {letter.attempt}, first failed at {_iso(letter.first_failed_at)}")
    echo_line(f"read from     {_place(origin)}")
    echo_line(f"lies at       {letter.topic}-{letter.partition}@{letter.offset}, {_iso(letter.timestamp_ms)}")
    echo_line(f"key           {_line(view.key)}")
    for name, value in view.headers:
        echo_line(f"header        {_line(name)}: {_line(value)}")
    _echo_bytes(shown)
    _echo_schema(shown)
    if shown.earlier:
        echo_line()
        echo_line("earlier attempts")
        for each in shown.earlier:
            by = f", replayed by {each.replayed['by']}" if "by" in each.replayed else ""
            at = _iso(each.replayed["replayed_at"]) if isinstance(each.replayed.get("replayed_at"), int) else None
            echo_line(f"  {each.attempt}  {each.reason}: {_line(each.message)} ({each.source_place}{_line(by)}, {at})")
    if shown.resolution is not None:
        echo_line()
        echo_line("resolution")
        for name, value in shown.resolution.items():
            echo_line(f"  {name:<17} {_line(str(_iso(value) if name in {'at', 'outcome_at'} else value))}")
    echo_line()
    echo_line("headers of the envelope")
    for name, value in shown.envelope:
        echo_line(f"  {name}: {_line(value)}")
    if view.is_masked:
        echo_line()
        echo_line("Personal data is masked (•••, ··); --reveal shows it, and is audited.")


def _place(origin: Origin) -> str:
    """Where the record was read, as far as the envelope says."""
    if origin.topic is None:
        return "nothing says where"
    partition, offset = ("?" if number is None else str(number) for number in (origin.partition, origin.offset))
    by = "" if origin.group is None else f" by {_line(origin.group)}"
    return f"{_line(origin.topic)}-{partition}@{offset}{by}"


def _echo_bytes(shown: Details) -> None:
    view, failure = shown.view, shown.view.failure
    echo_line()
    echo_line(f"value, {counted(view.size_bytes, 'byte')}")
    for row in view.hex_rows:
        marks = "".join("^^ " if marked else "   " for marked in row.marked).rstrip()
        echo_line(f"  {row.offset:08x}  {' '.join(row.digits):<47}  {row.characters}")
        if marks:
            echo_line(f"            {marks}")
    if view.hex_omitted_bytes:
        echo_line(f"  ({counted(view.hex_omitted_bytes, 'more byte')} not shown)")
    if failure is not None:
        field = f", field {failure.path}" if failure.path else ""
        echo_line(f"  fails at byte {failure.start}{field}: {_line(failure.message)}")


def _echo_schema(shown: Details) -> None:
    view, failure = shown.view, shown.view.failure
    echo_line()
    echo_line(f"writer schema {shown.schema_id if shown.schema_id is not None else '-'}")
    if shown.schema_text is None:
        echo_line(f"  {shown.schema_problem}")
        return
    echo_lines(textwrap.indent(shown.schema_text, "  "))
    echo_line()
    echo_line("fields, as far as they can be read")
    width = max((len(leaf.path) for leaf in view.leaves), default=0)
    for leaf in view.leaves:
        mark = "  <-- here" if failure is not None and failure.path == leaf.path else ""
        echo_line(f"  {leaf.start:>6}-{leaf.end:<6} {leaf.path:<{width}}  {_line(leaf.shown)}{mark}")
    if failure is not None and not any(leaf.path == failure.path for leaf in view.leaves):
        echo_line(f"  {failure.start:>6}        {failure.path or '(end)'}  <-- {_line(failure.message)}")


def echo_replay(result: ReplayResult, dry_run: bool, attempts_max: int, output: Format) -> None:  # noqa: FBT001
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
                "into": dict(result.into),
                "pin": None if result.pin is None else str(result.pin),
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
        echo_line(f"{fit:,} of {counted(result.selected, 'open dead letter')} would be replayed; nothing was sent")
        _echo_topics("into", result.into)
        for reason, count in result.would_be_rejected.most_common():
            echo_line(f"  {count:,} of them would be rejected again: {reason}")
    else:
        took = f"{result.seconds:.1f} s, {result.records_per_second:,.0f} a second"
        echo_line(f"{result.replayed:,} of {counted(result.selected, 'open dead letter')} replayed; {took}")
        _echo_topics("into", result.into)
        _echo_outcomes(result)
    if result.capped:
        have = "has" if result.capped == 1 else "have"
        echo_line(f"  {result.capped:,} {have} failed {attempts_max} times or more: left alone (--attempts-max)")
    if result.left_out:
        echo_line(f"  {result.left_out:,} left out by the transform, open as before")
    _echo_refusals(result.refusals, result.refused)
    if dry_run:
        _echo_pin(result.pin)


def echo_discard(result: DiscardResult, dry_run: bool, output: Format) -> None:  # noqa: FBT001
    """Print what a discard did."""
    if output is Format.JSON:
        echo_json(
            {
                "dry_run": dry_run,
                "selected": result.selected,
                "discarded": result.discarded,
                "topics": dict(result.by_topic),
                "refused": result.refusals.count,
                "refusals": [{"id": each.id, "why": each.why} for each in result.refusals.shown],
                "pin": None if result.pin is None else str(result.pin),
            }
        )
        return
    number = sum(result.by_topic.values())
    echo_line(f"{counted(number, 'dead letter')} {'would be discarded' if dry_run else 'discarded'}")
    _echo_topics("of", result.by_topic)
    _echo_refusals(result.refusals.shown, result.refusals.count)
    if dry_run:
        _echo_pin(result.pin)


def _echo_topics(how: str, topics: Mapping[str, int]) -> None:
    for topic, count in sorted(topics.items()):
        if count:
            echo_line(f"  {count:,} {how} {topic}")


def _echo_refusals(shown: Sequence[Refusal], count: int) -> None:
    for each in shown:
        echo_line(f"  {each.id}: {each.why}", err=True)
    if count > len(shown):
        echo_line(f"  ... and {count - len(shown):,} more", err=True)


def _echo_pin(pin: Pin | None) -> None:
    if pin is not None:
        echo_line(f"  to do it to these and to none that come later, add --pin {pin}")


def _echo_outcomes(result: ReplayResult) -> None:

    for name, count in result.outcomes.most_common():
        echo_line(f"  {count:,} {explained(Outcome(name))}")
    if pending := result.replayed - result.outcomes.total():
        echo_line(f"  {pending:,} not processed yet; `streams dlq list` tells later what became of them")
