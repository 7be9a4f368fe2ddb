"""What a run has found: as a document, as lines of text, and as metrics of a file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from streams.masking import PERSONAL_MASK
from streams.reconcile.differences import Column, Difference, Findings, Kind, Place, instant
from streams.reconcile.run import Result
from streams.text import counted

KEYS_SHOWN: Final = 100
"""Keys that text and page show in full; the document has all that were kept."""
ROWS_SHOWN: Final = 20
"""Differences of one key that text shows."""


@dataclass(frozen=True, slots=True)
class Personal:
    """What is not shown: values of columns that hold personal data, keys and ids where these do."""

    columns: frozenset[str] = frozenset()
    keys: bool = False
    ids: bool = False


AS_EXPECTED: Final = "its outputs are as expected"
Document = dict[str, Any]


def document_of(result: Result, personal: Personal) -> Document:
    """Return the whole report, as the object of its JSON."""
    plan, point, findings, options = result.plan, result.point, result.findings, result.options
    rules = plan.rules
    return {
        "flow": result.flow,
        "source": plan.pipeline.source,
        "at": instant(result.at_ms),
        **counts_of(findings),
        "records": result.records,
        "keys": result.keys,
        "not_recomputed": list(plan.left_out),
        "bounds": {
            "lateness_ms": rules.lateness_ms,
            "dedup_horizon_ms": rules.horizon_ms,
            "skew_ms_max": rules.skew_ms_max,
            "idle_ms": rules.idle_ms,
            "quarantine_rejects": rules.quarantine_rejects,
            "quarantine_cooldown_ms": rules.quarantine_cooldown_ms,
            "recorded_with_state": result.recorded_bounds,
        },
        "scope": {
            "keys": [PERSONAL_MASK if personal.keys else _text(key) for key in sorted(options.chosen.keys)],
            "sample": options.chosen.sample,
            "since": None if options.since_ms is None else instant(options.since_ms),
        },
        "partitions": [
            {
                "partition": number,
                "from_offset": point.low[plan.pipeline.source, number],
                "reached_offset": 0 if (at := point.reached[number]) is None else at.offset_next,
                "settled_offset": 0 if (to := point.settled[number]) is None else to.offset_next,
            }
            for number in range(point.partitions)
        ],
        "seconds": round(result.took_s, 3),
        "by_key": rows_by_key(findings, plan.pipeline.source, personal),
    }


def counts_of(findings: Findings) -> Document:
    """How many of what, for a document."""
    return {
        "agrees": findings.total == 0,
        "differences": findings.total,
        "counts": {kind.value: count for kind, count in sorted(findings.counts.items())},
        "checked": dict(sorted(findings.checked.items())),
        "not_checked": {kind.value: count for kind, count in sorted(findings.unchecked.items())},
        "remarks": dict(sorted(findings.remarks.items())),
        "not_shown": findings.total - len(findings.differences),
    }


def rows_by_key(findings: Findings, source: str, personal: Personal) -> list[Document]:
    """Differences by key, for a document; `source`: the topic of the events that explain them."""
    return [_key_row(key, found, source, personal) for key, found in _by_key(findings.differences)]


def _by_key(differences: list[Difference]) -> list[tuple[bytes | None, list[Difference]]]:
    """Differences by key, the earliest first; a key's by the event that explains them."""
    groups: dict[bytes | None, list[Difference]] = {}
    for each in differences:
        groups.setdefault(each.key, []).append(each)
    order = list(Kind)
    for found in groups.values():
        found.sort(key=lambda each: (_place_order(each.event), order.index(each.kind)))
    return sorted(groups.items(), key=lambda item: (_place_order(item[1][0].event), item[0] or b""))


def _place_order(place: Place | None) -> tuple[float, int, int]:
    if place is None:
        return float("inf"), 0, 0
    time_ms = float("inf") if place.event_time_ms is None else float(place.event_time_ms)
    return time_ms, place.partition, place.offset


def _key_row(key: bytes | None, found: list[Difference], source: str, personal: Personal) -> Document:
    first = next((each.event for each in found if each.event is not None and each.event.offset >= 0), None)
    return {
        "key": None if key is None else PERSONAL_MASK if personal.keys else _text(key),
        "first_event": None if first is None else _place_row(first, source, personal),
        "differences": [_difference_row(each, source, personal) for each in found],
    }


def _difference_row(each: Difference, source: str, personal: Personal) -> Document:
    text = each.text
    if personal.ids and each.event is not None and each.event.event_id:
        text = text.replace(each.event.event_id, PERSONAL_MASK)
    return {
        "kind": each.kind.value,
        "topic": each.topic,
        "text": text,
        "event": None if each.event is None else _place_row(each.event, source, personal),
        "columns": [_column_row(column, personal) for column in each.columns],
    }


