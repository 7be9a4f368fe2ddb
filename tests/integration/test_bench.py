"""The bench in small: each shipped pipeline drains a topic and comes to rest, and the oracle judges what came out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.baselines.kafka_streams import build
from streams.local.artifacts import fetch_all
from streams.local.progress import Silent
from streams.local.stack import Stack
from tests.integration.kafka_helpers import fresh_topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def test_orders_are_drained_and_released_when_idle(stack: Stack, tmp_path: Path) -> None:
    """Gps is judged by many tests; orders have no windows and another aggregate."""
    fresh_topics(stack)
    done = subprocess.run(
        [
            sys.executable, "-m", "loadtest.bench", "--only", "orders", "--orders-events", "10000",
            "--partitions", "3", "--use-running", "--results", str(tmp_path / "results"),
        ],
        capture_output=True, text=True, timeout=280, check=False, env={**os.environ, **stack.environment()},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "exact" in done.stdout
    assert json.loads((tmp_path / "results" / "latest" / "report.json").read_text())["runs"]


@pytest.mark.slow
def test_ingest_and_replay_of_two_revisions_are_measured_in_turn(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "loadtest.paired", "--before", "HEAD", "--pairs", "1", "--events", "1000",
            "--letters", "100", "--name", "short", "--results", str(tmp_path),
        ],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "short" / "paired.json").read_text())
    assert set(found["ratios"]) == {"ingest", "replay"}
    assert {(one["work"], one["side"], one["records"]) for one in found["trials"]} == {
        ("ingest", "before", 1_000), ("ingest", "after", 1_000), ("replay", "before", 100), ("replay", "after", 100),
    }  # fmt: skip


@pytest.mark.slow
def test_kafka_streams_does_the_work_as_a_baseline(tmp_path: Path) -> None:
    """Compiled here, on a stack of its own; that it writes what it should is checked by the program."""
    done = subprocess.run(
        [
            sys.executable, "-m", "loadtest.baselines", "--only", "kafka-streams", "--events", "50000",
            "--partitions", "3", "--steady-s", "2", "--name", "short", "--results", str(tmp_path),
        ],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    runs = json.loads((tmp_path / "short" / "report.json").read_text())["runs"]
    assert ["bench-kafka-streams", "bench-kafka-streams-warm", "bench-steady-kafka-streams"] == [
        one["scenario"] for one in runs
    ]
    assert all(one["events_per_cpu_second"] > 1_000 for one in runs)


@pytest.mark.slow
def test_the_kafka_streams_baseline_compiles_without_a_jdk(tmp_path: Path) -> None:
    lock = build.load_lock()
    libraries = fetch_all("Kafka Streams", lock.program, Silent())
    sources = sorted(build.SOURCES.glob("*.java"))
    build.compile_java(sources, libraries, tmp_path / "classes", build.eclipse_compiler(lock, Silent()))
    assert (tmp_path / "classes" / "baseline" / "GpsBaseline.class").is_file()
