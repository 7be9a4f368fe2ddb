"""How a flow is declared: a source, verbs that follow each other, and the topics that come out.

    positions = source("gps.positions.v1", key="device_id").deduplicate("24h").reorder()
    flow = Flow("gps", positions.to("gps.positions.v1.clean").fold(VehicleState(), to="vehicles.state.v1"))

Every value is frozen: a verb returns a new `Stream`, so that several branches may follow one of them, each with
functions, operators and topics of its own. What is wrong in a declaration is a `ValueError` where it stands.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from streams.flow.bounds import (
    BOUNDS_DEFAULT,
    QUARANTINE_COOLDOWN_MS_DEFAULT,
    QUARANTINE_REJECTS_DEFAULT,
    Bounds,
)
from streams.flow.checks import checked, did_you_mean
from streams.flow.declaration import DeviceClass, Pipeline
from streams.flow.durations import Duration, milliseconds
from streams.flow.lowering import lowered
from streams.flow.plan import (
    BatchFunction,
    Deduplicate,
    Filter,
    FoldTo,
    IntoSink,
    MapBatches,
    Merge,
    Plan,
    Process,
    Reorder,
    SessionTo,
    Source,
    Step,
    To,
    Verb,
    WindowTo,
    step_id,
    written_by,
)
from streams.operators.fold.aggregate import Aggregate, WindowAggregate
from streams.operators.spec import OperatorSpec
from streams.operators.stateless.rekey import Rekey
from streams.sinks.spec import SinkSpec, resolved


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Quarantines a key of which more than `rejects` records are rejected within a minute, for `cooldown`.

    During that time its records become dead letters without being decoded. `rejects=0`: no key is quarantined.
    """

    rejects: int = QUARANTINE_REJECTS_DEFAULT
    cooldown: Duration = f"{QUARANTINE_COOLDOWN_MS_DEFAULT}ms"


