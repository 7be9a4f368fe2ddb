"""A file into a topic: each valid row exactly once, whenever the process is killed and however often it is run.

What makes two runs the same work (one checkpoint): the content of the file (not its name), the topic (created again, it
is another one), the format, which column fills which field, and whether times are moved. `rate` and `limit` do not
count: a run with `limit` is the beginning of the run without.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

import pyarrow.compute as pc

from streams.errors import StreamsError, UsageError
from streams.ingest.events import Converter, Encoder, Events
from streams.ingest.readers import BadRow, Chunk, InputFormat, Source, first_rows, format_of, open_source
from streams.kafka.admin import partition_counts, topic_id, wait_for_broker
from streams.kafka.checkpointed import Checkpoint, CheckpointedProducer
from streams.operators.declaration import Pipeline
from streams.pipelines import select_pipelines
from streams.registry.catalog import Catalog, SchemaVersion
from streams.registry.client import Registry
from streams.settings import Settings

NAME_PREFIX: Final = "streams.ingest."
"""Transactional ids and checkpoint groups of this command begin so. Nobody consumes with these groups: no lag."""
TRANSACTION_EVENTS_MAX: Final = 50_000
TRANSACTION_MS_MAX: Final = 500
"""Events become visible at most this long after they were sent (and at most so much is sent again)."""
BAD_ROWS_SHOWN: Final = 20
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
    """What a run did. rows = sent + skipped + bad."""

    rows: int = 0
    sent: int = 0
    skipped: int = 0
    """Valid rows that an earlier run of the same work had sent."""
    bad: int = 0
    seconds: float = 0.0
    shift_ms: int = 0
    """What was added to every time."""
    bad_rows: list[BadRow] = field(default_factory=list)
    """The first of them."""

    @property
    def events_per_second(self) -> float:
        """Events sent per second of the whole run."""
        return self.sent / self.seconds if self.seconds else 0.0


Progress = Callable[[IngestProgress], None]


@dataclass(frozen=True, slots=True)
class _Work:
    """One file, one topic: everything decided before the first row is sent."""

    source: Source
    pipeline: Pipeline
    schema: SchemaVersion
    mapping: Mapping[str, str]
    record_bytes_max: int
    limit: int | None

    def converter(self) -> Converter:
        return Converter(
            self.pipeline, self.schema, self.source.columns, self.mapping, record_bytes_max=self.record_bytes_max
        )

    def chunks(self, converter: Converter) -> Iterator[Chunk]:
        names = tuple(dict.fromkeys(converter.column_of.values()))
        return first_rows(self.source.chunks(names), self.limit)


def ingest_file(
    settings: Settings,
    path: Path,
    topic: str,
    *,
    input_format: InputFormat | None = None,
    mapping: Mapping[str, str] | None = None,
    rebase_time: bool = False,
    rate: int | None = None,
    limit: int | None = None,
    again: bool = False,
    bad_rows: Path | None = None,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
) -> IngestResult:
    """Send the rows of a file to the source topic of a pipeline.

    `mapping`: column by field, where the names differ. `rebase_time`: add to all times what makes the newest event of
    the (first `limit`) rows happen now; a run that goes on uses the sum of the run that began. `rate`: events a second
    at most. `limit`: only the first rows, bad ones counted. `again`: send what was sent already, too. `bad_rows`: a
    file that gets every bad row as one JSON object a line.

    Raises:
        UsageError: no such file, column, field, format, or no pipeline that reads this topic.
        StreamsError: the file, broker, registry or topic fails; what was committed is not sent again by the next run.
        FencedError: another process has started the same work.

    """
    started = time.monotonic()
    found_format = format_of(path, input_format)
    pipeline = _pipeline_of(topic, settings.streams_topic_prefix)
    schema = (catalog or Catalog.load()).latest(pipeline.subject)
    source = open_source(path, found_format)
    work = _Work(source, pipeline, schema, mapping or {}, settings.streams_record_bytes_max, limit)
    converter = work.converter()
    client = wait_for_broker(settings)
    if topic not in partition_counts(client):
        raise StreamsError(f"there is no topic {topic}: run `streams topics apply`")
    encoder = Encoder(pipeline, schema, Registry(settings).lookup(schema.subject, schema.text))
    identity = _identity(path, topic_id(client, topic), found_format, converter.column_of, rebase_time=rebase_time)
    result = IngestResult()
    with ExitStack() as stack:
        sink = stack.enter_context(_Sink(settings, identity, topic, encoder, rate))
        log = stack.enter_context(_BadRows(bad_rows, result))
        before = sink.resume()
        if again:
            before = None
        shift_ms = before.shift_ms if before else (_shift_ms(work, progress) if rebase_time else 0)
        sink.shift_ms = result.shift_ms = shift_ms
        for chunk in work.chunks(converter):
            events, bad = converter.convert(chunk)
            log.add(bad)
            fresh = events.after(before.done) if before else events
            result.skipped += len(events.numbers) - len(fresh.numbers)
            result.rows += len(chunk.numbers) + len(chunk.bad)
            sink.send(fresh)
            result.sent = sink.sent
            if progress:
                progress(IngestProgress("sending", chunk.position, result.rows, sink.sent, result.skipped, result.bad))
        sink.commit()
    result.seconds = time.monotonic() - started
    return result


def _pipeline_of(topic: str, prefix: str) -> Pipeline:
    pipelines = select_pipelines(None, prefix=prefix)
    for pipeline in pipelines:
        if pipeline.source == topic:
            return pipeline
    sources = ", ".join(pipeline.source for pipeline in pipelines)
    raise UsageError(f"no pipeline reads {topic!r}: --topic is one of {sources}")


def _identity(
    path: Path, topic_uuid: str, input_format: InputFormat, columns: Mapping[str, str], *, rebase_time: bool
) -> str:
    with path.open("rb") as raw:
        content = hashlib.file_digest(raw, "sha256").hexdigest()
    parts = [content, topic_uuid, input_format.value, sorted(columns.items()), rebase_time]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _shift_ms(work: _Work, progress: Progress | None) -> int:
    """What makes the newest valid event happen now: a first pass over the file, which sends nothing."""
    converter, newest, rows, bad = work.converter(), None, 0, 0
    for chunk in work.chunks(converter):
        events, found = converter.convert(chunk)
        rows += len(chunk.numbers) + len(chunk.bad)
        bad += len(found)
        if len(events.numbers):
            last = pc.max(events.columns[work.pipeline.time_field]).as_py()
            newest = last if newest is None else max(newest, last)
        if progress:
            progress(IngestProgress("finding the newest event", chunk.position, rows, 0, 0, bad))
    return 0 if newest is None else time.time_ns() // 1_000_000 - newest


@dataclass(frozen=True, slots=True)
class _Before:
    """What an earlier run of the same work had done: rows up to this number, with this shift."""

    done: int
    shift_ms: int


class _Sink:
    """Events to the topic, paced, in bounded transactions that each carry the checkpoint."""

    def __init__(self, settings: Settings, identity: str, topic: str, encoder: Encoder, rate: int | None) -> None:
        self._producer = CheckpointedProducer(settings, name=NAME_PREFIX + identity, topic=topic)
        self._encoder, self._rate = encoder, rate
        self._slice = 1_000_000_000 if rate is None else max(1, rate // _SLICES_A_SECOND)
        self._started: float | None = None
        self._begun = time.monotonic()
        self._open = self._done = 0
        self.sent = self.shift_ms = 0

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
            return _Before(checkpoint.position, int(json.loads(checkpoint.metadata)["shift_ms"]))
        except (ValueError, KeyError, TypeError):
            raise StreamsError(
                f"the checkpoint of this file is not readable ({checkpoint.metadata[:100]!r}): use --again to send all"
            ) from None

    def send(self, events: Events) -> None:
        keys, values = self._encoder.encode(events, self.shift_ms)
        for first in range(0, len(keys), self._slice):
            if not self._open:
                self._begun = time.monotonic()
            part = slice(first, first + self._slice)
            self._pace()
            self._producer.send(keys[part], values[part])
            count = len(keys[part])
            self._open += count
            self.sent += count
            self._done = int(events.numbers[first + count - 1])
            if self._open >= TRANSACTION_EVENTS_MAX or time.monotonic() - self._begun >= TRANSACTION_MS_MAX / 1000:
                self.commit()

    def commit(self) -> None:
        """Make everything sent so far visible; nothing to do when all of it is."""
        if self._open:
            self._producer.commit(Checkpoint(self._done, json.dumps({"shift_ms": self.shift_ms})))
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


class _BadRows:
    """Counts bad rows, keeps the first, writes them all."""

    def __init__(self, path: Path | None, result: IngestResult) -> None:
        self._path, self._result = path, result
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._file = self._path.open("w", encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise UsageError(f"--bad-rows {self._path}: cannot be written: {error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, rows: list[BadRow]) -> None:
        self._result.bad += len(rows)
        self._result.bad_rows += rows[: max(0, BAD_ROWS_SHOWN - len(self._result.bad_rows))]
        if self._file is not None:
            self._file.writelines(json.dumps(bad_row_json(row), default=str) + "\n" for row in rows)


def bad_row_json(row: BadRow) -> dict[str, Any]:
    """A bad row for JSON output."""
    return {"row": row.number, "reason": row.reason, "data": row.data}
