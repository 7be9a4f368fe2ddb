"""A flow as a worker runs it (`Pipeline`). `streams.flow.builder` declares a flow, `streams.flow.lowering` lowers it.

Everything else (topics, groups, decoding, state, metrics) follows from it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from streams.flow.bounds import BOUNDS_DEFAULT, Bounds
from streams.flow.inputs import AUDIT_SUFFIX, DEAD_LETTERS_SUFFIX, LATE_SUFFIX, Input
from streams.flow.topics import DAY_MS, OUTPUT_BYTES_MAX, Cleanup, Topic, topic_of, topics_beside
from streams.flow.version import DECLARED, declared_name, of_version
from streams.operators.fold.aggregate import Aggregate, WindowAggregate
from streams.operators.spec import OperatorSpec, OutputTopic
from streams.settings import Settings
from streams.sinks.spec import SinkSpec, dead_letters_of

CLEAN_SUFFIX: Final = ".clean"
JOURNAL_SUFFIX: Final = ".journal"
FORWARDED_SUFFIX: Final = ".forwarded"
GROWTH_SUFFIX: Final = ".growth"
FORGET_SUFFIX: Final = ".forget"
VERSIONS_SUFFIX: Final = ".versions"
HISTORY_SUFFIX: Final = ".history"
PHASES_MAX: Final = 60
"""Windows that an event may belong to at most: each costs as much as a window of its own."""


@dataclass(frozen=True, slots=True)
class Table:
    """A keyed table folded from clean events: its fold, and the compacted topic that carries it."""

    topic: str
    aggregate: Aggregate
    subject: str = ""
    """Subject of the table's rows; by default the topic's."""

    def __post_init__(self) -> None:
        _set_default(self, "subject", f"{self.topic}-value")


@dataclass(frozen=True, slots=True)
class Window:
    """Tumbling event-time windows per key: each closed window is a row of `topic`.

    A window closes when an event of its key in a later window is released, or when the watermark has passed its end by
    `grace_ms`. Events that are released for a closed window open it again; its rows, numbered by revision, add up.
    """

    topic: str
    aggregate: WindowAggregate
    size_ms: int
    grace_ms: int
    subject: str = ""
    """Subject of the window's rows; by default the topic's."""
    advance_ms: int = 0
    """Windows begin so far apart, and overlap; 0: one begins where the one before it ends."""

    gap_ms: int = 0
    """Above 0: sessions, without a size. One goes on as long as no two events of its key are farther apart, and is over
    when an event of its key comes after that, or when the watermark is the gap and `grace_ms` beyond its last event."""

    def __post_init__(self) -> None:
        if self.gap_ms and (self.gap_ms < 0 or self.size_ms or self.advance_ms):
            raise ValueError(f"{self.topic}: a session has a gap above 0, and no size")
        if (self.size_ms <= 0 and not self.gap_ms) or self.grace_ms < 0:
            raise ValueError(f"{self.topic}: a window has a size above 0 and a grace of 0 or more")
        if self.advance_ms and (self.size_ms % self.advance_ms or self.size_ms // self.advance_ms > PHASES_MAX):
            raise ValueError(
                f"{self.topic}: hopping windows have a size that is the distance between them, up to {PHASES_MAX} times"
            )
        _set_default(self, "subject", f"{self.topic}-value")

    @property
    def phases(self) -> int:
        """How many windows an event belongs to."""
        return self.size_ms // self.advance_ms if self.advance_ms else 1


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """Devices whose silence is noticed as a group: those whose record key begins with `key_prefix`."""

    name: str
    key_prefix: str
    silent_after_s: float

    def __post_init__(self) -> None:
        if not self.name or self.silent_after_s <= 0:
            raise ValueError("a device class has a name, and a time above 0 after which it is silent")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A flow as it is run: where its events come from, which fields identify, order and key them, what comes of them.

    Field names refer to the reader schema, the newest committed version of `subject`.
    """

    name: str
    source: str
    id_field: str = "event_id"
    key_field: str = "device_id"
    time_field: str = "event_time"
    sequence_field: str = "sequence"
    payload_fields: tuple[str, ...] = ()
    """Numeric fields that folds read, as doubles, beyond id, key, time and sequence; null is NaN. NaN or an infinity as
    a value is `invalid`. An enum is the position of its symbol in the reader schema."""
    text_fields: tuple[str, ...] = ()
    """String fields that folds read: ids and the like, null or at most 128 bytes; a longer one is `invalid`."""
    field_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Closed range of a numeric field; a value outside is `invalid`."""
    tables: tuple[Table, ...] = ()
    windows: tuple[Window, ...] = ()
    operators: tuple[OperatorSpec, ...] = ()
    """Operators of your own, at their places in `order`, else after all tables and windows."""
    order: tuple[str, ...] = ()
    """Order in which the operators run: `deduplicate`, `reorder`, `to`, `to:<topic>`, `fold:<topic>`, `window:<topic>`,
    `session:<topic>` (the topics without the prefix), and names of `operators`. Empty: in this order."""
    branches: Mapping[str, str] = field(default_factory=dict)
    """Names in `order` that do not get the events of the one before them: each with the name whose events it gets, or
    with nothing where it gets the source's.
    """
    subject: str = ""
    """Subject of the source topic's values; by default the topic's."""
    prefix: str = ""
    """What all topics and the group begin with; see `with_prefix`."""
    silent_after_s: float = 300.0
    """A source without events for this long is silent: the monitor raises a flag."""
    device_classes: tuple[DeviceClass, ...] = ()
    """Parts of the source that are to raise a flag of their own."""
    clean_topic: str | None = ""
    """Topic of unique events in order; empty: the source's name and `.clean`. What does not go there has another
    outcome: it decides how an event is counted. None: there is none; what is unique and in order is clean."""
    event_topics: tuple[str, ...] = ()
    """Further topics that events are written to, at their places in `order`."""
    sinks: tuple[SinkSpec, ...] = ()
    """Which outputs are copied out of Kafka, and where to; workers ignore them."""
    bounds: Bounds = BOUNDS_DEFAULT
    """The declared bounds, where no setting overrides them; see `under`."""
    source_is_internal: bool = False
    """Whether the source is the topic between two stages of a flow."""
    input_name: str = ""
    """Name of the source among several inputs."""
    further_inputs: tuple[Input, ...] = ()
    """What is read beside the source, with as many partitions. Each is deduplicated and reordered by itself, then all
    are merged: what comes of that is no topic, and there is no topic of clean events."""
    personal: frozenset[str] = frozenset()
    """Names of the source's fields that hold personal data, if known (`streams.schemas.personal`): their values are
    masked in everything that people see.
    """
    version: str = DECLARED
    """Version of the flow, which is part of the names of outputs, group and state (`streams.flow.version`); see
    `as_version`."""
    named_after: str = ""
    """Topic that late events, dead letters and the journal are named after; empty: the source."""

    def __post_init__(self) -> None:
        _set_default(self, "subject", f"{self.source}-value")
        if self.silent_after_s <= 0:
            raise ValueError(f"{self.name}: silent_after_s is above 0")
        if len({one.name for one in self.device_classes}) < len(self.device_classes):
            raise ValueError(f"{self.name}: two device classes have the same name")
        if self.windows and not self.table_topics:
            raise ValueError(f"{self.name}: open windows travel with the rows of a table, so there must be one")
        unknown = self.field_ranges.keys() - set(self.payload_fields)
        if unknown:
            raise ValueError(f"{self.name}: field_ranges names {sorted(unknown)}, which payload_fields does not")

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Everything that is read: the source, then what is read beside it."""
        first = Input(
            self.source, self.input_name, self.id_field, self.key_field, self.time_field, self.sequence_field,
            self.payload_fields, self.text_fields, self.field_ranges, self.subject, self.bounds,
            self.source_is_internal, version=self.version, named_after=self.named_after,
        )  # fmt: skip
        return (first, *self.further_inputs)

    def reading(self, one: Input) -> "Pipeline":
        """The pipeline as the reader of one of its inputs alone: it judges that input's records as the workers do."""
        return replace(
            self,
            source=one.topic,
            input_name=one.name,
            id_field=one.id_field,
            key_field=one.key_field,
            time_field=one.time_field,
            sequence_field=one.sequence_field,
            payload_fields=one.payload_fields,
            text_fields=one.text_fields,
            field_ranges=one.field_ranges,
            subject=one.subject,
            bounds=one.bounds,
            source_is_internal=one.is_internal,
            named_after=one.named_after,
            further_inputs=(),
            tables=(),
            windows=(),
            operators=(),
            order=(),
            branches={},
            event_topics=(),
        )

    @property
    def fields_read(self) -> tuple[str, ...]:
        """Every field of the source's schema that the flow reads."""
        named = (self.id_field, self.key_field, self.time_field, self.sequence_field)
        return (*named, *self.payload_fields, *self.text_fields)

    def with_prefix(self, prefix: str) -> "Pipeline":
        """The same flow under other names: topics and group begin with `prefix`, subjects stay the same."""
        if not prefix:
            return self
        return replace(
            self._writing(lambda topic: prefix + topic),
            source=prefix + self.source,
            further_inputs=tuple(replace(one, topic=prefix + one.topic) for one in self.further_inputs),
            sinks=tuple(sink.with_topic(prefix + sink.topic) for sink in self.sinks),
            prefix=prefix + self.prefix,
        )

    def as_version(self, version: str) -> "Pipeline":
        """The same flow as another version of itself: it reads the same topics, and writes none of the same.

        It has no sinks: rows of both versions would meet in one table. Give the prefix before.
        """
        if not version:
            return self
        return replace(
            self._writing(lambda topic: of_version(topic, version)),
            name=of_version(self.name, version),
            further_inputs=tuple(replace(one, version=version) for one in self.further_inputs),
            sinks=(),
            version=version,
        )

    def reading_history(self, topic: str) -> "Pipeline":
        """The same flow with its source's history in another topic; its other topics are called as before."""
        return replace(self, source=topic, named_after=self.named_after or self.source)

    def declared_topic(self, topic: str) -> str:
        """The name by which the app declares an output."""
        return declared_name(topic.removeprefix(self.prefix), self.version)

    def _writing(self, renamed: Callable[[str], str]) -> "Pipeline":
        """With every output that the declaration names under another name."""
        topics = {one.topic: renamed(one.topic) for one in self._own_outputs}
        operators = tuple(with_topics(spec, topics) for spec in self.operators)
        names = {before.name: after.name for before, after in zip(self.operators, operators, strict=True)}
        return replace(
            self,
            operators=operators,
            order=tuple(names.get(name, name) for name in self.order),
            branches={names.get(one, one): names.get(after, after) for one, after in self.branches.items()},
            tables=tuple(replace(table, topic=renamed(table.topic)) for table in self.tables),
            windows=tuple(replace(window, topic=renamed(window.topic)) for window in self.windows),
            clean_topic=renamed(self.clean_topic) if self.clean_topic else self.clean_topic,
            event_topics=tuple(renamed(topic) for topic in self.event_topics),
        )

    def under(self, settings: Settings) -> "Pipeline":
        """The same flow with the bounds that are in force under `settings`.

        Raises:
            UsageError: what is set and what the flow declares contradict each other.

        """
        further = tuple(replace(one, bounds=one.bounds.under(settings)) for one in self.further_inputs)
        return replace(self, bounds=self.bounds.under(settings), further_inputs=further)

    @property
    def masks_keys(self) -> bool:
        """Whether keys of the flow are personal data."""
        if self.key_field in self.text_fields:  # an event without a value there has the key that it had before
            return not self.personal.isdisjoint((self.key_field, *self.text_fields))
        return self.key_field in self.personal

    @property
    def group(self) -> str:
        """Consumer group of the flow's workers."""
        return f"{self.prefix}streams.{self.name}"

    @property
    def member_prefix(self) -> str:
        """Prefix of the transactional ids of the pipeline's workers: one id per data directory."""
        return f"{self.prefix}streams-{self.name}-"

    @property
    def clean(self) -> str:
        """Topic of unique events, ordered per key."""
        return self.clean_topic or self._beside(CLEAN_SUFFIX)

    @property
    def late(self) -> str:
        """Topic of events that arrived after a later event of their key was released, or beyond the horizon."""
        return self._beside(LATE_SUFFIX)

    @property
    def dlq(self) -> str:
        """Name of the dead-letter topic."""
        return self._beside(DEAD_LETTERS_SUFFIX)

    @property
    def audit(self) -> str:
        """Audit topic: what was done about each dead letter, by whom, when and why, and the outcome."""
        return self._beside(DEAD_LETTERS_SUFFIX + AUDIT_SUFFIX)

    @property
    def journal(self) -> str:
        """Changelog of dedup and reorder state."""
        return self._beside(JOURNAL_SUFFIX)

    def forwarded_of(self, input_number: int) -> str:
        """Internal, of each input: what was read in another partition than its key's, and progress of parents."""
        of = f".{self.inputs[input_number].name}" if input_number else ""
        return self._beside(f"{FORWARDED_SUFFIX}{of}")

    @property
    def forwarded_topics(self) -> tuple[str, ...]:
        """`forwarded_of` each input, in their order."""
        return tuple(map(self.forwarded_of, range(1 + len(self.further_inputs))))

    @property
    def growth(self) -> str:
        """Name of the internal topic that records growths of the flow."""
        return self._beside(GROWTH_SUFFIX)

    @property
    def forget(self) -> str:
        """Internal topic: requests to forget keys while workers run.

        Created by the first request, with one partition.
        """
        return self._beside(FORGET_SUFFIX)

    @property
    def versions(self) -> str:
        """Internal topic: the versions of the flow, and which one is current; shared by all versions.

        Created by the first backfill, with one partition.
        """
        return f"{self.named_after or self.source}{VERSIONS_SUFFIX}"

    @property
    def history(self) -> str:
        """Internal topic: the history of files or a table that a version reads."""
        return self._beside(HISTORY_SUFFIX)

    def _beside(self, suffix: str) -> str:
        """Name of a topic that is named after the source."""
        return of_version(f"{self.named_after or self.source}{suffix}", self.version)

    def forget_topic(self) -> Topic:
        """The topic of requests as the first request creates it: a key is in it for a day."""
        return Topic(self.forget, retention_ms=DAY_MS)

    @property
    def table_topics(self) -> tuple[str, ...]:
        """Topics of tables: those of folds, and of operators of your own that keep one."""
        own = (state.name for spec in self.operators for state in spec.keyed if state.is_table)
        return (*(table.topic for table in self.tables), *own)

    @property
    def changelogs(self) -> tuple[str, ...]:
        """The topics that state is restored from: the journal and the tables."""
        return (self.journal, *self.table_topics)

    @property
    def row_outputs(self) -> tuple[Table | Window | OutputTopic, ...]:
        """The topics of rows, each with the subject of its schema."""
        return (*self.tables, *self.windows, *(one for one in self._own_outputs if one.columns is not None))

    @property
    def event_outputs(self) -> tuple[str, ...]:
        """Topics that events are written to unchanged, except the dead-letter topic."""
        own = (one.topic for one in self._own_outputs if one.columns is None)
        late = (one.late for one in self.inputs)
        return (*self._clean_topics, *late, *self.event_topics, *own)

    @property
    def _clean_topics(self) -> tuple[str, ...]:
        """The topic of clean events, where there is one."""
        return () if self.further_inputs or self.clean_topic is None else (self.clean,)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All output topics, without dead letters."""
        return (*self.event_outputs, *(one.topic for one in self.row_outputs))

    @property
    def _own_outputs(self) -> tuple[OutputTopic, ...]:
        outputs = (one for spec in self.operators for one in spec.outputs)
        return tuple(one if one.columns is None else self._with_subject(one) for one in outputs)

    def _with_subject(self, output: OutputTopic) -> OutputTopic:
        return replace(output, subject=output.subject or f"{self.declared_topic(output.topic)}-value")

    def sink_topics(self) -> tuple[Topic, ...]:
        """Dead-letter topics of the sinks: records that do not fit their target. Workers need none of them."""
        names = (dead_letters_of(sink, self.prefix) for sink in self.sinks)
        return tuple(Topic(name, retention_ms=30 * DAY_MS, message_bytes_max=OUTPUT_BYTES_MAX) for name in names)

    def growth_topics(self) -> tuple[Topic, ...]:
        """Internal topics of growing the flow in place; workers run without them, but the flow cannot be grown."""
        forwarded = (
            Topic(name, cleanup=Cleanup.DELETE_RECORDS_ONLY, message_bytes_max=OUTPUT_BYTES_MAX)
            for name in self.forwarded_topics
        )
        return (Topic(self.growth, cleanup=Cleanup.COMPACT, partitions=1), *forwarded)

    def topics(self) -> tuple[Topic, ...]:
        """All topics that data passes, in that order."""
        return (
            *map(_topic_read, self.inputs),
            *(Topic(topic, message_bytes_max=OUTPUT_BYTES_MAX) for topic in (*self._clean_topics, *self.event_topics)),
            *(topic for one in self.inputs for topic in topics_beside(one)),
            Topic(self.journal, cleanup=Cleanup.DELETE_RECORDS_ONLY, message_bytes_max=OUTPUT_BYTES_MAX),
            *(Topic(table.topic, cleanup=Cleanup.COMPACT, subject=table.subject) for table in self.tables),
            *(Topic(window.topic, subject=window.subject) for window in self.windows),
            *(topic_of(output) for output in self._own_outputs),
        )


def fed_from_outside(pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """Flows whose source is not the output of another one: the other flows read what these write."""
    written = written_by_flows(pipelines)
    return [pipeline for pipeline in pipelines if pipeline.source not in written]


def written_by_flows(pipelines: Sequence[Pipeline]) -> frozenset[str]:
    """Topics that are outputs of any of them."""
    return frozenset(topic for pipeline in pipelines for topic in pipeline.outputs)


def _topic_read(one: Input) -> Topic:
    if one.is_internal:
        return Topic(one.topic, Cleanup.DELETE_RECORDS_ONLY, one.subject, message_bytes_max=OUTPUT_BYTES_MAX)
    return Topic(one.topic, Cleanup.COMPACT if one.is_table else Cleanup.DELETE, one.subject)


def with_topics(spec: OperatorSpec, topics: Mapping[str, str]) -> OperatorSpec:
    """The operator with each output in `topics` replaced by another topic.

    Raises:
        ValueError: it still writes the old ones.

    """
    found = spec.with_topics(topics)
    wanted = [topics.get(one.topic, one.topic) for one in spec.outputs]
    if [one.topic for one in found.outputs] != wanted:
        raise ValueError(
            f"{spec.name}: its outputs cannot be moved to {', '.join(wanted)}: override with_topics of "
            f"{type(spec).__name__}, or hold the name of each topic in a field of a dataclass"
        )
    return found


def _set_default(declared: Any, name: str, value: str) -> None:
    """Set a field of a frozen declaration to its default where it has no value."""
    if not getattr(declared, name):
        object.__setattr__(declared, name, value)
