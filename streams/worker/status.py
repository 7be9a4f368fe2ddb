"""Status of a flow in a worker, for `/readyz` and the watchdog. Any thread may ask."""

from collections.abc import Callable, Mapping, Sequence

from streams.batch.lanes import all_lanes, input_of, partition_of_lane
from streams.clock import monotonic_ms
from streams.sources.kafka.intake import Intake
from streams.worker.account import CycleReport
from streams.worker.core import PipelineCore
from streams.worker.remarks import SourceRemarks
from streams.worker.restorer import Restorer


class PipelineStatus:
    """Status of one flow that is started."""

    def __init__(
        self,
        name: str,
        topics: Sequence[str],
        core: PipelineCore,
        intake: Intake,
        restorer: Restorer,
        remarks: SourceRemarks,
        report: CycleReport,
        *,
        is_stepping: Callable[[], bool],
    ) -> None:
        """`name` of the flow, the `topics` that it reads; `is_stepping`: whether the core is running a step."""
        self._name = name
        self._topics = tuple(topics)
        self._source = self._topics[0]
        self._core = core
        self._intake = intake
        self._restorer = restorer
        self._remarks = remarks
        self._report = report
        self._is_stepping = is_stepping

    def remarks(self) -> list[str]:
        """What is wrong with the source although this flow processes all that it can."""
        misrouted = self._report.remark()
        spare = f"no partition of {self._source} is left for this worker: it is a spare, and takes over"
        return [
            *self._remarks.remarks(monotonic_ms()),
            *([] if misrouted is None else [misrouted]),
            *([spare] if self._is_spare() else []),
        ]

    def unready(self) -> str | None:
        """Why this flow does not process all partitions that it was given; None when it does."""
        reasons = [reason for reason in (self._not_processing(), self._remarks.refusal()) if reason is not None]
        return "; ".join(reasons) or None

    def at_work(self) -> Mapping[int, tuple[int, int]]:
        """By lane that should be processed now: offset up to which all is taken, and the last one taken + 1."""
        ownership = self._core.ownership
        excused = self._restorer.stuck.keys() | ownership.stopped.keys()
        lanes = all_lanes(sorted(ownership.owned - excused), len(self._topics))
        known, taken = self._intake.positions(), self._intake.taken()
        engine = self._core.engine
        waiting = engine.waiting_partitions | engine.own_waiting
        return {lane: (known.get(lane, 0), taken.get(lane, 0)) for lane in lanes if lane not in waiting}

    def waits_for(self) -> str:
        """What the flow is busy with, as far as it knows."""
        missing = self._core.ownership.missing
        doing = [
            *(["the commit thread"] if self._core.cycle.is_committing else []),
            *(["the engine thread"] if self._is_stepping() else []),
            *([f"the restore of partitions {sorted(missing)}"] if missing else []),
        ]
        return f"{self._name}: {' and '.join(doing) or 'records from the broker'}"

    def _not_processing(self) -> str | None:
        ownership = self._core.ownership
        if held_up := dict(self._restorer.stuck) or ownership.stopped:
            return "; ".join(held_up.values())
        if missing := ownership.missing:
            return f"restoring {self._source} partitions {sorted(missing)}"
        if waiting := self._core.engine.waiting_partitions:
            places = [
                f"{topic} {sorted(partition_of_lane(lane) for lane in lanes)}"
                for number, topic in enumerate(self._topics)
                if (lanes := [lane for lane in waiting if input_of(lane) == number])
            ]
            return f"waiting for the schema registry: {', '.join(places)}"
        if waiting := self._core.parents.waited_for:
            return (
                f"{self._source} partitions {sorted(waiting)} wait for the partitions that their keys came from "
                "(waits_for_parent): nobody has these, or they do not get on"
            )
        has_some = ownership.owned or self._remarks.refused or self._is_spare()
        return None if has_some else f"no partition of {self._source} is assigned"

    def _is_spare(self) -> bool:
        """Whether it is healthy and idle because other workers have all partitions."""
        return not self._core.ownership.owned and self._intake.is_spare(monotonic_ms())
