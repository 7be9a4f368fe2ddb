"""Files into a topic: each valid row exactly once, whenever the process is killed and however often it is run.

What makes two runs the same work (one checkpoint): the content of the file (not its name), the topic (created again, it
is another one), the format, which column fills which field, how the file is read, and whether times are moved. `rate`
and `limit` do not count: a run with `limit` is the beginning of the run without.

A run that goes on judges by the clock of the run that began, and moves times by as much: the rows that were bad stay
bad, so that none of them is taken for one that was sent.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Self

import pyarrow.compute as pc
from confluent_kafka.admin import AdminClient

from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.ingest.bad_rows import Bad, BadRowFile
from streams.ingest.events import Batch, Converter, Encoder
from streams.ingest.filling import Filling, LeftOut, filling_of
from streams.ingest.inputs import STANDARD_INPUT, Input, inputs_of
from streams.ingest.judge import END_OF_TIME_MS, Judge
from streams.ingest.readers import BadRow, Chunk, InputFormat, Source, first_rows, format_of, open_source
from streams.ingest.reading import DEFAULT_READING, Reading
from streams.kafka.admin import partition_counts, topic_id, wait_for_broker
from streams.kafka.checkpointed import Checkpoint, CheckpointedProducer
from streams.schemas.catalog import Catalog, SchemaVersion
from streams.schemas.client import Registry
from streams.settings import Settings

NAME_PREFIX: Final = "streams.ingest."
"""Transactional ids and checkpoint groups of this command begin so. Nobody consumes with these groups: no lag."""
TRANSACTION_EVENTS_MAX: Final = 50_000
TRANSACTION_MS_MAX: Final = 500
"""Events become visible at most this long after they were sent (and at most so much is sent again)."""
DRY_RUN_SCHEMA_ID: Final = 0
"""Schema id of records that are made and not sent, so that a dry run needs no registry."""
_SLICES_A_SECOND: Final = 20
"""With a rate limit, events go out in this many portions a second."""


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far a run is: rows of the file so far, and the part of the file behind them (0 to 1)."""

    phase: str
    part_done: float
    rows: int
    sent: int
    skipped: int
    bad: int


@dataclass(slots=True)
class IngestResult:
    """What a run did with a file. rows = sent + skipped + bad, in a dry run valid + bad."""

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
class _Work:
    """One file, one topic: everything decided before the first row is sent."""

    file: Input
    input_format: InputFormat
    source: Source
    pipeline: Pipeline
    schema: SchemaVersion
    filling: Filling
    reading: Reading
    settings: Settings
    limit: int | None

    def converter(self, encoder: Encoder, *, now_ms: int, shift_ms: int) -> Converter:
        judge = Judge(
            self.pipeline,
            self.schema,
            encoder.schema_id,
            record_bytes_max=self.settings.streams_record_bytes_max,
            skew_ms_max=self.settings.for_flow(self.pipeline.bounds.by_setting()).streams_skew_ms_max,
            now_ms=now_ms,
        )
        return Converter(self.pipeline, self.filling, encoder, judge, self.reading, shift_ms)

    def chunks(self, converter: Converter) -> Iterator[Chunk]:
        return first_rows(self.source.chunks(converter.columns), self.limit)

    def left_out(self, converter: Converter) -> tuple[LeftOut, ...]:
        columns = self.source.seen() if self.source.seen else self.source.columns
        return self.filling.left_out(columns, converter.filled)


def ingest_file(
    settings: Settings,
    path: Path,
    topic: str,
    *,
    input_format: InputFormat | None = None,
    mapping: Mapping[str, str] | None = None,
    reading: Reading = DEFAULT_READING,
    rebase_time: bool = False,
    rate: int | None = None,
    limit: int | None = None,
    again: bool = False,
    dry_run: bool = False,
    bad_rows: Path | None = None,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
) -> IngestResult:
    """Send the rows of a file to the source topic of a pipeline: `ingest_files` of one."""
    (result,) = ingest_files(
        settings,
        [path],
        topic,
        input_format=input_format,
        mapping=mapping,
        reading=reading,
        rebase_time=rebase_time,
        rate=rate,
        limit=limit,
        again=again,
        dry_run=dry_run,
        bad_rows=bad_rows,
        progress=progress,
        catalog=catalog,
    )
    return result


