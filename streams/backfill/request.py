"""What a backfill is asked to do, and the range of the logs that follows from it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from streams.batch.lanes import input_of
from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.versions.record import From, VersionRecord

NOW: Final = "now"


@dataclass(frozen=True, slots=True)
class Request:
    """A version, and the history that goes into it."""

    version: str
    origin: From = From.TOPIC
    inputs: tuple[str, ...] = ()
    from_ms: int | None = None
    """Time of the first record; None: the run begins with the first record that there is."""
    to_ms: int | None = None
    """None: up to what there is when the backfill begins."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Column by field, where those of files have other names."""
    is_closed: bool = False
    """Whether all is released at the end."""

    def __post_init__(self) -> None:
        if self.origin is From.TOPIC and self.inputs:
            raise UsageError(f"{self.inputs[0]}: name files with --source files, a Delta table with --source delta")
        if self.origin is not From.TOPIC and not self.inputs:
            raise UsageError(f"--source {self.origin}: name {'a table' if self.origin is From.DELTA else 'files'}")
        if self.origin is From.DELTA and len(self.inputs) > 1:
            raise UsageError("--source delta: name one table")
        if self.origin is not From.TOPIC and (self.from_ms is not None or self.to_ms is not None):
            raise UsageError("--from and --to go by the timestamps of a topic's records: leave them out with files")
        if None not in {self.from_ms, self.to_ms} and int(self.from_ms or 0) >= int(self.to_ms or 0):
            raise UsageError("--from is before --to")

    def record(self, starts: Mapping[int, int], ends: Mapping[int, int], begun_ms: int, code: str) -> VersionRecord:
        """The record of the version as it begins."""
        return VersionRecord(
            self.version, self.origin, self.inputs, None, self.from_ms, self.to_ms, self.is_closed, dict(starts),
            dict(ends), begun_ms, code=code,
        )  # fmt: skip

    def require_same(self, record: VersionRecord) -> None:
        """Refuse to go on with what another command has begun.

        Raises:
            UsageError: it is something else.

        """
        if not self.record({}, {}, 0, "").begun_like(record):
            raise UsageError(
                f"version {record.version} was begun with {options_of(record)}: give the same to go on, another --into "
                "for another version, or --abandon to delete this one"
            )


def options_of(record: VersionRecord) -> str:
    """The options by which a version was begun, as they are written."""
    options = [f"--source {record.origin}", *record.inputs]
    if record.from_ms is not None:
        options.append(f"--from {in_utc(record.from_ms)}")
    if record.to_ms is not None:
        options.append(f"--to {in_utc(record.to_ms)}")
    elif record.is_closed:
        options.append(f"--to {NOW}")
    return " ".join(options)


def in_utc(time_ms: int) -> str:
    """A time as options take it."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parsed_time(option: str, text: str) -> int:
    """Milliseconds since 1970 of a time in ISO 8601, in UTC where it names no zone.

    Raises:
        UsageError: it is none.

    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r}: a time such as 2026-11-30T14:00:00Z") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def starts_of(
    flow: Pipeline, bounds: Mapping[int, tuple[int, int]], at_from: Mapping[int, int] | None
) -> dict[int, int]:
    """By lane the first offset of the range: tables are read from their beginning, whatever the range is.

    `bounds`: by lane the first offset, and the one after the last; `at_from`: offset of the first record of the range,
    -1 where there is none, None without --from.
    """
    found = {}
    for lane, (low, end) in bounds.items():
        if at_from is None or flow.inputs[input_of(lane)].is_table:
            found[lane] = low
        else:
            found[lane] = end if at_from[lane] < 0 else max(low, at_from[lane])
    return found


def ends_of(
    flow: Pipeline, bounds: Mapping[int, tuple[int, int]], at_to: Mapping[int, int] | None, starts: Mapping[int, int]
) -> dict[int, int]:
    """By lane the offset after the last one of the range; `at_to` as `at_from` of `starts_of`."""
    found = {}
    for lane, (_, end) in bounds.items():
        is_all = at_to is None or flow.inputs[input_of(lane)].is_table or at_to[lane] < 0
        found[lane] = max(end if is_all or at_to is None else min(end, at_to[lane]), starts[lane])
    return found


def require_can_be_rerun(flow: Pipeline, *, grown: bool, origin: From) -> None:
    """Refuse flows whose history lies nowhere as it was.

    Raises:
        StreamsError: it does not.

    """
    if internal := next((one for one in flow.inputs if one.is_internal), None):
        raise StreamsError(
            f"{flow.name} reads {internal.topic}, the topic between two stages: what is consumed of it is deleted. "
            "Rerun the flow that it is a stage of under another name (docs/rerun-history.md)"
        )
    if grown and origin is From.TOPIC:
        raise StreamsError(
            f"{flow.source} was grown in place: its older records lie in the partitions of fewer. Use --source files "
            "or delta, which send each record to the partition of its key"
        )
    if origin is not From.TOPIC and flow.further_inputs:
        raise StreamsError(f"{flow.name} reads several topics: its history is read from these, with --source topic")
