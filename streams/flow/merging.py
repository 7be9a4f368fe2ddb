"""Several streams become one: merged, or joined."""

from collections.abc import Mapping

from streams.batch.events import Fields
from streams.flow.builder import Stream
from streams.flow.durations import Duration, milliseconds
from streams.flow.plan import Deduplicate, Merge, Reorder, Source
from streams.limits import JOIN_MATCHES_DEFAULT, JOIN_MATCHES_MAX
from streams.operators.changes import ToColumns
from streams.operators.join.interval import JoinInterval
from streams.operators.join.latest import JoinLatest
from streams.operators.join.side import Side


def merge(**streams: Stream) -> Stream:
    """Merge the events of several sources into one stream, in an order that does not depend on which was read first.

    Each stream is `source(...).deduplicate(...).reorder()`; its key fields hold the same thing, and its topic has as
    many partitions as the others': `streams worker` refuses others. The first one leads: its partitions are divided
    among the workers, and a worker that has one of them reads the partition of the same number of each other topic.

    Events are passed by event time, order field, id and input, once the watermarks of all inputs have passed them. One
    that came later than that, and is not late, is passed at its input's watermark. An input without records for its
    `idle` keeps the others waiting no longer: its watermark goes on with theirs.

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
    topics = [stream.source.topic for stream in streams.values() if not stream.source.is_internal]
    if len(set(topics)) < len(topics):
        raise ValueError(f"merge reads {', '.join(topics)}: each input is another topic")
    return Stream(Merge(tuple(streams)), first, first.bounds, tuple(others))


def _require_plain(name: str, stream: Stream) -> None:
    kinds = [type(one.verb) for one in stream.way]
    if kinds != [Source, Deduplicate, Reorder]:
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
    which `matched` is false and the right fields are null; else it is counted as `unmatched`.

    Right events are kept until the watermark is `within` and `grace` beyond them. A left event that is passed when the
    watermark is up to `grace` beyond it, since it came behind those of other keys, is joined as if it had come in time.

    What is joined follows from the logs of both topics alone, and not from when they are read.

    Raises:
        ValueError: there are not two streams, they cannot be merged, or `within` or `grace` is no duration.

    """
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
    when the watermark is up to `grace` beyond them, since they came behind those of other keys, make all their pairs.

    An event is joined with the newest `matches_max` events of the other stream at most; pairs beyond that are counted
    as `beyond_matches`. All rows of a micro-batch are in memory together.

    What is joined follows from the logs of both topics alone, and not from when they are read.

    Raises:
        ValueError: there are not two streams, they cannot be merged, a time is no duration, or `matches_max` is not
            from 1 to 10,000.

    """
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


def _sides(verb: str, streams: Mapping[str, Stream]) -> tuple[Side, Side]:
    if len(streams) != 2:
        raise ValueError(f"{verb} takes two streams by name, the left one first")
    left, right = (Side(name, Fields(stream.source.fields, stream.source.texts)) for name, stream in streams.items())
    return left, right