def ingest_files(
    settings: Settings,
    paths: Sequence[str | Path],
    topic: str,
    *,
    standard_input: BinaryIO | None = None,
    input_format: InputFormat | None = None,
    mapping: Mapping[str, str] | None = None,
    reading: Reading = DEFAULT_READING,
    rebase_time: bool = False,
    rate: int | None = None,
    limit: int | None = None,
    again: bool = False,
    dry_run: bool = False,
    bad_rows: Path | None = None,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
) -> list[IngestResult]:
    """Send the rows of files to the source topic of a pipeline, one file after the other.

    `paths`: files, patterns, or `-` for `standard_input`. All files are opened before anything is sent. `mapping`:
    column by field, where the names differ. `reading`: how text, numbers and times are understood. `rebase_time`: add
    to all times what makes the newest event of the (first `limit`) rows happen now; a run that goes on uses the sum of
    the run that began. `rate`: events a second at most. `limit`: only the first rows of each file, bad ones counted.
    `again`: send what was sent already, too. `dry_run`: read and judge all rows, send none, ask neither broker nor
    registry. `bad_rows`: a file that gets every bad row as one JSON object a line.

    A row is bad if it does not convert to the newest schema of the source, or if the pipeline's decoder would reject
    its event, coming in now.

    Raises:
        UsageError: no such file, column, field, format, or no pipeline that reads this topic.
        StreamsError: a file, broker, registry or topic fails; what was committed is not sent again by the next run.
        FencedError: another process has started the same work.

    """
    pipeline = _pipeline_of(topic, settings.streams_topic_prefix)
    schema = (catalog or Catalog.load()).latest(pipeline.subject)
    with ExitStack() as stack:
        files = stack.enter_context(inputs_of(paths, standard_input))
        if rebase_time and len(files) > 1:
            raise UsageError("--rebase-time: moves the times of one file; name one at a time")
        log = BadRowFile(bad_rows, files)
        works = [_opened(one, pipeline, schema, input_format, mapping or {}, reading, settings, limit) for one in files]
        client = None if dry_run else _connected(settings, topic)
        schema_id = DRY_RUN_SCHEMA_ID if dry_run else Registry(settings).lookup(schema.subject, schema.text)
        encoder = Encoder(pipeline, schema, schema_id)
        stack.enter_context(log)
        results = []
        for work in works:
            run = _Run(work, encoder, log, progress)
            started = time.monotonic()
            if client is None:
                run.judge(rebase_time=rebase_time)
            else:
                identity = _identity(work, topic_id(client, topic), rebase_time=rebase_time)
                run.send(identity, topic, rate, rebase_time=rebase_time, again=again)
            run.result.seconds = time.monotonic() - started
            results.append(run.result)
    return results


def _opened(
    file: Input,
    pipeline: Pipeline,
    schema: SchemaVersion,
    input_format: InputFormat | None,
    mapping: Mapping[str, str],
    reading: Reading,
    settings: Settings,
    limit: int | None,
) -> _Work:
    if file.name == STANDARD_INPUT and input_format is None:
        raise UsageError("-: standard input has no extension: say --input-format")
    found = format_of(file.path, input_format, file.name)
    source = open_source(file.path, found, reading, file.name)
    try:
        filling = filling_of(pipeline, schema, source, mapping)
    except UsageError as error:
        raise UsageError(f"{file.name}: {error}") from None
    return _Work(file, found, source, pipeline, schema, filling, reading, settings, limit)


def _connected(settings: Settings, topic: str) -> AdminClient:
    client = wait_for_broker(settings)
    if topic not in partition_counts(client):
        raise StreamsError(f"there is no topic {topic}: run `streams topics apply`")
    return client


