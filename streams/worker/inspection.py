"""What the local state of workers is, and whether it fits what Kafka has: the work of `streams state inspect`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streams.engine.restore import read_checkpoint
from streams.engine.restore_context import RestoreContext
from streams.flow.chain import operators_of
from streams.flow.declaration import Pipeline
from streams.kafka.admin import wait_for_broker
from streams.kafka.changelog import KafkaChangelog
from streams.kafka.places import KafkaPlaces
from streams.operators.dedup.operator import KNOWN_FROM
from streams.resilience.retry import Retrier
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.state.checkpoint import Checkpoint
from streams.state.names import JOURNAL_INDEX, operator_prefix
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import StoreCorrupted, StoreUnavailable
from streams.worker.configuration import config_of
from streams.worker.layouts import read_layouts

_MEMORY_BYTES: Final = 16 << 20


@dataclass(slots=True)
class StoreReport:
    """What the store of one partition holds, and what a worker would do with it."""

    pipeline: str
    partition: int
    path: str
    checkpoint: Checkpoint | None = None
    rows: dict[str, int] = field(default_factory=dict)
    """Number of rows by kind."""
    bytes: int = 0
    verdict: str = "not compared with Kafka"
    problems: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    @property
    def ids_known_from(self) -> int:
        """Event time from which on all ids are known."""
        return 0 if self.checkpoint is None else self.checkpoint.marks.get(KNOWN_FROM, 0)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        checkpoint = None
        if self.checkpoint is not None:
            names = (
                "cycle",
                "offset_next",
                "leader_epoch",
                "watermark",
                "journal_next",
                "replay_from",
                "format",
            )
            checkpoint = {name: getattr(self.checkpoint, name) for name in names}
            checkpoint["ids_known_from"] = self.ids_known_from
            checkpoint["tables_next"] = dict(self.checkpoint.tables_next)
            checkpoint["identity"] = self.checkpoint.identity.as_dict()
        return {
            "pipeline": self.pipeline,
            "partition": self.partition,
            "path": self.path,
            "verdict": self.verdict,
            "problems": self.problems,
            "changes": self.changes,
            "checkpoint": checkpoint,
            "rows": self.rows,
            "bytes": self.bytes,
        }


def inspect_state(settings: Settings, pipelines: Sequence[Pipeline], *, offline: bool = False) -> list[StoreReport]:
    """The stores in the data directory, read without disturbing a worker that uses them.

    Raises:
        StreamsError: no broker answers; `offline` asks none.

    """
    reports: list[StoreReport] = []
    if not offline:
        wait_for_broker(settings)
    for pipeline in pipelines:
        folder = settings.streams_data_dir / f"{pipeline.prefix}{pipeline.name}"
        found = sorted((int(path.name), path) for path in folder.glob("*") if path.name.isdigit())
        looks = None if offline or not found else _Looks(settings, pipeline)
        for partition, path in found:
            report = _look_into(pipeline, partition, path)
            if looks is not None and report.checkpoint is not None:
                looks.judge(report)
            reports.append(report)
        if looks is not None:
            looks.close()
    return reports


def _look_into(pipeline: Pipeline, partition: int, path: Path) -> StoreReport:
    report = StoreReport(pipeline.name, partition, str(path))
    memory = RocksMemory(cache_bytes=_MEMORY_BYTES, memtable_bytes=_MEMORY_BYTES)
    try:
        store = RocksStore(path, memory, read_only=True)
    except (StoreCorrupted, StoreUnavailable) as error:
        report.verdict, report.problems = "cannot be read", [str(error)]
        return report
    kinds = {"groups of journal records": JOURNAL_INDEX}
    for spec in operators_of(pipeline):
        kinds |= {label: operator_prefix(name) for name, label in spec.parts.items()}
        for state in spec.keyed:
            label = f"rows of {state.name}" if state.is_table else f"windows of {state.name}"
            kinds[label] = operator_prefix(state.part)
    try:
        report.checkpoint = read_checkpoint(store)
        for name, prefix in kinds.items():
            count = 0
            for key, row in store.scan(prefix):
                count += 1
                report.bytes += len(key) + len(row)
            report.rows[name] = count
    except StoreCorrupted as error:
        report.verdict, report.problems = "moved aside and rebuilt at the next start", [str(error)]
    finally:
        store.abandon()
    return report


class _Looks:
    """Compares stores of one flow with what Kafka has."""

    def __init__(self, settings: Settings, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        further = tuple(one.topic for one in pipeline.further_inputs)
        self._changelog = KafkaChangelog(
            settings, group=pipeline.group, source=pipeline.source, retrier=Retrier(), further=further
        )
        self._places = KafkaPlaces(settings, pipeline).find()
        partitions = self._places.partitions
        layouts = read_layouts(settings, pipeline, partitions)
        self._config = config_of(pipeline, settings, partitions, catalog=Catalog.load())
        self._context = RestoreContext(
            self._config, 0, self._changelog, self._places, lambda _rows, _all: None, layouts
        )

    def judge(self, report: StoreReport) -> None:
        checkpoint = report.checkpoint
        if checkpoint is None:
            return
        declared = self._context.declared(checkpoint.identity.epoch)
        judgement = self._config.judged(checkpoint.identity, declared)
        report.problems += judgement.refused
        report.changes += judgement.migrated
        committed = self._changelog.committed([report.partition])[report.partition]
        at = None if committed is None else (committed.offset_next, committed.cycle)
        if report.problems:
            report.verdict = "refused"
        elif judgement.source_is_new:
            report.verdict = "fits; the source is a new topic and is read from its beginning"
        elif at == (checkpoint.offset_next, checkpoint.cycle):
            report.verdict = "fits, and stands at the committed offset"
        elif committed is None:
            report.verdict = "fits; the group has no offset here"
        elif committed.cycle is not None and committed.cycle > checkpoint.cycle:
            report.verdict = f"fits; the journal brings it forward to cycle {committed.cycle}"
        elif committed.offset_next == checkpoint.offset_next:
            report.verdict = "fits; the committed offset was written by something else, and is equal"
        else:
            report.verdict = "refused"
            report.problems.append(
                f"the group stands at offset {committed.offset_next} (cycle {committed.cycle}), the store at "
                f"{checkpoint.offset_next} (cycle {checkpoint.cycle})"
            )

    def close(self) -> None:
        self._changelog.close()


def _untold(_records: int, _rows: int) -> None:
    """Ignore progress: nothing waits for these reads."""
