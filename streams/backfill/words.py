"""What `streams backfill` says of versions, in lines and as JSON. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streams.backfill.progress import Progress
from streams.backfill.request import in_utc, options_of
from streams.batch.lanes import input_of, partition_of_lane
from streams.flow.declaration import Pipeline
from streams.text import counted
from streams.versions.record import CurrentRecord, VersionRecord, Versions


def progress_line(flow: Pipeline, now: Progress, clock_s: float) -> str:
    """One line about how far it is; `clock_s`: the time of day, in seconds since 1970."""
    line = f"{flow.name}: {now.part:.0%}, {now.done:,} of {now.total:,} offsets, {now.per_s:,.0f}/s"
    if now.left_s is None or now.part >= 1:
        return line
    return f"{line}, ends about {in_utc(round((clock_s + now.left_s) * 1000)).rpartition('.')[0]}Z"


def outcomes_line(outcomes: Mapping[str, int]) -> str:
    """What became of the events."""
    return ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())


def outputs_of(declared: Pipeline, flow: Pipeline) -> dict[str, str]:
    """By declared output, with the deployment's prefix, the topic of the version."""
    return dict(zip(declared.outputs, flow.outputs, strict=True))


def version_row(declared: Pipeline, record: VersionRecord, versions: Versions) -> dict[str, Any]:
    """A version as JSON."""
    flow = declared.as_version(record.version)
    return {
        "flow": declared.name,
        "version": record.version,
        "status": status_of(record, versions),
        "source": str(record.origin),
        "inputs": list(record.inputs),
        "table_version": record.pinned,
        "bad_rows": record.bad_rows,
        "from": None if record.from_ms is None else in_utc(record.from_ms),
        "to": None if record.to_ms is None else in_utc(record.to_ms),
        "closed": record.is_closed,
        "group": flow.group,
        "offsets": sum(end - record.starts.get(lane, 0) for lane, end in record.ends.items()),
        "begun": in_utc(record.begun_ms),
        "finished": None if record.finished_ms is None else in_utc(record.finished_ms),
        "outputs": outputs_of(declared, flow),
    }


def status_of(record: VersionRecord, versions: Versions) -> str:
    """Where a version is in its life: running, finished, switching, current, kept."""
    current = versions.current
    if current.going_to == record.version:
        return "switching"
    if current.version == record.version:
        return "current"
    if current.before == record.version:
        return "kept"
    return "finished" if record.is_finished else "running"


def version_lines(declared: Pipeline, record: VersionRecord, versions: Versions) -> Iterator[str]:
    """A version in lines."""
    row = version_row(declared, record, versions)
    yield f"{declared.name} {record.version}: {row['status']}, {options_of(record)}"
    yield f"  begun {row['begun']}, {'not over' if row['finished'] is None else 'over ' + row['finished']}"
    yield f"  {counted(row['offsets'], 'offset')} of its range; consumer group {row['group']}"
    for name, topic in row["outputs"].items():
        yield f"  {name} -> {topic}"


def left_behind(declared: Pipeline, flows: Iterable[Pipeline]) -> Iterator[str]:
    """What reads outputs of the flow by their names, and gets nothing more from a version that takes over."""
    for flow in flows:
        read = sorted({one.topic for one in flow.inputs} & set(declared.outputs))
        if read and flow.name != declared.name:
            yield f"the flow {flow.name} reads {', '.join(read)}, which stands still then: declare the new topic there"
    for sink in declared.sinks:
        yield f"the sink {sink.name} copies {sink.topic}, which stands still then: declare the new topic there"


def switched_row(declared: Pipeline, current: CurrentRecord, *, was_done: bool, stopped_s: float) -> dict[str, Any]:
    """The version that has taken over as JSON."""
    flow = declared.as_version(current.version)
    return {
        "flow": declared.name,
        "current": current.version,
        "before": current.before,
        "positions": {_place(declared, lane): offset for lane, offset in sorted(current.positions.items())},
        "was_done": was_done,
        "stopped_seconds": round(stopped_s, 3),
        "group": flow.group,
        "outputs": outputs_of(declared, flow),
    }


def switched_lines(declared: Pipeline, current: CurrentRecord) -> Iterator[str]:
    """The version that has taken over, in lines."""
    flow = declared.as_version(current.version)
    at = ", ".join(f"{_place(declared, lane)} {offset:,}" for lane, offset in sorted(current.positions.items()))
    which = current.version or "the declared version"
    yield f"{declared.name}: {which} is current; it goes on at {at or 'the beginning'}"
    for name, topic in outputs_of(declared, flow).items():
        yield f"  {name} -> {topic}"
    if current.before is not None:
        yield f"the version before is kept: `streams backfill --flow {declared.name} --rollback` goes back"


def _place(declared: Pipeline, lane: int) -> str:
    return f"{declared.inputs[input_of(lane)].topic}-{partition_of_lane(lane)}"
