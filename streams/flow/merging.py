"""Merge or join several streams into one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from streams.batch.events import Fields
from streams.flow.bounds import BOUNDS_DEFAULT
from streams.flow.builder import Stream, passing_null_keys, source
from streams.flow.durations import Duration, milliseconds
from streams.flow.plan import Deduplicate, Merge, Reorder, Source
from streams.limits import JOIN_MATCHES_DEFAULT, JOIN_MATCHES_MAX
from streams.operators.changes import ToColumns
from streams.operators.join.interval import JoinInterval
from streams.operators.join.latest import JoinLatest
from streams.operators.join.side import Side
from streams.operators.join.table import AsOf, JoinTable


def merge(**streams: Stream) -> Stream:
    """Merge the events of several sources into one stream, in an order that does not depend on which was read first.

    Each stream is `source(...).deduplicate(...).reorder()`; its key fields hold the same thing, and its topic has as
    many partitions as the others': `streams worker` refuses others. The first one leads: its partitions are divided
    among the workers, and a worker that has one of them reads the partition of the same number of each other topic.

    Events are passed by event time, order field, id and input, once the watermarks of all inputs have passed them. An
    event that arrives after that, and is not late, is passed at its input's watermark. An input without records for its
    `idle` no longer keeps the others waiting: its watermark advances with theirs.

    A field of a merged event is called by the name that its stream has here, and its own: `orders.kind`; those of other
    inputs are null. The numeric field `merge.input` says which input it comes from, counted from 0. Each event that is
    merged is counted as `clean`; a flow that merges has no topic of clean events.

    Raises:
        ValueError: there are fewer than two streams, one has other steps, or two of them read the same topic.

    """
    if len(streams) < 2:
        raise ValueError("merge takes at least two streams by name: merge(orders=..., positions=...)")
    for name, stream in streams.items():
        _require_plain(name, stream)
    first, *others = streams.values()
    if first.source.is_table:
        raise ValueError("merge: the first stream leads, and is no table: name another one first")
    topics = [stream.source.topic for stream in streams.values() if not stream.source.is_internal]
    if len(set(topics)) < len(topics):
        raise ValueError(f"merge reads {', '.join(topics)}: each input is another topic")
    return Stream(Merge(tuple(streams)), first, first.bounds, tuple(others))


def _require_plain(name: str, stream: Stream) -> None:
    kinds = [type(one.verb) for one in stream.way]
    if kinds != ([Source, Reorder] if stream.source.is_table else [Source, Deduplicate, Reorder]):
        raise ValueError(
            f"merge: {name} is not source(...).deduplicate(...).reorder(): let other steps come after merge, where a "
            f"field is called {name}.FIELD"
        )


def join_latest(
    *,
    within: Duration,
    to: str,
    columns: ToColumns,
    outer: bool = False,
    grace: Duration = "0s",
    subject: str = "",
    **streams: Stream,
) -> Stream:
    """Join each event of the first stream with the latest one of the second, as of its event time; rows go to `to`.

    The streams are merged as `merge` says. A right event matches if it has the same key, is not later than the left one
    and at most `within` earlier. `columns(keys, rows)` makes a `pyarrow.RecordBatch` in the field order of the schema
    of `to`: `keys` are bytes, `rows` a structured array with `event_id`, `event_time` and `sequence` of the left event,
    `matched`, the right event's time as `<right>.event_time`, and the fields of both as `<name>.<field>` (numbers are
    doubles, null is NaN; texts are bytes or None). With `outer` a left event without a right one has a row too, in
    which `matched` is false and the right fields are null; else it is counted as `unmatched`. With `key_by` on the left
    and `outer`, that is so too of an event without a value in the field: it is one of the texts then, and null.

    Right events are kept until the watermark is `within` and `grace` beyond them. A left event that is passed when the
    watermark is up to `grace` beyond it, since it arrived after those of other keys, is joined as if it had arrived in
    time.

    The result depends on the logs of both topics only, not on when they are read.

    Raises:
        ValueError: there are not two streams, they cannot be merged, or `within` or `grace` is no duration.

    """
    streams = _with_null_keys(streams) if outer else streams
    left, right = _sides("join_latest", streams)
    within_ms = milliseconds(within, what=f"the time within which {to} joins", least_ms=1)
    grace_ms = milliseconds(grace, what=f"the grace of {to}")
    return merge(**streams).process(
        JoinLatest(
            topic=to, left=left, right=right, within_ms=within_ms, grace_ms=grace_ms, columns=columns, outer=outer,
            subject=subject,
        )
    )  # fmt: skip


def join_interval(
    *,
    before: Duration,
    after: Duration,
    to: str,
    columns: ToColumns,
    outer: bool = False,
    grace: Duration = "0s",
    matches_max: int = JOIN_MATCHES_DEFAULT,
    subject: str = "",
    **streams: Stream,
) -> Stream:
    """Join each event of the first stream with every one of the second that is near it in event time; rows go to `to`.

    The streams are merged as `merge` says. A pair has the same key, and its right event is at most `before` earlier and
    at most `after` later than the left one. Its row is written when the later of the two is passed. `columns` as for
    `join_latest`; rows have the id of the right event too, as `<right>.event_id`.

    A left event that has made no pair when the watermark is `after` and `grace` beyond it has, with `outer`, a row in
    which `matched` is false and the right fields are null; else it is counted as `unmatched`. Events that are passed
    when the watermark is up to `grace` beyond them, since they arrived after those of other keys, make all their pairs.

    An event is joined with the newest `matches_max` events of the other stream at most; pairs beyond that are counted
    as `beyond_matches`. All rows of a micro-batch are in memory together.

    The result depends on the logs of both topics only, not on when they are read.

    Raises:
        ValueError: there are not two streams, they cannot be merged, a time is no duration, or `matches_max` is not
            from 1 to 10,000.

    """
    streams = _with_null_keys(streams) if outer else streams
    left, right = _sides("join_interval", streams)
    if not 1 <= matches_max <= JOIN_MATCHES_MAX:
        raise ValueError(f"matches_max of {to} is {matches_max}: it is a number from 1 to {JOIN_MATCHES_MAX}")
    before_ms = milliseconds(before, what=f"how much earlier {to} joins")
    after_ms = milliseconds(after, what=f"how much later {to} joins")
    grace_ms = milliseconds(grace, what=f"the grace of {to}")
    return merge(**streams).process(
        JoinInterval(
            topic=to, left=left, right=right, before_ms=before_ms, after_ms=after_ms, grace_ms=grace_ms,
            matches_max=matches_max, columns=columns, outer=outer, subject=subject,
        )
    )  # fmt: skip


def table(
    topic: str,
    *,
    key: str,
    time: str = "last_event_time",
    order: str = "last_sequence",
    fields: Sequence[str] = (),
    texts: Sequence[str] = (),
    out_of_orderness: Duration = f"{BOUNDS_DEFAULT.lateness_ms}ms",
    idle: Duration = f"{BOUNDS_DEFAULT.idle_ms}ms",
    subject: str = "",
) -> Stream:
    """Rows of a compacted topic, such as a table that another flow folds, for `join_table`.

    `key` and `order` name fields of its schema, text and a whole number; `time` one of milliseconds since 1970: the
    time from which the row is valid. Rows of a key are passed in the order of time, order field and place in the log;
    one that is older than a row of its key which was passed goes to `<topic>.late`. A record without a value says that
    the row is deleted, at the record's timestamp. `fields`, `texts`, `out_of_orderness`, `idle` and `subject` as for
    `source`.

    Raises:
        ValueError: a duration is none.

    """
    begun = source(
        topic, id=key, key=key, time=time, order=order, fields=fields, texts=texts, out_of_orderness=out_of_orderness,
        idle=idle, subject=subject,
    )  # fmt: skip
    rows = Stream(replace(begun.source, is_table=True), None, begun.bounds)
    return Stream(Reorder(), rows, begun.bounds)


def join_table(
    *,
    to: str,
    columns: ToColumns,
    as_of: str = AsOf.EVENT_TIME,
    outer: bool = False,
    history: Duration = "0s",
    ttl: Duration = "0s",
    subject: str = "",
    **streams: Stream,
) -> Stream:
    """Join each event of the first stream with the row that the second one, a `table`, has of its key; to `to`.

    They are merged as `merge` says. With `as_of="event_time"` the row is the newest one that is not later than the
    event. An event that is passed when the watermark is beyond it, since it arrived after those of other keys, sees the
    table as of its own time if that is at most `history` before the watermark, else as of `history` before it. With
    `as_of="arrival"` the row is the newest one that was passed before the event. `columns` and `outer` as for
    `join_latest`; the row's time is `<table>.event_time`.

    The newest row of each key is kept until it is deleted, or, with a `ttl`, until it is older than that: such a row
    matches nothing. The rows are on disk, and in memory while events of their key arrive.

    The result depends on the logs of both topics only, not on when they are read.

    Raises:
        ValueError: there are not two streams, the second one is no table, they cannot be merged, `as_of` is neither,
            or `history` or `ttl` is no duration.

    """
    streams = _with_null_keys(streams) if outer else streams
    left, right = _sides("join_table", streams)
    if not list(streams.values())[1].source.is_table:
        raise ValueError(f"join_table: {right.name} is no table: table({right.name}...) reads one")
    if as_of not in list(AsOf):
        raise ValueError(f"as_of of {to} is {as_of!r}: it is one of {', '.join(AsOf)}")
    history_ms = milliseconds(history, what=f"the history of {to}")
    ttl_ms = milliseconds(ttl, what=f"the ttl of {to}")
    return merge(**streams).process(
        JoinTable(
            topic=to, left=left, right=right, as_of=AsOf(as_of), history_ms=history_ms, ttl_ms=ttl_ms, columns=columns,
            outer=outer, subject=subject,
        )
    )  # fmt: skip


def _with_null_keys(streams: Mapping[str, Stream]) -> dict[str, Stream]:
    """The streams of an outer join: with `key_by`, the left one has its events without a value in the field too."""
    first = next(iter(streams), None)
    return {
        name: passing_null_keys(stream) if name == first and stream.source.is_internal else stream
        for name, stream in streams.items()
    }


def _sides(verb: str, streams: Mapping[str, Stream]) -> tuple[Side, Side]:
    if len(streams) != 2:
        raise ValueError(f"{verb} takes two streams by name, the left one first")
    left, right = (_side(name, stream) for name, stream in streams.items())
    return left, right


def _side(name: str, stream: Stream) -> Side:
    read, rekeyed = stream.source, stream.way[0].rekeyed
    if rekeyed is None or not rekeyed.passes_null:
        return Side(name, Fields(read.fields, read.texts))
    return Side(name, Fields(read.fields, read.texts), read.key, rekeyed.stream.source.key)
