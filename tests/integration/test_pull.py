"""A REST source into a real topic: killed at any moment, it loses nothing and doubles nothing."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.local.stack import Stack
from tests.gateway.running import position
from tests.integration.forked import ForkedProcess
from tests.integration.kafka_helpers import committed_records, decoded, fresh_topics, log_end, run
from tests.integration.workers import wait_until
from tests.pull.rest import POSITIONS_SOURCE, Positions, serving

pytestmark = pytest.mark.kafka


class Slowly:
    """Answers so slowly that a kill comes in between."""

    def __init__(self, answers: Positions) -> None:
        self.answers = answers

    def __call__(self, *request: Any) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.02)
        return self.answers(*request)


def kills(stack: Stack, directory: Path, count: int) -> None:
    fresh_topics(stack, flows=[GPS.name])
    rows = [position(i) for i in range(3_000)]
    answers = Positions(rows, size=25, failing=0.1)
    with serving(Slowly(answers)) as url:
        (directory / "api.toml").write_text(POSITIONS_SOURCE.format(source=GPS.source, url=url), encoding="utf-8")
        environment = {**os.environ, **stack.environment(), "STREAMS_PULL_DIR": str(directory)}
        for _ in range(count):
            end = log_end(stack, GPS.source)
            process = ForkedProcess(["pull", "api"], environment, stdout=directory / "pull.log")
            wait_until(lambda end=end: log_end(stack, GPS.source) > end + 60, "it pulls")  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            assert process.wait(10) == -9
        done = run(stack, "pull", "api", "--once", "--format", "json", STREAMS_PULL_DIR=str(directory))
        assert done.returncode == 0, done.stderr
        assert 0 < json.loads(done.stdout)["sent"] < len(rows), "it went on where the last one stopped"
    events = decoded(committed_records(stack, GPS.source), GPS.subject)
    assert sorted(event["event_id"] for event in events) == sorted(row["event_id"] for row in rows), "each once"


def test_killed_and_run_again_every_record_is_there_once(stack: Stack, tmp_path: Path) -> None:
    kills(stack, tmp_path, 2)


@pytest.mark.slow
def test_killed_twenty_times_every_record_is_there_once(stack: Stack, tmp_path: Path) -> None:
    kills(stack, tmp_path, 20)
