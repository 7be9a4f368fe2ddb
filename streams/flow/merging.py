"""Several streams become one: how they are merged in a flow."""

from streams.flow.builder import Stream
from streams.flow.plan import Deduplicate, Merge, Reorder, Source


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
