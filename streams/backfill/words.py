"""What `streams backfill` says of versions, in lines and as JSON. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from streams.backfill.progress import Progress
from streams.backfill.request import in_utc, options_of
from streams.flow.declaration import Pipeline
from streams.text import counted
from streams.versions.record import VersionRecord, Versions


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
