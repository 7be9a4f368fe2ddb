"""The oracle over real topics: the expected outputs against what the flow has written.

Reads every topic to its end with read_committed, so it wants a flow that has caught up. Events that a worker still
holds are expected in clean all the same: an idle partition lets go of them after `STREAMS_IDLE_MS`. So are windows that
are still open: they close when the watermark, which then goes on with the clock, has passed their end and grace.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Final, cast

import typer
from rich.console import Console
from rich.table import Table

from loadtest.oracle.compare import UNREADABLE as UNREADABLE_ORDER
from loadtest.oracle.compare import Coordinates, DeadLetter, KeptTimes, LateRow, Output, Report, compare
from loadtest.oracle.decode import (
    Decoder,
    Record,
    SchemaById,
    bad_header,
    newest_schema,
    registry_schemas,
    too_large,
    unknown_schema,
)
from loadtest.oracle.events import OrderKey, Reject
from loadtest.oracle.folds import DOMAINS
from loadtest.oracle.model import PartitionModel
from loadtest.oracle.order_check import CHECKS, print_order_report
from loadtest.oracle.read import Share, TopicReader
from loadtest.oracle.rows import row_reader
from loadtest.oracle.trips import Session, TripModel
from loadtest.oracle.windows import Window, windows_of
from streams.errors import FoundSomething, StreamsError
from streams.flow.discover import select_pipelines
from streams.kafka.headers import headers_of, read_headers
from streams.kafka.partitioner import partition_of
from streams.settings import Settings, load_settings

REASON_HEADER: Final = "dlq.reason"
TOPIC_HEADER: Final = "__streams.errors.topic"
PARTITION_HEADER: Final = "__streams.errors.partition"
OFFSET_HEADER: Final = "__streams.errors.offset"
REPLAYED_HEADER: Final = "dlq.replayed"
"""The last header of a record that was replayed from a dead letter."""

UnknownUntil = Mapping[int, Mapping[int, int]]
"""By schema id and partition of the source: the offset before which the registry did not know the schema."""


class Misrouted(StreamsError):
    """Keys are in partitions where their hash does not put them: partitions cannot be judged one by one."""


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics of a flow with one table."""

    pipeline: str
    source: str
    clean: str
    late: str
    dlq: str
    table: str
    windows: tuple[Window, ...] = ()
    sessions: tuple[Session, ...] = ()
    subject: str = ""
    """Subject of the source's schema; empty: it follows from the name of the topic."""

    @classmethod
    def of_pipeline(cls, name: str, prefix: str = "", version: str = "") -> "Topics":
        """Topics of a declared flow, which begin with `prefix`; those of one of its versions.

        Raises:
            UsageError: there is no such flow.

        """
        (declared,) = select_pipelines([name], prefix=prefix)
        pipeline = declared.as_version(version)
        windows = windows_of(pipeline)
        sessions = tuple(one for one in getattr(pipeline, "windows", ()) if getattr(one, "gap_ms", 0))
        table = pipeline.tables[0].topic
        return cls(
            name, pipeline.source, pipeline.clean, pipeline.late, pipeline.dlq, table, windows, sessions,
            pipeline.subject,
        )  # fmt: skip

    def without_windows(self) -> "Topics":
        """The same, with no window to compare: for what a worker has written that emits none."""
        return replace(self, windows=(), sessions=())


@dataclass(frozen=True, slots=True)
class Limits:
    """The worker's settings that the outcome depends on."""

    lateness_ms: int
    horizon_ms: int
    skew_ms_max: int
    record_bytes_max: int
    quarantine_rejects: int = 100
    quarantine_cooldown_ms: int = 60_000
    now_ms: int | None = None
    """The time at which the worker has read the records; None: about now. It matters only for timestamps that are no
    time, and of those only for the ones that will soon be one."""
    is_idle_in_the_end: bool = True
    """Whether idle partitions have let go of what they held; otherwise it is not expected anywhere."""
    timestamp_age_ms: int | None = None
    """Clean records keep the timestamps of the source's, of the last so many milliseconds before they are written;
    None: their timestamps are not compared."""

    @classmethod
    def of_settings(cls, settings: Settings) -> "Limits":
        """Those that a worker with these settings has."""
        return cls(
            settings.streams_lateness_ms,
            settings.streams_dedup_horizon_ms,
            settings.streams_skew_ms_max,
            settings.streams_record_bytes_max,
            settings.streams_quarantine_rejects,
            settings.streams_quarantine_cooldown_ms,
        )