@dataclass(frozen=True, eq=False)
class Stream:
    """A point in a flow. `source` begins one; each verb returns the stream after it.

    Verbs that change or drop events: `deduplicate`, `reorder`, `filter`, `map_batches`, `process`. Verbs that write a
    topic and pass all events on: `to`, `fold`, `window`, `session`.
    """

    verb: Verb | IntoSink
    upstream: "Stream | None" = None
    bounds: Bounds = BOUNDS_DEFAULT
    beside: "tuple[Stream, ...]" = ()
    """Streams that are merged with `upstream`."""
    rekeyed: "Rekeyed | None" = None
    """For the source of a later stage: where its events come from."""

    @property
    def way(self) -> "list[Stream]":
        """The streams from the source to this one."""
        found = [self]
        while (above := found[-1].upstream) is not None:
            found.append(above)
        return found[::-1]

    @property
    def source(self) -> Source:
        """The stream that it begins with."""
        found = self.way[0].verb
        assert isinstance(found, Source)  # noqa: S101 - only `source` makes a stream without an upstream
        return found

    def deduplicate(self, horizon: Duration = "24h") -> "Stream":
        """Pass the first copy of each event; count the others as duplicates.

        Two records are copies when their ids and event times are equal. An event that is older than `horizon`, counted
        back from the watermark, goes to the late topic with the reason `beyond_horizon`.
        `STREAMS_DEDUP_HORIZON_MS` overrides the horizon.

        Raises:
            ValueError: the horizon is no duration from 1 s to a year.

        """
        horizon_ms = milliseconds(horizon, what="the horizon of deduplicate", least_ms=1_000)
        return Stream(Deduplicate(horizon_ms), self, replace(self.bounds, horizon_ms=horizon_ms))

    def reorder(self) -> "Stream":
        """Pass the events of each key in the order of event time, order field and id.

        An event is held until the watermark, the newest event time less the source's `out_of_orderness`, has passed it.
        An event that arrives after a later event of its key was passed goes to the late topic with the reason `late`.
        """
        return Stream(Reorder(), self, self.bounds)

    def to(self, topic: str | SinkSpec) -> "Stream":
        """Write every event to `topic`: its key, bytes and headers as they came.

        The topic of a flow's first `to` is its clean topic: events that reach it are counted as `clean`.

        With a sink, such as `postgres("vehicles")`, the process `streams sink NAME` copies the topic of the previous
        step to a target outside of Kafka.
        """
        if isinstance(topic, SinkSpec):
            return Stream(IntoSink(topic), self, self.bounds)
        return Stream(To(topic), self, self.bounds)

    def fold(self, aggregate: Aggregate, *, to: str, subject: str = "") -> "Stream":
        """Fold the events of each key into a row, and write each changed row to the compacted topic `to`.

        `subject` names the schema of the rows; by default `<to>-value`.
        """
        return Stream(FoldTo(to, aggregate, subject), self, self.bounds)

    def window(
        self,
        aggregate: WindowAggregate,
        *,
        size: Duration,
        to: str,
        grace: Duration = "0s",
        advance: Duration = "0s",
        subject: str = "",
    ) -> "Stream":
        """Fold the events of each key and event-time window; write a row to `to` when the window closes.

        Windows are tumbling: one begins where the one before it ends. With `advance` they are hopping: one begins every
        `advance`, of which the size is a multiple, and an event belongs to `size / advance` of them (60 at most, each
        of which costs as much as a window of its own).

        A window closes when an event of its key in a later window passes, or when the watermark is `grace` after its
        end. An event for a closed window opens it again: its next row has the next `revision`, and the rows add up.

        Raises:
            ValueError: size, grace or advance is no duration; the size is 0, or no multiple of `advance`.

        """
        advance_ms = milliseconds(advance, what=f"the distance of the windows of {to}")
        size_ms = milliseconds(size, what=f"the size of the windows of {to}", least_ms=1)
        grace_ms = milliseconds(grace, what=f"the grace of the windows of {to}")
        return Stream(WindowTo(to, aggregate, size_ms, grace_ms, subject, advance_ms), self, self.bounds)

    def session(
        self, aggregate: WindowAggregate, *, gap: Duration, to: str, grace: Duration = "0s", subject: str = ""
    ) -> "Stream":
        """Fold the events of each session of each key; write a row to `to` when the session is over.

        A session is a run of a key's events of which no two neighbours are more than `gap` apart in event time. It is
        over when an event of its key after a longer gap passes, or when the watermark is `gap` and `grace` after its
        last event. Its start is the time of its first event, its end that of its last one and the gap. An event within
        the gap of a session that is over opens it again: the next row has the same start and the next `revision`, and
        the rows add up. A session begins with the aggregate's empty state, not with what `carry` returns.

        Raises:
            ValueError: gap or grace is no duration; the gap is 0.

        """
        gap_ms = milliseconds(gap, what=f"the gap of the sessions of {to}", least_ms=1)
        grace_ms = milliseconds(grace, what=f"the grace of the sessions of {to}")
        return Stream(SessionTo(to, aggregate, gap_ms, grace_ms, subject), self, self.bounds)

    def filter(self, function: BatchFunction, *, name: str = "") -> "Stream":
        """Pass the events for which `function` is true; count the others as `filtered`.

        Before the flow's clean topic this is an event's outcome (`streams_events_total`); on a branch beside it the
        event has its outcome there, and is counted for the branch (`streams_branch_events_total`).

        `function` gets a `pyarrow.RecordBatch` with the columns `event_id`, `key`, `event_time`, `sequence` and the
        source's `fields` and `texts`, and returns a boolean array of its length (null: false). It must decide about
        each row by that row alone. `name` names the step; by default the function's.
        """
        return Stream(Filter(function, name or _name_of(function)), self, self.bounds)

    def map_batches(self, function: BatchFunction, *, name: str = "") -> "Stream":
        """Pass the result of `function` for each batch: a `pyarrow.RecordBatch` as for `filter`, with the same rows.

        It may change the declared fields, not the id, key, time or order of an event. `name` as for `filter`.
        """
        return Stream(MapBatches(function, name or _name_of(function)), self, self.bounds)

    def key_by(self, field: str, *, out_of_orderness: Duration = "", idle: Duration = "", name: str = "") -> "Stream":
        """Continue with the events under another key: the text field `field`, which the source has in `texts`.

        A stage of the flow ends here: it writes each event, its bytes as they came, to an internal topic, and the next
        stage reads that. The topic is called `<flow>.key_by.<name>` (`name`: by default the field) and has as many
        partitions as the flow's sources; consumed records of it are deleted. Each stage is a flow of its own, with its
        own group and state; the one before is called `<flow>-key_by-<name>`. Events are written exactly once, in the
        transaction of their offsets, and come out of `key_by` unique and in order, as after `reorder`.

        Events without a value in the field are counted as `null_key` and go no further; on the left of a join with
        `outer=True` they go on under the key that they have, and match nothing. Events of one new key come from
        several partitions, which are not read at the same pace: `out_of_orderness` (default: that of the source) is how
        far they may be apart; later events go to the topic's `.late`. `idle` as for `source`.

        Raises:
            ValueError: the source does not have the field in `texts`; the stream was merged; or a duration is none.

        """
        source = self.source
        if any(isinstance(one.verb, MapBatches) for one in self.way):
            raise ValueError(
                f"key_by({field!r}) comes after map_batches: it writes events as they came; let it come before"
            )
        if any(one.beside for one in self.way):
            raise ValueError(f"key_by({field!r}) comes after merge: let it come before, for each stream that needs it")
        if field not in source.texts:
            hint = did_you_mean(field, source.texts)
            raise ValueError(
                f"key_by({field!r}): source({source.topic!r}) has no such text field: texts={list(source.texts)}{hint}"
            )
        lateness_ms, idle_ms = self.bounds.lateness_ms, self.bounds.idle_ms
        if out_of_orderness:
            lateness_ms = milliseconds(out_of_orderness, what=f"out_of_orderness of key_by({field!r})")
        if idle:
            idle_ms = milliseconds(idle, what=f"idle of key_by({field!r})", least_ms=1)
        bounds = replace(self.bounds, lateness_ms=lateness_ms, idle_ms=idle_ms, quarantine_rejects=0)
        texts = tuple(source.key if one == field else one for one in source.texts)
        verb = replace(
            source, topic="", key=field, texts=texts, device_classes=(), declared_subject=source.subject,
            is_internal=True,
        )  # fmt: skip
        begun = Stream(verb, None, bounds, rekeyed=Rekeyed(self, field, name or field))
        return Stream(Reorder(), Stream(Deduplicate(bounds.horizon_ms), begun, bounds), bounds)

    def process(self, operator: OperatorSpec) -> "Stream":
        """Pass the events through an operator of your own, which may keep state and write topics of its own.

        The topics in `operator.outputs` are created, checked against their schemas and written with the flow's other
        outputs. Call it after `deduplicate` and `reorder` if the operator needs each event once and in order. Operators
        that keep rows by key need that.

        Raises:
            TypeError: it is no `OperatorSpec`.

        """
        if not isinstance(operator, OperatorSpec):
            raise TypeError(f"process takes an OperatorSpec, such as a dataclass derived from it, not {operator!r}")
        return Stream(Process(operator), self, self.bounds)


