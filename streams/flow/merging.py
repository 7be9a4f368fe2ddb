"""Several streams become one: merged, or joined."""

from streams.batch.events import Fields
from streams.flow.builder import Stream
from streams.flow.durations import Duration, milliseconds
from streams.flow.plan import Deduplicate, Merge, Reorder, Source
from streams.operators.changes import ToColumns
from streams.operators.join.latest import JoinLatest, Side


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
    topics = [stream.source.topic for stream in streams.values()]
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
    *, within: Duration, to: str, columns: ToColumns, outer: bool = False, subject: str = "", **streams: Stream
) -> Stream:
    """Join each event of the first stream with the latest one of the second, as of its event time; rows go to `to`.

    The streams are merged as `merge` says. A right event matches if it has the same key, is not later than the left one
    and at most `within` earlier. `columns(keys, rows)` makes a `pyarrow.RecordBatch` in the field order of the schema
    of `to`: `keys` are bytes, `rows` a structured array with `event_id`, `event_time` and `sequence` of the left event,
    `matched`, the right event's time as `<right>.event_time`, and the fields of both as `<name>.<field>` (numbers are
    doubles, null is NaN; texts are bytes or None). With `outer` a left event without a right one has a row too, in
    which `matched` is false and the right fields are null; else it is counted as `unmatched`.

    What is joined follows from the logs of both topics alone, and not from when they are read.

    Raises:
        ValueError: there are not two streams, they cannot be merged, or `within` is no duration.

    """
    if len(streams) != 2:
        raise ValueError("join_latest takes two streams by name, the left one first")
    within_ms = milliseconds(within, what=f"the time within which {to} joins", least_ms=1)
    left, right = (Side(name, Fields(stream.source.fields, stream.source.texts)) for name, stream in streams.items())
    return merge(**streams).process(JoinLatest(to, left, right, within_ms, columns, outer, subject))
