"""Sends files to a topic: each valid row once, also when the process is killed and run again.

Two runs are the same work, with one checkpoint, if they have the same file content (not name), topic (a recreated one
is another), format, mapping of columns to fields, reading options, and shift of times. `rate` and `limit` do not count:
a run with `limit` is the beginning of the run without.

A run that continues uses the clock and the shift of the first run: bad rows stay bad, so that none of them counts as
sent.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow.compute as pc
from confluent_kafka.admin import AdminClient

from streams.acls.roles import Role, rights_of
from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_fed
from streams.ingest.bad_rows import Bad, BadRowFile
from streams.ingest.chunks import BadRow, Chunk, InputFormat, Source
from streams.ingest.events import Batch, Converter, Encoder
from streams.ingest.filling import Filling, LeftOut, filling_of
from streams.ingest.inputs import STANDARD_INPUT, Input, inputs_of
from streams.ingest.judge import END_OF_TIME_MS, Judge
from streams.ingest.readers import first_rows, format_of, open_source
from streams.ingest.reading import DEFAULT_READING, Reading
from streams.kafka import acls
from streams.kafka.admin import partition_counts, topic_id, wait_for_broker
from streams.names import INGEST_PREFIX
from streams.resilience.retry import Retrier, quietly
from streams.schemas.catalog import Catalog, SchemaVersion
from streams.schemas.client import Registry
from streams.schemas.personal import with_personal
from streams.settings import Settings
from streams.sinks.base import Checkpoint, Outgoing, WriteInterrupted
from streams.sinks.kafka.checkpoints import KafkaCheckpoints
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.sinks.paced import PacedWriter
from streams.sinks.transactional import TransactionalSink

PORTION_EVENTS_MAX: Final = 10_000
OPEN_MS_MAX: Final = 500
"""Events become visible at most this long after they were sent, and about so much is sent again after a kill."""
CONNECT_S_MAX: Final = 30.0
"""How long a broker may take to give a producer; after that the run fails and can be repeated."""
DRY_RUN_SCHEMA_ID: Final = 0
"""Schema id of records that are made and not sent, so that a dry run needs no registry."""


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """Progress of a run: rows of the file so far, and the part of the file that they take (0 to 1)."""

    phase: str
    part_done: float
    rows: int
    sent: int
    skipped: int
    bad: int


@dataclass(slots=True)
class IngestResult:
    """Result of a run over a file. rows = sent + skipped + bad, in a dry run valid + bad."""

    name: str = ""
    row_word: str = "row"
    """What numbers of rows count: `row`, or `line`."""
    rows: int = 0
    valid: int = 0
    sent: int = 0
    skipped: int = 0
    """Valid rows that an earlier run of the same work had sent."""
    seconds: float = 0.0
    shift_ms: int = 0
    """What was added to every time."""
    bad_rows: Bad = field(default_factory=Bad)
    left_out: tuple[LeftOut, ...] = ()
    """Columns that fill no field."""
    is_personal: bool = False
    """Whether rows hold personal data: what people are shown of bad rows is masked."""

    @property
    def bad(self) -> int:
        """Rows that are not sent."""
        return self.bad_rows.count

    @property
    def events_per_second(self) -> float:
        """Events sent per second of the whole run."""
        return self.sent / self.seconds if self.seconds else 0.0


Progress = Callable[[IngestProgress], None]


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """Options: how files are read, and which of their rows are sent and how."""

    input_format: InputFormat | None = None
    """None: by the extension."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Column by field, where the names differ."""
    reading: Reading = DEFAULT_READING
    """How text, numbers and times are understood."""
    rebase_time: bool = False
    """Shift all times so that the newest event of the (first `limit`) rows happens now; a run that continues uses the
    shift of the first run.
    """
    rate: int | None = None
    """Events a second at most."""
    limit: int | None = None
    """Only the first rows of each file, bad ones counted."""
    again: bool = False
    """Send what was sent already, too."""
    dry_run: bool = False
    """Read and judge all rows, send none, ask neither broker nor registry."""
    bad_rows: Path | None = None
    """A file that gets every bad row as one JSON object a line."""


NO_OPTIONS: Final = IngestOptions()


@dataclass(frozen=True, slots=True)
class _Work:
    """One file, one topic: everything decided before the first row is sent."""

    file: Input
    input_format: InputFormat
    source: Source
    pipeline: Pipeline
    schema: SchemaVersion
    filling: Filling
    options: IngestOptions
    settings: Settings

    def converter(self, encoder: Encoder, *, now_ms: int, shift_ms: int) -> Converter:
        judge = Judge(
            self.pipeline,
            self.schema,
            encoder.schema_id,
            record_bytes_max=self.settings.streams_record_bytes_max,
            skew_ms_max=self.pipeline.under(self.settings).bounds.skew_ms_max,
            now_ms=now_ms,
        )
        return Converter(self.pipeline, self.filling, encoder, judge, self.options.reading, shift_ms)

    def chunks(self, converter: Converter) -> Iterator[Chunk]:
        return first_rows(self.source.chunks(converter.columns), self.options.limit)

    def left_out(self, converter: Converter) -> tuple[LeftOut, ...]:
        columns = self.source.seen() if self.source.seen else self.source.columns
        return self.filling.left_out(columns, converter.filled)


