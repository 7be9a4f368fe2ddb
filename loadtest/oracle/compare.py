"""Expected and observed output, compared as data: no Kafka here, so that the comparison itself can be tested.

A key (device or order) whose clean topic equals the model byte for byte in the same order needs no closer look. Any
other is taken apart by identity (event id and event time).
"""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Final, NamedTuple

from loadtest.oracle.events import OrderKey
from loadtest.oracle.folds import compare_rows, whole_mm
from loadtest.oracle.model import PartitionModel
from loadtest.oracle.trips import TripLog, compare_trips
from loadtest.oracle.windows import NewestWindow, Window, WindowKey, WindowLog, WindowSum

DETAILS_MAX: Final = 20
UNREADABLE: Final[OrderKey] = (-1, -1, "")
"""What `identify` answers for bytes that are no event."""


class LateRow(NamedTuple):
    """A record of the late topic: its value and its two headers."""

    raw: bytes
    reason: str
    by_ms: int


class DeadLetter(NamedTuple):
    """A dead letter, or what one must be: the original key and bytes, and why it was rejected."""

    key: bytes | None
    raw: bytes
    reason: str


Coordinates = tuple[int, int]
"""Partition and offset of a record in the source."""


@dataclass(slots=True)
class Output:
    """Everything a flow writes, whether read from its topics or foretold by the model."""

    clean: dict[bytes, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """Values per key, in the order of the log."""
    clean_times: dict[bytes, "array[int]"] = field(default_factory=lambda: defaultdict(lambda: array("q")))
    """Timestamps of the records of `clean`."""
    late: dict[bytes, list[LateRow]] = field(default_factory=lambda: defaultdict(list))
    dead: dict[Coordinates, list[DeadLetter]] = field(default_factory=lambda: defaultdict(list))
    table: dict[str, dict[str, Any]] = field(default_factory=dict)
    windows: WindowLog = field(default_factory=WindowLog)
    trips: TripLog = field(default_factory=TripLog)

    def add_model(
        self, partition: int, model: PartitionModel, *, watermark: float = -math.inf, windows: Iterable[Window] = ()
    ) -> None:
        """Add what the model of one source partition foretells.

        `watermark`: how far it has come by the records themselves; it has closed some of the `windows`.
        """
        for event in model.clean:
            key = event.entity.encode()
            self.clean[key].append(event.raw)
            self.clean_times[key].append(event.timestamp_ms)
        for late in model.late:
            self.late[late.event.entity.encode()].append(LateRow(late.event.raw, late.reason, late.by_ms))
        for reject in model.rejected:
            self.dead[partition, reject.offset].append(DeadLetter(reject.key, reject.raw, reject.reason))
        self.table.update(model.table)
        self.windows.sums.update(model.windows)
        self.trips.sums.update(model.trips.trips)
        self.windows.newest.update(model.newest)
        by_topic = {window.topic: window for window in windows}
        for name, total in model.windows.items():
            window = by_topic.get(name.topic)
            if window is not None:
                end_ms = name.start_ms + window.size_ms
                total.is_over = total.is_closed_by(watermark, end_ms=end_ms, grace_ms=window.grace_ms)


@dataclass(slots=True)
class Report:
    """The verdict. Counts are events unless said otherwise; all of `FAULTS` are zero when everything is right."""

    lost: int = 0
    """Valid, first copies, and in neither clean nor late."""
    duplicated: int = 0
    """Surplus appearances in clean and late together."""
    out_of_order: int = 0
    """Events that stand in clean after an event of the same key that should follow them."""
    misplaced: int = 0
    """In late instead of clean, or the reverse."""
    unexpected: int = 0
    """In clean or late without being in the source as a valid event."""
    altered: int = 0
    """In clean with bytes that differ from the first copy's."""
    timestamps_wrong: int = 0
    """In clean with another timestamp than its record in the source, though that was recent enough to be kept."""
    missing_late: int = 0
    late_headers_wrong: int = 0
    table_mismatches: int = 0
    """Rows that differ, are missing, or should not be; those of windows, counted below, included."""
    window_mismatches: int = 0
    """Windows whose rows do not add up to what they must, are missing, or should not be, by key and start."""
    trip_mismatches: int = 0
    """Trips whose rows do not add up to what they must, are missing or twice, or should not be."""
    window_duplicates: int = 0
    """Rows of windows with a revision that was there already."""
    rejects_missing: int = 0
    rejects_surplus: int = 0
    rejects_wrong: int = 0
    """Dead letters with another key, value or reason than the reject's."""

    clean: int = 0
    late: int = 0
    rejected: int = 0
    rejected_expected: int = 0
    events: int = 0
    """Number of records in the source."""
    duplicates: int = 0
    """Copies that had to be dropped."""
    windows: int = 0
    """Windows that there had to be."""
    windows_open: int = 0
    """Windows that nothing has closed yet: the newest of each vehicle, with rows still to come. The rows that they have
    is checked all the same."""
    window_rows: int = 0
    trips: int = 0
    """Trips that there had to be, those that are not over included."""
    trip_rows: int = 0
    details: list[str] = field(default_factory=list)

    FAULTS: ClassVar = (
        "lost",
        "duplicated",
        "out_of_order",
        "misplaced",
        "unexpected",
        "altered",
        "timestamps_wrong",
        "missing_late",
        "late_headers_wrong",
        "table_mismatches",
        "window_mismatches",
        "window_duplicates",
        "trip_mismatches",
        "rejects_missing",
        "rejects_surplus",
        "rejects_wrong",
    )

    @property
    def ok(self) -> bool:
        """Whether the output is exactly what the input demands."""
        return not any(getattr(self, name) for name in self.FAULTS)

    @property
    def windows_checked_share(self) -> float | None:
        """Share of the windows that had to be complete; None when there were none."""
        return (self.windows - self.windows_open) / self.windows if self.windows else None

    def as_dict(self) -> dict[str, Any]:
        """For a report: counts by name, and the details."""
        return {**asdict(self), "windows_checked_share": self.windows_checked_share}

    def add(self, other: "Report") -> None:
        """Add the verdict over other keys."""
        for each in fields(self):
            if each.name != "details":
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        for detail in other.details:
            self.note(detail)

    def note(self, text: str) -> None:
        """Keep the first few mismatches in words."""
        if len(self.details) < DETAILS_MAX:
            self.details.append(text)


class KeptTimes(NamedTuple):
    """Which timestamps an output keeps: those of the last `age_ms` before it is written."""

    age_ms: int
    now_ms: int
    """When the outputs were read: after everything was written."""

    def allows(self, due_ms: int, seen_ms: int) -> bool:
        """Whether a record of the source with the one may come out with the other."""
        if due_ms > self.now_ms:  # it was the future when it was written
            return seen_ms <= self.now_ms
        if due_ms < self.now_ms - self.age_ms:  # it may have been too old by then, and was raised
            return due_ms <= seen_ms <= self.now_ms
        return seen_ms == due_ms


def compare(
    expected: Output,
    observed: Output,
    identify: Callable[[bytes], OrderKey],
    *,
    all_closed: bool = True,
    kept: KeptTimes | None = None,
) -> Report:
    """Verdict over both outputs; `identify` gives (event_time, sequence, event_id) of a value, or `UNREADABLE`.

    Without `all_closed` the newest window of each vehicle may still be open, unless the watermark has closed it: rows
    of it may be missing. `kept`: which timestamps of clean records must be those of the source; None: not compared.
    """
    report = Report(
        clean=sum(map(len, observed.clean.values())),
        late=sum(map(len, observed.late.values())),
        rejected=sum(map(len, observed.dead.values())),
        rejected_expected=sum(map(len, expected.dead.values())),
    )
    for key in sorted({*expected.clean, *expected.late, *observed.clean, *observed.late}):
        clean, late = expected.clean.get(key, []), expected.late.get(key, [])
        traces = _Traces(clean, observed.clean.get(key, []), late, observed.late.get(key, []))
        name = key.decode(errors="replace")
        if not traces.agrees():
            _compare_traces(report, name, traces, identify)
        if kept is not None:
            times = zip(clean, expected.clean_times.get(key, ()), strict=True)
            times_seen = zip(traces.clean_seen, observed.clean_times.get(key, ()), strict=True)
            _compare_times(report, name, kept, dict(times), times_seen)
    _compare_dead(report, expected.dead, observed.dead)
    for entity in sorted({*expected.table, *observed.table}):
        row, seen = expected.table.get(entity), observed.table.get(entity)
        differing = compare_rows(row, seen) if row is not None else ["a row that should not be"]
        if differing:
            report.table_mismatches += 1
            wrong = {name: (row or {}).get(name) for name in differing}
            report.note(f"table {entity}: {', '.join(differing)}: expected {wrong}, observed {seen}")
    _compare_windows(report, expected.windows, observed, all_closed=all_closed)
    _compare_trips(report, expected, observed)
    return report


def _compare_trips(report: Report, expected: Output, observed: Output) -> None:
    report.trips, report.trip_rows = len(expected.trips.sums), observed.trips.rows
    report.trip_mismatches = observed.trips.duplicates
    for key, why in compare_trips(expected.trips.sums, observed.trips):
        report.trip_mismatches += 1
        report.note(f"{key.topic} {key.entity} from {key.start_ms}: {why}")
    report.table_mismatches += report.trip_mismatches


def _compare_times(
    report: Report, name: str, kept: KeptTimes, due: Mapping[bytes, int], seen: Iterable[tuple[bytes, int]]
) -> None:
    for raw, seen_ms in seen:
        due_ms = due.get(raw)  # what should not be there at all is another fault
        if due_ms is not None and not kept.allows(due_ms, seen_ms):
            report.timestamps_wrong += 1
            report.note(f"timestamp: {name}: {seen_ms} in clean, {due_ms} in the source")


class _Traces(NamedTuple):
    """What there must be, and is, of one key in clean and late."""

    clean: list[bytes]
    clean_seen: list[bytes]
    late: list[LateRow]
    late_seen: list[LateRow]

    def agrees(self) -> bool:
        return self.clean == self.clean_seen and sorted(self.late) == sorted(self.late_seen)


def _identities(values: Iterable[OrderKey]) -> Counter[tuple[str, int]]:
    return Counter((event_id, event_time) for event_time, _, event_id in values)


def _compare_traces(report: Report, name: str, traces: _Traces, identify: Callable[[bytes], OrderKey]) -> None:
    order_seen = [identify(raw) for raw in traces.clean_seen]
    clean, clean_seen = _identities(map(identify, traces.clean)), _identities(order_seen)
    late = _identities(identify(row.raw) for row in traces.late)
    late_seen = _identities(identify(row.raw) for row in traces.late_seen)
    for identity in sorted({*clean, *clean_seen, *late, *late_seen}):
        faults = _identity_faults(clean[identity], clean_seen[identity], late[identity], late_seen[identity])
        for fault, number in faults.items():
            if number:
                setattr(report, fault, getattr(report, fault) + number)
                report.note(f"{fault}: {name}, event {identity[0]} at {identity[1]}")
    latest = UNREADABLE
    for order in order_seen:
        if order < latest:
            report.out_of_order += 1
            report.note(f"out of order: {name}, {order} after {latest}")
        latest = max(latest, order)
    first_copies = {identify(raw): raw for raw in traces.clean}
    for raw, order in zip(traces.clean_seen, order_seen, strict=True):
        if first_copies.get(order, raw) != raw:
            report.altered += 1
            report.note(f"altered: {name}, {order}: {raw.hex()}")
    _compare_late_headers(report, name, traces)


def _identity_faults(clean: int, clean_seen: int, late: int, late_seen: int) -> dict[str, int]:
    """Faults of one identity from how often it must be, and is, in each topic."""
    due, seen = clean + late, clean_seen + late_seen
    moved = (clean_seen - clean) * (late_seen - late) < 0
    return {
        "lost": max(0, due - seen),
        "unexpected": seen if not due else 0,
        "duplicated": max(0, seen - due) if due else 0,
        "missing_late": max(0, late - late_seen),
        "misplaced": min(abs(clean_seen - clean), abs(late_seen - late)) if moved else 0,
    }


def _compare_late_headers(report: Report, name: str, traces: _Traces) -> None:
    surplus = Counter(traces.late_seen) - Counter(traces.late)
    missing = Counter(traces.late) - Counter(traces.late_seen)
    values = Counter(row.raw for row in surplus.elements()) & Counter(row.raw for row in missing.elements())
    if values:
        report.late_headers_wrong += values.total()
        due = [(row.reason, row.by_ms) for row in missing][:3]
        seen = [(row.reason, row.by_ms) for row in surplus][:3]
        report.note(f"late headers: {name}: expected {due}, observed {seen}")


def _compare_windows(report: Report, expected: WindowLog, observed: Output, *, all_closed: bool) -> None:
    log = observed.windows
    report.windows, report.window_rows, report.window_duplicates = len(expected.sums), log.rows, log.duplicates
    if log.duplicates:
        report.note(f"windows: {log.duplicates:,} rows have a revision that was there already")
    newest = {} if all_closed else expected.newest
    empty = {key.topic for key in expected.sums} - {key.topic for key in log.sums}
    for topic in sorted(empty):
        report.note(f"{topic} is empty: the worker emits no windows, or has not been idle for as long as one lasts")
    mismatched: set[str] = set()
    for key in sorted(expected.sums.keys() | log.sums.keys()):
        complaint = _window_complaint(key, expected.sums.get(key), log)
        if complaint is None:
            continue
        if key in expected.sums and _lacks_rows_only(key, expected.sums[key], newest, log):
            report.windows_open += 1
            mismatched.add(key.entity)
            continue
        report.window_mismatches += 1
        mismatched.add(key.entity)
        if key.topic not in empty:
            report.note(f"{key.topic} {key.entity} from {key.start_ms}: {complaint}")
    _compare_odometers(report, observed, mismatched)
    report.table_mismatches += report.window_mismatches + report.window_duplicates


def _lacks_rows_only(
    key: WindowKey, due: WindowSum, newest: Mapping[tuple[str, str], NewestWindow], log: WindowLog
) -> bool:
    """Whether nothing has closed the window yet, and what is there of it is right, and less than what there must be."""
    open_window = newest.get((key.topic, key.entity))
    if due.is_over or open_window is None or open_window.start_ms != key.start_ms or key in log.wrong:
        return False
    seen = log.sums.get(key)
    return seen is None or open_window.has(seen)


def _window_complaint(key: WindowKey, due: WindowSum | None, log: WindowLog) -> str | None:
    seen = log.sums.get(key)
    if due is None:
        return "a window that should not be"
    if seen is None:
        return "missing"
    if key in log.wrong:
        return log.wrong[key]
    differing = due.differing(seen)
    return f"{', '.join(differing)}: expected {due}, observed {seen}" if differing else None


def _compare_odometers(report: Report, observed: Output, mismatched: set[str]) -> None:
    """The engine against itself, to the millimetre: all rows of a vehicle add up to its odometer."""
    for topic in sorted({key.topic for key in observed.windows.sums}):
        for entity, distance_mm in sorted(observed.windows.distances_mm(topic).items()):
            row = observed.table.get(entity)
            if row is not None and entity not in mismatched and whole_mm(row["odometer_km"]) != distance_mm:
                report.window_mismatches += 1
                report.note(f"{topic} {entity}: {distance_mm} mm in all, the odometer says {row['odometer_km']} km")


def _compare_dead(
    report: Report, expected: Mapping[Coordinates, list[DeadLetter]], observed: Mapping[Coordinates, list[DeadLetter]]
) -> None:
    for partition, offset in sorted({*expected, *observed}):
        due, seen = expected.get((partition, offset), []), observed.get((partition, offset), [])
        report.rejects_missing += max(0, len(due) - len(seen))
        report.rejects_surplus += max(0, len(seen) - len(due))
        wrong = sum(1 for letter, other in zip(due, seen, strict=False) if letter != other)
        report.rejects_wrong += wrong
        if wrong or len(due) != len(seen):
            where = f"dead letter of partition {partition}, offset {offset}"
            reasons = [letter.reason for letter in due], [letter.reason for letter in seen]
            report.note(f"{where}: expected {reasons[0]}, observed {reasons[1]}{' with other bytes' if wrong else ''}")
