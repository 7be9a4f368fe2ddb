"""The flows `dispatch` and `tracking` over real topics: what their inputs demand against what they have written.

Reads every topic to its end with read_committed, so it wants flows that have caught up, and no time in between in which
a partition was idle while others went on: what was merged then depends on when.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Message
from rich.console import Console

from loadtest.oracle.decode import Decoder, Record, SchemaById, newest_schema
from loadtest.oracle.events import Event, OrderEvent, Reject
from loadtest.oracle.order_flows import (
    AnyRecord,
    DispatchModel,
    Row,
    Step,
    TrackingModel,
    differing,
    due_events,
    merged,
    position_of,
    step_of,
)
from loadtest.oracle.read import TopicReader
from loadtest.oracle.rows import row_reader
from streams.flow.declaration import Pipeline

DETAILS_MAX: Final = 20
_NOT_COMPARED: Final = frozenset({"event_id"})


@dataclass(slots=True)
class OrderReport:
    """How many rows there are by topic, and what is wrong with them."""

    rows: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    """Number of `lost`, `unexpected` and `different` rows."""
    details: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every row is there once, and right."""
        return not self.faults.total()

    def note(self, fault: str, what: str, count: int = 1) -> None:
        """Count rows of one fault, and remember an example of it."""
        self.faults[fault] += count
        if len(self.details) < DETAILS_MAX:
            self.details.append(f"{fault}: {what}")


class _Topics:
    """Reads the topics of the flows."""

    def __init__(self, reader: TopicReader, schema_by_id: SchemaById) -> None:
        self._reader, self._schema_by_id = reader, schema_by_id
        self._read_row = row_reader(schema_by_id)

    def partitions(self, topic: str) -> int:
        return self._reader.partitions(topic)

    def rows(self, topic: str) -> list[Row]:
        return [self._read_row(message.value() or b"") for message in self._reader.records(topic)]

    def steps(self, topic: str, partition: int) -> list[AnyRecord]:
        """Return the steps in a partition that are bound to a vehicle."""
        return [_bound_step(one, self._read_row(one.value() or b"")) for one in self._messages(topic, partition)]

    def orders(self, topic: str, partition: int) -> list[AnyRecord]:
        decoder = Decoder(self._schema_by_id, newest_schema("orders.events.v1-value"), OrderEvent)
        return [step_of(event) for event in self._events(decoder, topic, partition) if isinstance(event, OrderEvent)]

    def positions(self, topic: str, partition: int) -> list[AnyRecord]:
        decoder = Decoder(self._schema_by_id, newest_schema("gps.positions.v1-value"), Event)
        return [position_of(event) for event in self._events(decoder, topic, partition) if isinstance(event, Event)]

    def _events(self, decoder: Decoder, topic: str, partition: int) -> Iterable[OrderEvent | Event | Reject]:
        messages = self._messages(topic, partition)
        records = [Record(one.offset() or 0, one.timestamp()[1], one.key(), one.value() or b"") for one in messages]
        return decoder.decode(records) if records else []

    def _messages(self, topic: str, partition: int) -> list[Message]:
        return [message for batch in self._reader.batches(topic, [partition]) for message in batch]


def _bound_step(message: Message, row: Row) -> Step:
    return Step(
        message.timestamp()[1], row["event_id"], row["bound_to"], row["sequence"], row["event_time"], row["order_id"],
        row["kind"], row["vehicle_id"], row["destination_latitude"], row["destination_longitude"],
        row["promised_time"],
    )  # fmt: skip