def ingest_file(
    settings: Settings,
    path: Path,
    topic: str,
    options: IngestOptions = NO_OPTIONS,
    *,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
) -> IngestResult:
    """Send the rows of a file to the source topic of a flow: `ingest_files` of one."""
    (result,) = ingest_files(settings, [path], topic, options, progress=progress, catalog=catalog)
    return result


def ingest_files(
    settings: Settings,
    paths: Sequence[str | Path],
    topic: str,
    options: IngestOptions = NO_OPTIONS,
    *,
    standard_input: BinaryIO | None = None,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
    reader: Pipeline | None = None,
) -> list[IngestResult]:
    """Send the rows of files to the source topic of a flow, one file after the other.

    `paths`: files, patterns, addresses (`streams.ingest.remote`), or `-` for `standard_input`. All files are opened
    before anything is sent. `reader`: the flow that reads the topic; None: the declared one.

    A row is bad if it does not convert to the newest schema of the source, or if the flow's decoder would reject
    its event, coming in now.

    Raises:
        UsageError: no such file, column, field, format, or no flow that reads this topic.
        StreamsError: a file, broker, registry or topic fails; what was committed is not sent again by the next run.
        FencedError: another process has started the same work.

    """
    catalog = catalog or Catalog.load()
    (pipeline,) = with_personal([reader or _pipeline_of(topic, settings.streams_topic_prefix)], catalog)
    schema = catalog.latest(pipeline.subject)
    with ExitStack() as stack:
        files = stack.enter_context(inputs_of(paths, standard_input, _fetching(progress)))
        if options.rebase_time and len(files) > 1:
            raise UsageError("--rebase-time: moves the times of one file; name one at a time")
        log = BadRowFile(options.bad_rows, files)
        works = [_opened(one, pipeline, schema, options, settings) for one in files]
        client = None if options.dry_run else _connected(settings, pipeline)
        schema_id = DRY_RUN_SCHEMA_ID if client is None else Registry(settings).lookup(schema.subject, schema.text)
        encoder = Encoder(pipeline, schema, schema_id)
        stack.enter_context(log)
        results = []
        for work in works:
            run = _Run(work, encoder, log, progress)
            started = time.monotonic()
            if client is None:
                run.judge()
            else:
                run.send(_identity(work, topic_id(client, topic)))
            run.result.seconds = time.monotonic() - started
            results.append(run.result)
    return results


def _fetching(progress: Progress | None) -> Callable[[float], None]:
    if progress is None:
        return lambda _: None
    return lambda part: progress(IngestProgress("fetching", part, 0, 0, 0, 0))


def _opened(
    file: Input, pipeline: Pipeline, schema: SchemaVersion, options: IngestOptions, settings: Settings
) -> _Work:
    if file.name == STANDARD_INPUT and options.input_format is None:
        raise UsageError("-: standard input has no extension: say --input-format")
    found = format_of(file.path, options.input_format, file.name)
    source = open_source(file.path, found, options.reading, file.name)
    try:
        filling = filling_of(pipeline, schema, source, options.mapping)
    except UsageError as error:
        raise UsageError(f"{file.name}: {error}") from None
    return _Work(file, found, source, pipeline, schema, filling, options, settings)


def _connected(settings: Settings, pipeline: Pipeline) -> AdminClient:
    client, topic = wait_for_broker(settings), pipeline.source
    acls.require(client, rights_of([Role.GATEWAY], [pipeline]))
    if topic not in partition_counts(client):
        raise StreamsError(f"there is no topic {topic}: run `streams topics apply`")
    return client