class _Run:
    """A file on its way: judged or sent, and what became of it."""

    def __init__(self, work: _Work, encoder: Encoder, log: BadRowFile, progress: Progress | None) -> None:
        self._work, self._encoder, self._log, self._progress = work, encoder, log, progress
        self.result = IngestResult(name=work.file.name, row_word=work.input_format.row_word)

    def judge(self, *, rebase_time: bool) -> None:
        """Read and judge all rows, and send none."""
        self.result.shift_ms = self._shift_ms() if rebase_time else 0
        for _ in self._batches(_now_ms(), "checking"):
            pass

    def send(self, identity: str, topic: str, rate: int | None, *, rebase_time: bool, again: bool) -> None:
        """Send all valid rows that an earlier run has not."""
        with _Sink(self._work.settings, identity, topic, rate) as sink:
            before = sink.resume()
            if again:
                before = None
            sink.shift_ms = before.shift_ms if before else (self._shift_ms() if rebase_time else 0)
            sink.now_ms = before.now_ms if before and before.now_ms is not None else _now_ms()
            self.result.shift_ms = sink.shift_ms
            for batch in self._batches(sink.now_ms, "sending"):
                fresh = batch.after(before.done) if before else batch
                self.result.skipped += len(batch.keys) - len(fresh.keys)
                sink.send(fresh)
                self.result.sent = sink.sent
            sink.commit()

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
        """What makes the newest valid event happen now: a first pass over the file, which sends nothing."""
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
    pipelines = select_pipelines(None, prefix=prefix)
    for pipeline in pipelines:
        if pipeline.source == topic:
            return pipeline
    sources = ", ".join(pipeline.source for pipeline in pipelines)
    raise UsageError(f"no pipeline reads {topic!r}: --topic is one of {sources}")


def _identity(work: _Work, topic_uuid: str, *, rebase_time: bool) -> str:
    with work.file.path.open("rb") as raw:
        content = hashlib.file_digest(raw, "sha256").hexdigest()
    columns = sorted(work.filling.column_of.items())
    parts = [content, topic_uuid, work.input_format.value, columns, rebase_time]
    choices = work.reading.choices()
    if choices:
        parts.append(sorted(choices.items()))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Before:
    """What an earlier run of the same work had done: rows up to this number, with this shift, judged by this clock."""

    done: int
    shift_ms: int
    now_ms: int | None
    """None: not noted (by version 0.1.0)."""


class _Sink:
    """Events to the topic, paced, in bounded transactions that each carry the checkpoint."""

    def __init__(self, settings: Settings, identity: str, topic: str, rate: int | None) -> None:
        self._producer = CheckpointedProducer(settings, name=NAME_PREFIX + identity, topic=topic)
        self._rate = rate
        self._slice = 1_000_000_000 if rate is None else max(1, rate // _SLICES_A_SECOND)
        self._started: float | None = None
        self._begun = time.monotonic()
        self._open = self._done = 0
        self.sent = self.shift_ms = self.now_ms = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close()

    def resume(self) -> _Before | None:
        """Take the work over from any other process; returns what was done before."""
        checkpoint = self._producer.resume()
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

    def send(self, batch: Batch) -> None:
        keys, values = batch.keys, batch.values
        for first in range(0, len(keys), self._slice):
            if not self._open:
                self._begun = time.monotonic()
            part = slice(first, first + self._slice)
            self._pace()
            self._producer.send(keys[part], values[part])
            count = len(keys[part])
            self._open += count
            self.sent += count
            self._done = int(batch.numbers[first + count - 1])
            if self._open >= TRANSACTION_EVENTS_MAX or time.monotonic() - self._begun >= TRANSACTION_MS_MAX / 1000:
                self.commit()

    def commit(self) -> None:
        """Make everything sent so far visible; nothing to do when all of it is."""
        if self._open:
            noted = {"shift_ms": self.shift_ms, "now_ms": self.now_ms}
            self._producer.commit(Checkpoint(self._done, json.dumps(noted)))
            self._open = 0

    def _pace(self) -> None:
        now = time.monotonic()
        if self._started is None:
            self._started = now
        if self._rate is not None:
            ahead = self._started + self.sent / self._rate - now
            if ahead > TRANSACTION_MS_MAX / 1000:
                self.commit()
            if ahead > 0:
                time.sleep(ahead)
