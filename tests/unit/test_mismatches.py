import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import structlog

from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.avro.framing import SCHEMA_ID_HEADER
from streams.avro.resolve import build_plan
from streams.batch.records import Records
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.engine.config import TaskConfig
from streams.engine.effects import Effects
from streams.engine.engine import Engine, MicroBatch
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.kafka.partitioner import partitions_of
from streams.limits import MISMATCH_LOG_INTERVAL_MS, SCHEMA_LABELS_MAX
from streams.state.memory import MemoryStore
from streams.worker.metrics import WorkerMetrics
from streams.worker.mismatches import OTHER, SchemaNews, SchemaWatch
from tests.unit.test_decode import NOW, TEXT, V2, frame, framed

NEWER = {**V2, "fields": [*V2["fields"], {"name": "fuel_l", "type": ["null", "double"]}]}


def letter(schema_id: int | None, reason: Reason, message: str = "why") -> DeadLetter:
    return DeadLetter(Reject(0, reason, message, schema_id), 0, 0, 0, b"d", b"", None)


def news(*letters: DeadLetter, unexpected: dict[tuple[int, str], int] | None = None) -> SchemaNews:
    found = SchemaNews()
    found.add(Effects(0, dead_letters=list(letters), unexpected=unexpected or {}))
    return found


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics()


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"streams_schema_{name}_total", {"pipeline": "gps", **labels})


def test_mismatches_are_counted_by_schema_id_and_reason_and_other_rejects_are_not(metrics: WorkerMetrics) -> None:
    watch = SchemaWatch("gps", metrics)
    letters = [letter(7, Reason.MALFORMED)] * 3
    letters += [letter(7, Reason.INCOMPATIBLE_SCHEMA), letter(8, Reason.UNKNOWN_SCHEMA)]
    letters += [letter(7, Reason.INVALID), letter(None, Reason.NOT_FRAMED), letter(7, Reason.DEVICE_QUARANTINED)]
    watch.tell(news(*letters), 0)
    watch.tell(news(letter(7, Reason.MALFORMED), unexpected={(7, "fuel_l"): 5}), 1)
    assert value(metrics, "mismatches", schema_id="7", reason="malformed") == 4
    assert value(metrics, "mismatches", schema_id="7", reason="incompatible_schema") == 1
    assert value(metrics, "mismatches", schema_id="8", reason="unknown_schema") == 1
    assert value(metrics, "mismatches", schema_id="7", reason="invalid") is None
    assert value(metrics, "unexpected_fields", schema_id="7", field="fuel_l") == 5


def test_each_schema_id_is_told_once_a_minute_with_what_came_meanwhile(metrics: WorkerMetrics) -> None:
    watch = SchemaWatch("gps", metrics)
    with structlog.testing.capture_logs() as said:
        watch.tell(news(letter(7, Reason.MALFORMED, "short")), 0)
        watch.tell(news(letter(7, Reason.MALFORMED, "long"), letter(8, Reason.MALFORMED)), 1)
        watch.tell(news(unexpected={(7, "fuel_l"): 5}), 2)
        watch.tell(
            news(letter(7, Reason.INCOMPATIBLE_SCHEMA), unexpected={(7, "fuel_l"): 6}), MISMATCH_LOG_INTERVAL_MS - 1
        )
        watch.tell(news(), MISMATCH_LOG_INTERVAL_MS)
        watch.tell(news(unexpected={(7, "x"): 1}), MISMATCH_LOG_INTERVAL_MS + 2)
        watch.tell(news(), 9 * MISMATCH_LOG_INTERVAL_MS)
    told = [(line["log_level"], line["schema_id"], line["records"], line.get("first")) for line in said]
    assert told == [
        ("warning", 7, {"malformed": 1}, "short"),
        ("warning", 8, {"malformed": 1}, "why"),
        ("info", 7, {"fuel_l": 5}, None),
        ("warning", 7, {"malformed": 1, "incompatible_schema": 1}, "long"),
        ("info", 7, {"fuel_l": 6, "x": 1}, None),
    ]


def test_ids_made_up_by_the_thousand_share_a_label_and_fill_no_memory(metrics: WorkerMetrics) -> None:
    watch = SchemaWatch("gps", metrics)
    count = 3 * SCHEMA_LABELS_MAX
    with structlog.testing.capture_logs() as said:
        for schema_id in range(count):
            watch.tell(news(letter(schema_id, Reason.UNKNOWN_SCHEMA)), schema_id)
    assert value(metrics, "mismatches", schema_id=OTHER, reason="unknown_schema") == count - SCHEMA_LABELS_MAX
    samples = [each for metric in metrics.schema_mismatches.collect() for each in metric.samples]
    assert len([each for each in samples if each.name.endswith("_total")]) == SCHEMA_LABELS_MAX + 1
    assert len(said) <= 2 * SCHEMA_LABELS_MAX
    assert max(len(watch._told_ms), len(watch._untold), len(watch._examples)) <= 2 * SCHEMA_LABELS_MAX


def engine_of_two_partitions() -> Engine:
    config = TaskConfig(
        replace(GPS, bounds=Bounds(0, 10**9, quarantine_rejects=0)),
        lambda _: nullcontext(),
        partial(partitions_of, partitions=1),
    )
    engine = Engine(config, Decoder(GPS, record_bytes_max=10_000, skew_ms_max=60_000))
    for partition in (0, 1):
        engine.install(PartitionTask(config, partition, MemoryStore(), None))
    return engine


def batch(values: list[Any], partitions: list[int]) -> MicroBatch:
    count = len(values)
    numbers = np.array(partitions)
    records = Records(numbers, np.arange(count), np.full(count, NOW), [b"d"] * count, values)
    return MicroBatch(records, NOW)


def test_records_that_wait_for_a_schema_are_counted_when_they_are_processed_and_only_then() -> None:
    engine = engine_of_two_partitions()
    engine.learn({9: build_plan(9, json.dumps(NEWER), TEXT), 2: build_plan(2, TEXT, TEXT)})
    newer = [framed(NEWER, 9, event_id=f"e{number}", fuel_l=1.0) for number in range(5)]
    usual = framed(event_id="usual")
    mixed = [newer[0], newer[1], frame(77) + b"\x00", newer[2], usual, newer[3]]
    effects = engine.process(batch(mixed, [0, 1, 0, 0, 1, 1]))
    assert effects.unexpected == {(9, "fuel_l"): 3}
    engine.learn({77: Reject(-1, Reason.UNKNOWN_SCHEMA, "no such schema", 77)})
    assert engine.process(MicroBatch(None, NOW)).unexpected == {(9, "fuel_l"): 1}
    both = batch([newer[4], newer[4][5:]], [0, 0]).records
    assert both is not None
    both.offset[:] = [8, 9]
    both = replace(both, headers=[None, [(SCHEMA_ID_HEADER, frame(9))]])
    assert engine.process(MicroBatch(both, NOW)).unexpected == {(9, "fuel_l"): 2}
    usual_by_now = batch([newer[4]] * 3, [0, 0, 0])
    assert usual_by_now.records is not None
    usual_by_now.records.offset[:] = [10, 11, 12]
    assert engine.process(usual_by_now).unexpected == {(9, "fuel_l"): 3}