def _place_row(place: Place, source: str, personal: Personal) -> Document:
    return {
        "event_id": PERSONAL_MASK if personal.ids and place.event_id else place.event_id,
        "event_time": None if place.event_time_ms is None else instant(place.event_time_ms),
        "topic": source if place.offset >= 0 else None,
        "partition": place.partition if place.offset >= 0 else None,
        "offset": place.offset if place.offset >= 0 else None,
    }


def _column_row(column: Column, personal: Personal) -> Document:
    if column.name in personal.columns:
        return {"name": column.name, "expected": PERSONAL_MASK, "actual": PERSONAL_MASK}
    return {"name": column.name, "expected": column.expected, "actual": column.actual}


def lines_of(document: Document) -> Iterator[str]:
    """The report as lines of text."""
    yield headline(document)
    yield (
        f"{document['records']:,} records of {document['source']} were compared with {document['target']}, up to the "
        f"offsets {reached(document)}"
        if "target" in document
        else f"{document['records']:,} records of {document['source']} of {counted(document['keys'], 'key')} were "
        f"judged by the model, up to the offsets {reached(document)}"
    )
    yield from _table("compared", document["checked"])
    yield from _table("not checked", document["not_checked"])
    if document["not_recomputed"]:
        yield f"not recomputed, since steps of your own write them: {', '.join(document['not_recomputed'])}"
    yield from _table("found beside", document["remarks"])
    if document["counts"]:
        yield ""
        yield from _table("differences", document["counts"])
    for number, each in enumerate(document["by_key"]):
        if number == KEYS_SHOWN:
            yield f"... and {len(document['by_key']) - number:,} more keys: --format json has them"
            break
        yield ""
        yield from _key_lines(each)
    if document["not_shown"]:
        yield f"{document['not_shown']:,} more differences were counted and are not shown"


def headline(document: Document) -> str:
    """The verdict in a line."""
    count, keys = document["differences"], len(document["by_key"])
    agrees = "the target holds what its topic says" if "target" in document else AS_EXPECTED
    verdict = agrees if document["agrees"] else f"{counted(count, 'difference')} of {counted(keys, 'key')}"
    return f"{document['flow']} at {document['at']}: {verdict}"


def reached(document: Document) -> str:
    """How far the flow had read, by partition."""
    return ", ".join(f"{each['partition']}: {each['reached_offset']:,}" for each in document["partitions"])


def _table(title: str, rows: Mapping[str, int]) -> Iterator[str]:
    if rows:
        yield f"{title}:"
        for name, count in rows.items():
            yield f"{count:>14,}  {name}"


def _key_lines(row: Document) -> Iterator[str]:
    yield f"key {'(none)' if row['key'] is None else row['key']}"
    if row["first_event"] is not None:
        yield f"  first event: {event_words(row['first_event'])}"
    for number, each in enumerate(row["differences"]):
        if number == ROWS_SHOWN:
            yield f"  ... and {len(row['differences']) - number:,} more"
            return
        yield f"  {each['kind']} in {each['topic']}: {each['text']}"
        if each["event"] is not None and each["event"] != row["first_event"]:
            yield f"      event: {event_words(each['event'])}"
        for column in each["columns"]:
            yield f"      {column['name']}: expected {column['expected']}, actual {column['actual']}"


def event_words(event: Document) -> str:
    """An event and its place."""
    where = (
        f"{event['topic']}-{event['partition']}, offset {event['offset']}" if event["topic"] else "not in the source"
    )
    if not event["event_id"]:
        return where
    return f"{event['event_id']} of {event['event_time']} ({where})"


def write_metrics(path: Path, result: Result) -> None:
    """Write the metrics of a run for a flow, as `write_metrics_of` does."""
    write_metrics_of(path, result.flow, result.findings, result.at_ms, result.took_s)


def write_metrics_of(path: Path, flow: str, findings: Findings, at_ms: int, took_s: float) -> None:
    """A file for the textfile collector of Prometheus' node exporter, replaced as a whole.

    Raises:
        OSError: it cannot be written.

    """
    registry = CollectorRegistry()
    differences = Gauge(
        "streams_reconcile_differences", "Differences that the last run found.", ["pipeline", "kind"], registry=registry
    )
    for kind in Kind:
        differences.labels(flow, kind.value).set(findings.counts[kind])
    checked = Gauge(
        "streams_reconcile_checked", "Records and rows that the last run compared.", ["pipeline", "what"],
        registry=registry,
    )  # fmt: skip
    for what, count in findings.checked.items():
        checked.labels(flow, what).set(count)
    unchecked = Gauge(
        "streams_reconcile_not_checked", "What the last run could not check.", ["pipeline", "what"], registry=registry
    )
    for each, count in findings.unchecked.items():
        unchecked.labels(flow, each.value).set(count)
    for name, words, value in (
        ("streams_reconcile_last_run_timestamp_seconds", "When the last run fixed its point.", at_ms / 1000),
        ("streams_reconcile_duration_seconds", "How long the last run took.", took_s),
    ):
        Gauge(name, words, ["pipeline"], registry=registry).labels(flow).set(value)
    write_to_textfile(str(path), registry)


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")
