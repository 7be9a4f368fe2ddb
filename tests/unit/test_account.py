"""What a committed cycle tells of the ages of its events."""

import time
from dataclasses import replace

import numpy as np
from prometheus_client import generate_latest

from logistics.flows.gps import GPS
from streams.engine.effects import CycleEnd, Effects, PartitionEffects
from streams.monitor.processes import Address
from streams.monitor.workers import read_metrics
from streams.operators.output import EventRecords
from streams.worker.account import CycleAccount
from streams.worker.metrics import WorkerMetrics
from tests.unit.test_task import events

SKEW_MS_MAX = 60_000
DAY_MS = 86_400_000


def visible(*event_age_ms: int, arrival_age_ms: int) -> tuple[float, float, float]:
    """Events counted, those visible soon after their arrival, and soon after they happened."""
    now_ms = int(time.time() * 1000)
    made = events(*((number, now_ms - age) for number, age in enumerate(event_age_ms)))
    made = replace(made, timestamp_ms=np.full(len(made), now_ms - arrival_age_ms))
    account, metrics = CycleAccount(), WorkerMetrics()
    account.note(Effects(now_ms, len(made), [PartitionEffects(0, [EventRecords(GPS.clean, made, "clean")])]), 0.0)
    account.publish(metrics, GPS, CycleEnd([]), now_ms=now_ms, skew_ms_max=SKEW_MS_MAX)
    (told,) = read_metrics(
        Address("h", 1), generate_latest(metrics.registry).decode(), ready=True, state="ready"
    ).visible.values()
    return told.total, told.good, told.young


def test_old_events_that_arrived_just_now_are_visible_in_time() -> None:
    assert (3.0, 3.0, 0.0) == visible(DAY_MS, DAY_MS, DAY_MS, arrival_age_ms=500)


def test_events_that_waited_for_a_worker_are_not() -> None:
    assert (2.0, 0.0, 0.0) == visible(90_000, 90_000, arrival_age_ms=90_000)


def test_a_record_without_a_time_tells_nothing_of_its_arrival() -> None:
    now_ms = int(time.time() * 1000)

    assert (0.0, 0.0, 1.0) == visible(1_000, arrival_age_ms=now_ms + 1)  # its timestamp is -1
    assert (0.0, 0.0, 1.0) == visible(1_000, arrival_age_ms=-10 * 365 * DAY_MS)  # ten years ahead


def test_a_producers_clock_that_is_slightly_ahead_makes_no_negative_age() -> None:
    assert (1.0, 1.0, 1.0) == visible(1_000, arrival_age_ms=-1_000)