def check_dispatch(reader: TopicReader, schema_by_id: SchemaById, pipeline: Pipeline) -> OrderReport:
    """Compare bound steps and broken promises with the model of the clean orders.

    Raises:
        StreamsError: a topic is missing, or Kafka or the registry does not answer.

    """
    topics, report = _Topics(reader, schema_by_id), OrderReport()
    bound, overdue, _ = (one.topic for one in pipeline.row_outputs)
    expected: list[Row] = []
    broken: list[Row] = []
    may_pass: set[tuple[str, int]] = set()
    for partition in range(topics.partitions(pipeline.source)):
        model, watermark = DispatchModel(), float("-inf")
        for due in due_events(topics.orders(pipeline.source, partition), pipeline.bounds.lateness_ms):
            assert isinstance(due.event, Step)  # noqa: S101 - the log has nothing else
            model.add(due.event, due.watermark_before)
            watermark = max(watermark, due.watermark_before)
        model.end(watermark)
        expected += model.bound
        broken += model.overdue
        model.end(float("inf"))  # by idle time more of them pass
        may_pass |= {(row["order_id"], row["promised_time"]) for row in model.overdue}
    _compare(report, bound, expected, topics.rows(bound))
    seen = topics.rows(overdue)
    report.rows[overdue] = len(seen)
    names = ("order_id", "reason", "promised_time", "delivered_time", "late_by_ms")
    wanted, found = ({tuple(row[name] for name in names) for row in rows} for rows in (broken, seen))
    for lost in sorted(wanted - found, key=str):
        report.note("lost", f"{overdue}: {lost}")
    for other in sorted(found - wanted, key=str):
        if other[1] != "PROMISE_PASSED" or (other[0], other[2]) not in may_pass:
            report.note("unexpected", f"{overdue}: {other}")
    if len(found) < len(seen):
        report.note("duplicated", f"{overdue}: rows that are there twice", len(seen) - len(found))
    return report


def check_tracking(reader: TopicReader, schema_by_id: SchemaById, pipeline: Pipeline) -> OrderReport:
    """Compare followed orders and verdicts with the model of bound steps and clean positions; raises as the other."""
    topics, report = _Topics(reader, schema_by_id), OrderReport()
    tracking, _, verified = (one.topic for one in pipeline.row_outputs)
    orders, positions = pipeline.inputs
    lateness_ms = (orders.bounds.lateness_ms, positions.bounds.lateness_ms)
    followed: list[Row] = []
    judged: list[Row] = []
    for partition in range(topics.partitions(orders.topic)):
        model = TrackingModel()
        logs = (topics.steps(orders.topic, partition), topics.positions(positions.topic, partition))
        for event in merged(logs, lateness_ms):
            model.add(event)
        followed += model.tracking
        judged += model.verified
    _compare(report, tracking, followed, topics.rows(tracking))
    _compare(report, verified, judged, topics.rows(verified))
    return report


def _compare(report: OrderReport, topic: str, expected: Sequence[Row], observed: Sequence[Row]) -> None:
    """Rows in any order; those of one order and time are told apart by what else they say."""
    report.rows[topic] = len(observed)
    wanted, found = _by_name(expected), _by_name(observed)
    for name in sorted(wanted.keys() | found.keys(), key=str):
        mine, theirs = wanted.get(name, []), list(found.get(name, []))
        for row in mine:
            same = next((other for other in theirs if not differing(row, other)), None)
            if same is not None:
                theirs.remove(same)
            elif len(mine) == 1 and len(theirs) == 1:
                (other,) = theirs
                report.note("different", f"{topic} {name}: {', '.join(differing(row, other))}: {row} and {other}")
                theirs.clear()
            else:
                report.note("lost", f"{topic} {name}: {row}")
        for other in theirs:
            report.note("unexpected", f"{topic} {name}: {other}")


def _by_name(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        name = (row["order_id"], row.get("event_time", row.get("delivered_time")), row.get("status", row.get("kind")))
        found.setdefault(name, []).append({key: value for key, value in row.items() if key not in _NOT_COMPARED})
    return found


CHECKS: Final = {"dispatch": check_dispatch, "tracking": check_tracking}


def print_order_report(console: Console, report: OrderReport) -> None:
    """Show the counts, and the first faults in words."""
    for topic, count in report.rows.items():
        console.print(f"{topic}: {count:,} rows", highlight=False)
    for fault in ("lost", "unexpected", "different", "duplicated"):
        count = report.faults[fault]
        console.print(f"{fault}: {count:,}", style="bold red" if count else "green", highlight=False)
    for detail in report.details:
        console.print(f"  {detail}", markup=False, highlight=False)
