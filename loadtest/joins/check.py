"""The second opinion on the joined rows: plain Python, an event at a time, by the model of the order flows."""

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from loadtest.joins.flow import JOINED, POSITION_SUBJECT, POSITIONS, STEPS, WITHIN_MS
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import Decoder, Record, SchemaById, newest_schema
from loadtest.oracle.events import Event
from loadtest.oracle.order_flows import AnyRecord, Position, Row, Step, merged, position_of
from loadtest.oracle.read import TopicReader
from loadtest.oracle.rows import row_reader

_NAMES: Final = ("vehicle_id", "order_id", "event_time", "position_time", "latitude", "longitude")


def check_joined(
    reader: TopicReader,
    schema_by_id: SchemaById,
    lateness_ms: int,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> Report:
    """Compare the joined rows with what the logs of steps and positions demand.

    They must be at rest, and hold no late event and nothing that is rejected. Positions are not forgotten: the traffic
    is shorter than the join looks back.

    Raises:
        StreamsError: a topic is missing, or Kafka or the registry does not answer.

    """
    report = Report()
    read_row = row_reader(schema_by_id)
    for partition in range(reader.partitions(STEPS)):
        logs = _steps(reader, read_row, partition), _positions(reader, schema_by_id, partition)
        expected = joined(*logs, lateness_ms)
        report.events += sum(map(len, logs))
        written = [read_row(one.value() or b"") for batch in reader.batches(JOINED, [partition]) for one in batch]
        judge(report, expected, written)
        on_progress(partition + 1)
    return report


def joined(steps: list[AnyRecord], positions: list[AnyRecord], lateness_ms: int) -> list[Row]:
    """Rows of one partition, in order."""
    known: defaultdict[str, list[Position]] = defaultdict(list)
    rows: list[Row] = []
    for event in merged((steps, positions), (lateness_ms, lateness_ms)):
        if isinstance(event, Position):
            known[event.key].append(event)
            continue
        time_ms = event.event_time_ms
        at = next((one for one in reversed(known[event.key]) if one.event_time_ms <= time_ms), None)
        if at is not None and at.event_time_ms < time_ms - WITHIN_MS:
            at = None
        row: Row = {
            "event_id": event.event_id, "vehicle_id": event.key, "order_id": event.order_id, "event_time": time_ms,
            "position_time": at and at.event_time_ms, "latitude": at and at.latitude, "longitude": at and at.longitude,
        }  # fmt: skip
        rows.append(row)
    return rows


def judge(report: Report, expected: list[Row], written: list[Row]) -> None:
    """Count what is lost, there twice, different, and out of order."""
    wanted = {(row["event_id"], row["event_time"]): row for row in expected}
    found: dict[tuple[str, int], Row] = {}
    for row in written:
        identity = (row["event_id"], row["event_time"])
        report.duplicated += identity in found
        found[identity] = row
    report.clean += len(found)
    report.lost += len(wanted.keys() - found.keys())
    report.unexpected += len(found.keys() - wanted.keys())
    report.table_mismatches += sum(
        any(found[one][name] != wanted[one][name] for name in _NAMES) for one in wanted.keys() & found.keys()
    )
    last: dict[str, int] = {}
    for row in written:
        report.out_of_order += row["event_time"] < last.get(row["vehicle_id"], 0)
        last[row["vehicle_id"]] = row["event_time"]


def _steps(reader: TopicReader, read_row: Callable[[bytes], Row], partition: int) -> list[AnyRecord]:
    found: list[AnyRecord] = []
    for batch in reader.batches(STEPS, [partition]):
        for one in batch:
            row = read_row(one.value() or b"")
            found.append(
                Step(
                    one.timestamp()[1],
                    row["event_id"],
                    row["bound_to"],
                    row["sequence"],
                    row["event_time"],
                    row["order_id"],
                    row["kind"],
                    row["vehicle_id"],
                    None,
                    None,
                    None,
                )
            )
    return found


def _positions(reader: TopicReader, schema_by_id: SchemaById, partition: int) -> list[AnyRecord]:
    decoder = Decoder(schema_by_id, newest_schema(POSITION_SUBJECT), Event)
    found: list[AnyRecord] = []
    for batch in reader.batches(POSITIONS, [partition]):
        records = [Record(one.offset() or 0, one.timestamp()[1], one.key(), one.value() or b"") for one in batch]
        found += [position_of(event) for event in decoder.decode(records) if isinstance(event, Event)]
    return found
