"""`streams monitor` as a process where no broker answers."""

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from streams.local import ports
from tests.integration.forked import ForkedProcess
from tests.integration.workers import wait_until

pytestmark = pytest.mark.timeout(300)

ENDS: Final = (signal.SIGTERM, signal.SIGINT)


class Process:
    def __init__(self, log: Path, bootstrap_servers: str) -> None:
        self.port, self.log = ports.free_port(), log
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
            "STREAMS_MONITOR_INTERVAL_S": "1",
            "STREAMS_MONITOR_WINDOW_S": "30",
            "STREAMS_MONITOR_WORKERS": f"http://127.0.0.1:{self.port}",
            "STREAMS_LOG_FORMAT": "json",
        }
        command = ["monitor", "--web-port", str(self.port)]
        self.process = ForkedProcess(command, {**os.environ, **environment}, stdout=log)

    def get(self, path: str) -> tuple[int, str, float]:
        began = time.monotonic()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode(), time.monotonic() - began
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), time.monotonic() - began
        except OSError:
            return 0, "", time.monotonic() - began

    def answers(self) -> bool:
        return self.get("/healthz")[0] == 200


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Process]]]:
    """For each way to end one where no broker is, and one where a broker takes connections and never says a word.

    All at once: what they do most of the time is wait.
    """
    directory = tmp_path_factory.mktemp("monitors")
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as exits:
        found: dict[str, list[Process]] = {}
        for name, port in (("refused", ports.free_port()), ("silent", silent.getsockname()[1])):
            found[name] = [Process(directory / f"{name}-{end.name}.log", f"127.0.0.1:{port}") for end in ENDS]
            for one in found[name]:
                exits.callback(one.process.kill)
        for some in found.values():
            for one in some:
                wait_until(one.answers, "the monitor answers", timeout_s=60)
        yield found


def test_it_lives_is_not_ready_and_every_scrape_is_answered_at_once(processes: Mapping[str, list[Process]]) -> None:
    asked = [some[0] for some in processes.values()]
    for process in asked:
        assert process.get("/healthz")[:2] == (200, "ok\n")
        status, why, _ = process.get("/readyz")
        assert (503, "the first round is not done yet\n") == (status, why) or "no Kafka broker answers" in why
    # While the first round and the first count of dead letters wait for a broker, and after they have failed.
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        for process in asked:
            status, text, took_s = process.get("/metrics")
            assert (200, True) == (status, took_s < 1.0), took_s
            assert "streams_monitor_rounds_total 0\n" in text
            assert "streams_dead_letters" not in text, "nobody knows how many there are"
        time.sleep(0.5)
    for process in asked:
        wait_until(lambda: "no Kafka broker answers" in process.get("/readyz")[1], "it says why", timeout_s=60)  # noqa: B023
        assert 200 == process.get("/healthz")[0]
        assert 503 == process.get("/api/overview")[0]
        assert json.loads(process.get("/api/overview")[1])["error"] is True


def test_it_ends_in_order_when_it_is_told_to(processes: Mapping[str, list[Process]]) -> None:
    """Told at once: each of them has its own fifteen seconds."""
    began = time.monotonic()
    told = [(one, end) for some in processes.values() for one, end in zip(some, ENDS, strict=True)]
    for one, end in told:
        one.process.send_signal(end)
    for one, end in told:
        assert 0 == one.process.wait(20), (one.log, end)
        assert time.monotonic() - began < 15
        assert "Traceback" not in one.log.read_text()