def check(
    bootstrap: str,
    schema_by_id: SchemaById,
    topics: Topics,
    limits: Limits,
    *,
    all_closed: bool = False,
    unknown_until: UnknownUntil | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> Report:
    """Compare the output of a flow that has caught up with the model of its source.

    Takes some 20 µs and 800 bytes per event, and 500 bytes per window. `on_progress` gets a topic's name and how many
    of its records are read. `all_closed`: no window is open any more, as after an idle time of its size and grace.
    `unknown_until`: schemas that the registry has by now, but had not when the records before these offsets came.

    Raises:
        StreamsError: a topic is missing, or Kafka or the registry does not answer.

    """
    reader = TopicReader(bootstrap)
    try:
        return judge(
            reader,
            schema_by_id,
            topics,
            limits,
            on_progress or (lambda _topic, _records: None),
            all_closed=all_closed,
            unknown_until=unknown_until,
        )
    finally:
        reader.close()


def judge(
    reader: TopicReader,
    schema_by_id: SchemaById,
    topics: Topics,
    limits: Limits,
    progress: Callable[[str, int], None],
    *,
    all_closed: bool = True,
    share: Share | None = None,
    unknown_until: UnknownUntil | None = None,
) -> Report:
    """As `check`, of what `reader` reads; with `share`, of one partition of the source and the keys that belong there.

    Raises:
        Misrouted: the partition has keys of others, so that it cannot be judged alone.

    """
    decoder = Decoder(
        schema_by_id, newest_schema(topics.subject or f"{topics.source}-value"), DOMAINS[topics.pipeline].event
    )
    with _without_cyclic_collection():
        expected, records, duplicates = _foretell(reader, decoder, topics, limits, progress, share, unknown_until or {})
        observed = _read_output(reader, topics, schema_by_id, progress, share)
        age_ms = limits.timestamp_age_ms
        kept = None if age_ms is None else KeptTimes(age_ms, time.time_ns() // 1_000_000)
        report = compare(expected, observed, _identifier(decoder), all_closed=all_closed, kept=kept)
    report.events, report.duplicates = records, duplicates
    return report


def _foretell(
    reader: TopicReader,
    decoder: Decoder,
    topics: Topics,
    limits: Limits,
    progress: Callable[[str, int], None],
    share: Share | None,
    unknown_until: UnknownUntil,
) -> tuple[Output, int, int]:
    """The model's output, the number of source records, and that of the copies among them."""
    expected, records, duplicates = Output(), 0, 0
    windows_ms = {window.topic: window.size_ms for window in topics.windows}
    now_ms = time.time_ns() // 1_000_000 if limits.now_ms is None else limits.now_ms
    for partition in range(reader.partitions(topics.source)) if share is None else [share.partition]:
        model = PartitionModel(
            limits.lateness_ms,
            limits.horizon_ms,
            limits.skew_ms_max,
            limits.record_bytes_max,
            DOMAINS[topics.pipeline].fold,
            windows_ms,
            quarantine_rejects=limits.quarantine_rejects,
            quarantine_cooldown_ms=limits.quarantine_cooldown_ms,
            now_ms=now_ms,
        )
        model.trips = TripModel(topics.sessions)
        for batch in reader.batches(topics.source, [partition]):
            rows = [
                Record(cast("int", each.offset()), each.timestamp()[1], each.key(), each.value() or b"")
                for each in batch
            ]
            all_headers, lost = read_headers(batch)
            for number, (row, result) in enumerate(zip(rows, decoder.decode(rows), strict=True)):
                headers = all_headers[number] or []
                is_replayed = bool(headers) and headers[-1][0] == REPLAYED_HEADER
                unknown = bool(unknown_until) and _was_unknown(partition, row, unknown_until)
                judged = unknown_schema(row) if unknown else result
                if lost is not None and number in lost:
                    judged = bad_header(row)
                if sum(len(name) + len(value or b"") for name, value in headers) > limits.record_bytes_max:
                    judged = too_large(row)
                is_wanted = share is None or share.wants(row.key)
                model.feed(judged, is_replayed=is_replayed, is_wanted=is_wanted)
                records += is_wanted
            progress(topics.source, records)
        watermark = model.watermark  # what closes windows; letting go of held events does not
        if limits.is_idle_in_the_end:
            model.idle(math.inf)
        model.trips.end(watermark)
        expected.add_model(partition, model, watermark=watermark, windows=topics.windows)
        if share is not None and not all(map(share.has, (*expected.clean, *expected.late))):
            raise Misrouted(f"partition {partition} of {topics.source} has keys of other partitions")
        duplicates += len(model.duplicates)
    return expected, records, duplicates


def _was_unknown(partition: int, record: Record, unknown_until: UnknownUntil) -> bool:
    if len(record.value) < 5 or record.value[0] != 0:
        return False
    ends = unknown_until.get(int.from_bytes(record.value[1:5], "big"))
    return ends is not None and record.offset < ends.get(partition, 0)


def _read_output(
    reader: TopicReader,
    topics: Topics,
    schema_by_id: SchemaById,
    progress: Callable[[str, int], None],
    share: Share | None,
) -> Output:
    output = Output()
    partitions = reader.partitions(topics.source)
    read = 0
    for read, message in enumerate(reader.records(topics.clean, share), 1):
        key = message.key() or b""
        output.clean[key].append(message.value() or b"")
        output.clean_times[key].append(message.timestamp()[1])
        if read % 50_000 == 0:
            progress(topics.clean, read)
    progress(topics.clean, read)
    for message in reader.records(topics.late, share):
        headers = _headers(message)
        row = LateRow(message.value() or b"", headers.get("late.reason", ""), _integer(headers.get("late.by_ms")))
        output.late[message.key() or b""].append(row)
    for message in reader.records(topics.dlq):
        headers = _headers(message)
        coordinates = _coordinates(headers, topics.source, partitions)
        # What names no partition of the source has to be judged as well: with the first one.
        if share is not None and not (max(0, coordinates[0]) == share.partition and share.wants(message.key())):
            continue
        letter = DeadLetter(message.key(), message.value() or b"", headers.get(REASON_HEADER, ""))
        output.dead[coordinates].append(letter)
    newest = {message.key() or b"": message.value() for message in reader.records(topics.table, share)}
    read_row = row_reader(schema_by_id)
    output.table = {key.decode(): read_row(value) for key, value in newest.items() if value is not None}
    for window in topics.windows:
        _read_windows(reader, window, output, read_row, share)
    for session in topics.sessions:
        _read_trips(reader, session, output, read_row, share)
    return output


def _read_trips(
    reader: TopicReader,
    session: Session,
    output: Output,
    read_row: Callable[[bytes], dict[str, Any]],
    share: Share | None,
) -> None:
    for key, row, partition, due in _rows(reader, session.topic, read_row, share):
        output.trips.add(session.topic, key, row, partition=partition, partition_due=due)


def _read_windows(
    reader: TopicReader,
    window: Window,
    output: Output,
    read_row: Callable[[bytes], dict[str, Any]],
    share: Share | None,
) -> None:
    for key, row, partition, due in _rows(reader, window.topic, read_row, share):
        output.windows.add(window, key, row, partition=partition, partition_due=due)


def _rows(
    reader: TopicReader, topic: str, read_row: Callable[[bytes], dict[str, Any]], share: Share | None
) -> Iterator[tuple[bytes, dict[str, Any], int, int]]:
    """Key and row of each record of a topic, the partition that it is in, and the one that its key belongs to."""
    partitions = reader.partitions(topic)
    partition_due = cache(lambda key: partition_of(key, partitions))
    for message in reader.records(topic, share):
        key = message.key() or b""
        yield key, read_row(message.value() or b""), cast("int", message.partition()), partition_due(key)


def _headers(message: Any) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in headers_of(message)}


def _coordinates(headers: Mapping[str, str], source: str, partitions: int) -> Coordinates:
    """Where in the source a dead letter says that it comes from; (-1, -1) when that is nowhere."""
    partition, offset = _integer(headers.get(PARTITION_HEADER)), _integer(headers.get(OFFSET_HEADER))
    is_ours = headers.get(TOPIC_HEADER) == source and 0 <= partition < partitions and offset >= 0
    return (partition, offset) if is_ours else (-1, -1)


def _integer(text: str | None) -> int:
    """A header's number; -1 for one that is missing or none, which no expected value equals."""
    try:
        return int(text or "")
    except ValueError:
        return -1


def _identifier(decoder: Decoder) -> Callable[[bytes], OrderKey]:
    def identify(raw: bytes) -> OrderKey:
        event = decoder.decode_one(Record(0, 0, None, raw))
        return UNREADABLE_ORDER if isinstance(event, Reject) else event.order_key

    return identify


@contextmanager
def _without_cyclic_collection() -> Iterator[None]:
    """Millions of live tuples and no cycles among them: looking for some would take as long as the work itself."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def print_report(console: Console, report: Report) -> None:
    """Show the counts as a table, and the first mismatches in words."""
    table = Table(title="oracle", title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right")
    for name in ("events", "duplicates", "clean", "late", "rejected_expected", "rejected", "windows", "window_rows"):
        table.add_row(name.replace("_", " "), f"{getattr(report, name):,}")
    table.add_section()
    for name in Report.FAULTS:
        number = getattr(report, name)
        table.add_row(name.replace("_", " "), f"{number:,}", style="bold red" if number else "green")
    console.print(table)
    for detail in report.details:
        console.print(f"  {detail}", markup=False, highlight=False)


def _check_orders(settings: Settings, pipeline: str, console: Console) -> None:
    (declared,) = select_pipelines([pipeline], prefix=settings.streams_topic_prefix)
    reader = TopicReader(settings.kafka_bootstrap_servers)
    try:
        report = CHECKS[pipeline](reader, registry_schemas(settings.schema_registry_url), declared.under(settings))
    finally:
        reader.close()
    print_order_report(console, report)
    if not report.ok:
        raise FoundSomething("the output differs from what the input demands")


def command(
    *,
    pipeline: Annotated[str, typer.Option(help="Flow whose topics are compared.")] = "gps",
    bootstrap: Annotated[str | None, typer.Option(help="Kafka; default: KAFKA_BOOTSTRAP_SERVERS.")] = None,
    registry_url: Annotated[str | None, typer.Option(help="Registry; default: SCHEMA_REGISTRY_URL.")] = None,
    lateness_ms: Annotated[int | None, typer.Option(help="The worker's; default: STREAMS_LATENESS_MS.")] = None,
    horizon_ms: Annotated[int | None, typer.Option(help="The worker's; default: STREAMS_DEDUP_HORIZON_MS.")] = None,
    skew_ms_max: Annotated[int | None, typer.Option(help="The worker's; default: STREAMS_SKEW_MS_MAX.")] = None,
    windows: Annotated[bool, typer.Option(help="Compare the windows that the flow declares.")] = True,
) -> None:
    """Compare what a flow has written with a model of its source; exit status 100 when they differ."""
    settings = load_settings(
        kafka_bootstrap_servers=bootstrap,
        schema_registry_url=registry_url,
        streams_lateness_ms=lateness_ms,
        streams_dedup_horizon_ms=horizon_ms,
        streams_skew_ms_max=skew_ms_max,
    )
    console = Console()
    if pipeline in CHECKS:
        _check_orders(settings, pipeline, console)
        return
    topics = Topics.of_pipeline(pipeline, settings.streams_topic_prefix)
    with console.status("reading") as status:
        report = check(
            settings.kafka_bootstrap_servers,
            registry_schemas(settings.schema_registry_url),
            topics if windows else topics.without_windows(),
            Limits.of_settings(settings),
            on_progress=lambda topic, records: status.update(f"{topic}: {records:,} records"),
        )
    print_report(console, report)
    if not report.ok:
        raise FoundSomething("the output differs from what the input demands")
