"""`streams_processing_seconds`: CPU time in an operator."""

import time

from streams.worker.metrics import WorkerMetrics


def _seconds(metrics: WorkerMetrics, operator: str) -> float:
    found = metrics.registry.get_sample_value("streams_processing_seconds_sum", {"operator": operator})
    assert found is not None
    return found


def test_the_stopwatch_counts_computing_and_no_waiting() -> None:
    metrics = WorkerMetrics()

    with metrics.stopwatch("waits"):
        time.sleep(0.1)
    with metrics.stopwatch("computes"):
        until_s = time.thread_time() + 0.05
        while time.thread_time() < until_s:
            pass

    assert _seconds(metrics, "waits") < 0.05
    assert 0.05 <= _seconds(metrics, "computes") < 0.1
