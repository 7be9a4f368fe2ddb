"""A load test for real, in its shortest form: one point against a running cluster, with the load test's own worker."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.histograms import added
from streams.kafka.admin import partition_counts
from streams.local.stack import Stack
from tests.integration.kafka_helpers import admin_of, fresh_topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

OPTIONS = (
    "--use-running", "--drive", "open", "--work", "downstream", "--partitions", "3", "--workers-max", "1",
    "--rate", "400", "--seconds", "5", "--warm-up-s", "1", "--lateness-ms", "500", "--repetitions", "1",
    "--downstream-ms", "20", "--minutes-max", "0", "--oracle-memory-mb", "400",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _schemas(stack: Stack) -> None:
    fresh_topics(stack)


def measured(stack: Stack, results: Path, *options: str) -> tuple[int, dict, str]:
    """Exit status of a load test, its report, and what it printed."""
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": stack.registry_url,
    }
    command = [sys.executable, "-m", "loadtest", *OPTIONS, "--name", "short", "--results", str(results), *options]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    report = results / "short" / "report.json"
    assert report.exists(), ended.stdout + ended.stderr
    return ended.returncode, json.loads(report.read_text()), ended.stdout


def test_every_measured_record_is_counted_and_every_window_judged(stack: Stack, tmp_path: Path) -> None:
    status, report, said = measured(stack, tmp_path)
    assert status == 0, said
    (run,) = report["runs"]
    assert run["scenario"] == "open-downstream"
    (rate,) = run["rates"]
    assert rate["counted"] == rate["due"] > 1_000
    assert f"counted {rate['due']:,} of {rate['due']:,} due" in said
    assert rate["publish_rate"] == pytest.approx(400, rel=0.5)
    stored = {name: added([text]).get_total_count() for name, text in rate["histograms"].items()}
    assert sum(count for name, count in stored.items() if name.startswith("latency_")) == rate["due"]
    assert stored["publish_delay"] >= rate["due"]
    assert run["latency_ms"]["p50"] >= 500
    oracle = run["oracle"]
    assert oracle["windows_checked_share"] == 1.0
    assert oracle["windows"] > 100
    assert not [name for name in oracle if name.startswith("lost") and oracle[name]]
    assert report["kafka"]["process.roles"] == "broker,controller"
    assert not [topic for topic in partition_counts(admin_of(stack)) if topic.startswith("loadtest.short")]


@pytest.mark.slow
def test_a_worker_that_loses_events_is_found_out_by_the_oracle_and_by_the_count(stack: Stack, tmp_path: Path) -> None:
    status, report, said = measured(stack, tmp_path, "--defect", "drop:50")
    assert status == 100, said
    (run,) = report["runs"]
    (rate,) = run["rates"]
    assert run["oracle"]["lost"] > 20
    assert rate["counted"] < rate["due"]
    assert f"counted {rate['counted']:,} of {rate['due']:,} due" in said