class _Run:
    """A file being judged or sent, with the result so far."""

    def __init__(self, work: _Work, encoder: Encoder, log: BadRowFile, progress: Progress | None) -> None:
        self._work, self._encoder, self._log, self._progress = work, encoder, log, progress
        self.result = IngestResult(
            name=work.file.name, row_word=work.input_format.row_word, is_personal=bool(work.pipeline.personal)
        )

    def judge(self) -> None:
        """Read and judge all rows, and send none."""
        self.result.shift_ms = self._shift_ms()
        for _ in self._batches(_now_ms(), "checking"):
            pass

    def send(self, identity: str) -> None:
        """Send all valid rows that an earlier run has not."""
        options, topic = self._work.options, self._work.pipeline.source
        writer = _writer(self._work.settings, INGEST_PREFIX + identity, topic, options.rate)
        try:
            checkpoint = writer.open()
            before = None if options.again else _before(checkpoint)
            self.result.shift_ms = shift_ms = before.shift_ms if before else self._shift_ms()
            now_ms = before.now_ms if before and before.now_ms is not None else _now_ms()
            noted = json.dumps({"shift_ms": shift_ms, "now_ms": now_ms})
            for batch in self._batches(now_ms, "sending"):
                fresh = batch.after(before.done) if before else batch
                self.result.skipped += len(batch.keys) - len(fresh.keys)
                self._write(writer, topic, fresh, noted)
            writer.commit()
        except WriteInterrupted as error:
            raise StreamsError(
                f"sending to {topic} at {self._work.settings.kafka_bootstrap_servers} failed: {error}; "
                "what was not committed is not visible: run the same command again, it goes on from there"
            ) from None
        finally:
            writer.close()

    def _write(self, writer: PacedWriter, topic: str, batch: Batch, noted: str) -> None:
        size = writer.portion(PORTION_EVENTS_MAX)
        for first in range(0, len(batch.keys), size):
            part = slice(first, first + size)
            keys, values = batch.keys[part], batch.values[part]
            writer.wait()
            writer.write(
                [Outgoing(topic, keys, values, _now_ms())],
                records=len(keys),
                bytes_used=sum(map(len, values)),
                checkpoint=Checkpoint(int(batch.numbers[first + len(keys) - 1]), noted),
            )
            self.result.sent += len(keys)

    def _batches(self, now_ms: int, phase: str) -> Iterator[Batch]:
        result = self.result
        converter = self._work.converter(self._encoder, now_ms=now_ms, shift_ms=result.shift_ms)
        for chunk in self._work.chunks(converter):
            batch, bad = self._convert(converter, chunk)
            self._log.add(result.name, bad)
            result.bad_rows.add(bad)
            result.rows += len(chunk.numbers) + len(chunk.bad)
            result.valid += len(batch.keys)
            yield batch
            if self._progress:
                done = (phase, chunk.position, result.rows, result.sent, result.skipped, result.bad)
                self._progress(IngestProgress(*done))
        result.left_out = self._work.left_out(converter)

    def _convert(self, converter: Converter, chunk: Chunk) -> tuple[Batch, list[BadRow]]:
        try:
            return converter.convert(chunk)
        except UsageError as error:
            raise UsageError(f"{self.result.name}: {error}") from None

    def _shift_ms(self) -> int:
        """The shift that makes the newest valid event happen now, from a first pass; 0 if times are not shifted."""
        if not self._work.options.rebase_time:
            return 0
        converter = self._work.converter(self._encoder, now_ms=END_OF_TIME_MS, shift_ms=0)
        newest, rows, bad = None, 0, 0
        for chunk in self._work.chunks(converter):
            batch, found = self._convert(converter, chunk)
            rows += len(chunk.numbers) + len(chunk.bad)
            bad += len(found)
            if batch.keys:
                last = pc.max(batch.events.columns[self._work.pipeline.time_field]).as_py()
                newest = last if newest is None else max(newest, last)
            if self._progress:
                self._progress(IngestProgress("finding the newest event", chunk.position, rows, 0, 0, bad))
        return 0 if newest is None else _now_ms() - newest


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _pipeline_of(topic: str, prefix: str) -> Pipeline:
    pipelines = select_fed(prefix=prefix)
    for pipeline in pipelines:
        if pipeline.source == topic:
            return pipeline
    sources = ", ".join(pipeline.source for pipeline in pipelines)
    raise UsageError(f"no flow reads {topic!r}: --topic is one of {sources}")


def _identity(work: _Work, topic_uuid: str) -> str:
    with work.file.path.open("rb") as raw:
        content = hashlib.file_digest(raw, "sha256").hexdigest()
    columns = sorted(work.filling.column_of.items())
    parts = [content, topic_uuid, work.input_format.value, columns, work.options.rebase_time]
    choices = work.options.reading.choices()
    if choices:
        parts.append(sorted(choices.items()))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Before:
    """State of an earlier run of the same work: rows up to this number, this shift, judged by this clock."""

    done: int
    shift_ms: int
    now_ms: int | None
    """None: not recorded (by version 0.1.0)."""


def _before(checkpoint: Checkpoint | None) -> _Before | None:
    if checkpoint is None:
        return None
    try:
        noted = json.loads(checkpoint.metadata)
        now_ms = noted.get("now_ms")
        return _Before(checkpoint.position, int(noted["shift_ms"]), None if now_ms is None else int(now_ms))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StreamsError(
            f"the checkpoint of this file is not readable ({checkpoint.metadata[:100]!r}): use --again to send all"
        ) from None


def _writer(settings: Settings, name: str, topic: str, rate: int | None) -> PacedWriter:
    """A writer into the topic that continues after the last one of the same name."""
    transactions = KafkaTransactions(
        settings, transactional_id=name, source=topic, retrier=Retrier(say=quietly), reopen_s_max=CONNECT_S_MAX
    )
    checkpoints = KafkaCheckpoints(settings, transactions, name=name, topic=topic)
    fenced = f"another process has started the same work on {topic}: this one stops"
    sink = TransactionalSink(transactions, checkpoints, fenced=fenced)
    return PacedWriter(sink, open_ms_max=OPEN_MS_MAX, rate=rate)