@dataclass(frozen=True, eq=False, slots=True)
class Rekeyed:
    """Where the events of a later stage come from."""

    stream: Stream
    field: str
    name: str
    """Name of the step, unique within the flow."""
    passes_null: bool = False
    """Whether events without a value in the field go on, under the key that they have."""


def passing_null_keys(stream: Stream) -> Stream:
    """The stream that begins with `key_by`, with the events too that have no value in the field.

    The field is one of its texts then, so that they are told from others; their key is the one that they had before.
    """
    begun, *steps = stream.way
    assert isinstance(begun.verb, Source) and begun.rekeyed is not None  # noqa: S101, PT018 - of `key_by`
    verb = replace(begun.verb, texts=(*begun.verb.texts, begun.verb.key))
    found = replace(begun, verb=verb, rekeyed=replace(begun.rekeyed, passes_null=True))
    for step in steps:
        found = replace(step, upstream=found)
    return found


def source(
    topic: str,
    *,
    key: str,
    id: str = "event_id",  # noqa: A002 - the field's role, as it is called everywhere
    time: str = "event_time",
    order: str = "sequence",
    fields: Sequence[str] = (),
    texts: Sequence[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
    out_of_orderness: Duration = f"{BOUNDS_DEFAULT.lateness_ms}ms",
    skew: Duration = f"{BOUNDS_DEFAULT.skew_ms_max}ms",
    idle: Duration = f"{BOUNDS_DEFAULT.idle_ms}ms",
    quarantine: Quarantine | None = None,
    silent_after: Duration = "5m",
    device_classes: Sequence[DeviceClass] = (),
    subject: str = "",
) -> Stream:
    """Events of a topic, read by the newest committed schema of `subject` (default: `<topic>-value`).

    The topic may be an output of another flow of the app: rows, or its clean events (`orders.events.v1.clean`), which
    are read by the subject of that flow's source.

    `id`, `key` and `order` name fields of the schema: text, text and a whole number; `time` one of milliseconds since
    1970. The record's key must equal the key field. `fields` are the numbers (also booleans and enums) that folds and
    functions read, `texts` the strings. `ranges` gives the closed range of a number; an event outside of it is a dead
    letter.

    `out_of_orderness` is how far the watermark is below the newest event time (`STREAMS_LATENESS_MS`), `skew` how far
    an event time may be ahead of the record's timestamp (`STREAMS_SKEW_MS_MAX`), `idle` the time without records after
    which a partition advances by the clock (`STREAMS_IDLE_MS`). The monitor raises a flag when the source, or one of
    its `device_classes`, is silent for longer than declared.

    Raises:
        ValueError: a duration is none, a name is given twice, or a range names a field that is not in `fields`.

    """
    brake = quarantine or Quarantine()
    bounds = Bounds(
        lateness_ms=milliseconds(out_of_orderness, what=f"out_of_orderness of {topic}"),
        horizon_ms=BOUNDS_DEFAULT.horizon_ms,
        skew_ms_max=milliseconds(skew, what=f"skew of {topic}"),
        idle_ms=milliseconds(idle, what=f"idle of {topic}", least_ms=1),
        quarantine_rejects=brake.rejects,
        quarantine_cooldown_ms=milliseconds(brake.cooldown, what=f"the quarantine of {topic}", least_ms=1_000),
    )
    silent_after_s = milliseconds(silent_after, what=f"silent_after of {topic}", least_ms=1) / 1_000
    verb = Source(
        topic, id, key, time, order, tuple(fields), tuple(texts), dict(ranges or {}), silent_after_s,
        tuple(device_classes), subject,
    )  # fmt: skip
    return Stream(verb, None, bounds)


@dataclass(frozen=True, eq=False)
class Flow:
    """A declared flow: its plan, checked. `streams worker` runs it, `streams flows show` shows it.

    Every module of an app (`streams worker --app`) that holds one declares it.
    """

    plan: Plan

    def __init__(self, name: str, *streams: Stream) -> None:
        """Declare flow `name`, whose branches end with `streams`. All of them must come from one source.

        Each event goes through all branches, one after the other in this order. The topic of the first `to` is the
        flow's clean topic: each event is counted once, by what became of it on the way there.

        Raises:
            ValueError: the declaration contradicts itself; the message says where, and what to do.

        """
        stages: dict[str, Flow] = {}
        known: dict[int, Stream] = {}
        named = [_named(stream, name, stages, known) for stream in streams]
        object.__setattr__(self, "plan", checked(_plan(name, named)))
        object.__setattr__(self, "_pipeline", lowered(self.plan))
        object.__setattr__(self, "_stages", tuple(stages.values()))

    @property
    def name(self) -> str:
        """Name of the flow; its consumer group is `streams.<name>`."""
        return self.plan.name

    @property
    def pipeline(self) -> Pipeline:
        """The flow as the engine runs it: topics, group, fields, folds and windows."""
        found: Pipeline = vars(self)["_pipeline"]
        return found

    @property
    def stages(self) -> "tuple[Flow, ...]":
        """The stages before this one (`key_by`), each a flow of its own, in the order in which data passes them."""
        found: tuple[Flow, ...] = vars(self).get("_stages", ())
        return found

    def with_topics(self, name: str, topics: Mapping[str, str]) -> "Flow":
        """A second flow like this one, called `name`, in which each topic in `topics` is replaced by another one.

        Raises:
            ValueError: the flow has no such topic, or it has several stages.

        """
        if self.stages:
            raise ValueError(f"flow {self.name} has several stages (key_by): declare the other one under its own name")
        known = {self.plan.source.topic, *self.plan.topics}
        if unknown := sorted(topics.keys() - known):
            raise ValueError(f"flow {self.name} has no topic {unknown[0]}: there is {', '.join(sorted(known))}")
        return _flow(self.plan.with_topics(name, topics))

    def with_sinks(self, *sinks: SinkSpec) -> "Flow":
        """The same flow with further sinks, each of which names its topic: `postgres("cars", topic="cars.v1")`.

        Use it for a target of one deployment that the flow itself does not declare. Workers run both alike: same
        topics, same state.

        Raises:
            ValueError: a sink names no topic, or one that the flow does not write, or a name is taken.

        """
        if nameless := next((sink.name for sink in sinks if not sink.topic), None):
            raise ValueError(f"sink {nameless} of flow {self.name} names no topic: say topic=...")
        return _flow(replace(self.plan, sinks=(*self.plan.sinks, *sinks)))


def _flow(plan: Plan) -> Flow:
    """A flow of a plan that was made of another one; raises ValueError where it contradicts itself."""
    made = object.__new__(Flow)
    object.__setattr__(made, "plan", checked(plan))
    object.__setattr__(made, "_pipeline", lowered(made.plan))
    return made


def _named(stream: Stream, flow: str, stages: dict[str, Flow], known: dict[int, Stream]) -> Stream:
    """The stream as part of this flow: a later stage gets the name of its topic, and is added to `stages`."""
    if id(stream) in known:
        return known[id(stream)]
    upstream = None if stream.upstream is None else _named(stream.upstream, flow, stages, known)
    beside = tuple(_named(one, flow, stages, known) for one in stream.beside)
    found = stream
    if stream.rekeyed is not None and isinstance(stream.verb, Source):
        rekeyed = stream.rekeyed
        topic, stage = f"{flow}.key_by.{rekeyed.name}", f"{flow}-key_by-{rekeyed.name}"
        if stage in stages:
            raise ValueError(
                f"flow {flow!r}: two steps are called key_by:{rekeyed.name}: give them different names (name=...)"
            )
        before = Flow(stage, rekeyed.stream.process(Rekey(topic, rekeyed.field, rekeyed.passes_null)))
        stages |= {each.name: each for each in (*before.stages, before)}
        found = replace(stream, verb=replace(stream.verb, topic=topic))
    elif upstream is not stream.upstream or beside != stream.beside:
        found = replace(stream, upstream=upstream, beside=beside)
    known[id(stream)] = found
    return found


def _plan(name: str, streams: Iterable[Stream]) -> Plan:
    """All steps of the branches; steps that branches share are there once."""
    steps: list[Step] = []
    places: dict[int, Step] = {}
    sinks: dict[int, SinkSpec] = {}
    bounds: dict[bool, list[Bounds]] = {True: [], False: []}
    further_bounds: tuple[Bounds, ...] = ()
    for stream in streams:
        way = stream.way
        before: Step | None = None
        for place in way:
            if isinstance(place.verb, IntoSink):
                if before is not None:
                    sinks[id(place)] = resolved(place.verb.spec, written_by(before.verb), before.id)
                continue
            if id(place) not in places:
                also: list[str] = []
                for label, other in zip(_names_beside(place), place.beside, strict=True):
                    chain = _chain(other, label)
                    steps += chain
                    also.append(chain[-1].id)
                    further_bounds = (*further_bounds, other.bounds)
                above = None if before is None else before.id
                places[id(place)] = Step(step_id(place.verb), place.verb, above, tuple(also))
                steps.append(places[id(place)])
            before = places[id(place)]
        bounds[any(isinstance(place.verb, Deduplicate) for place in way)].append(stream.bounds)
    if not steps:
        raise ValueError(f"flow {name!r} has no stream: Flow({name!r}, source(...).deduplicate().reorder().to(...))")
    found = bounds[True] or bounds[False]  # the horizon is that of `deduplicate`: only its own branch has it
    if len(set(found)) > 1:
        raise ValueError(f"flow {name!r}: its branches have different bounds: deduplicate once, before they part")
    return Plan(name, tuple(steps), found[0], further_bounds, tuple(sinks.values()))


def _names_beside(stream: Stream) -> tuple[str, ...]:
    """Names of the streams that are merged with its upstream."""
    return stream.verb.names[1:] if isinstance(stream.verb, Merge) else ()


def _chain(stream: Stream, name: str) -> list[Step]:
    """Steps of a stream that is merged with another one."""
    steps: list[Step] = []
    for place in stream.way:
        assert not isinstance(place.verb, IntoSink)  # noqa: S101 - what is merged has written nothing yet
        own = step_id(place.verb) if isinstance(place.verb, Source) else f"{step_id(place.verb)}:{name}"
        steps.append(Step(own, place.verb, steps[-1].id if steps else None))
    return steps


def _name_of(function: BatchFunction) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
