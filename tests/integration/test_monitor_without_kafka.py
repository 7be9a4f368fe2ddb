"""`streams monitor` as a process where no broker answers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.local import ports
from tests.integration.workers import wait_until

pytestmark = pytest.mark.timeout(120)


class Process:
    def __init__(self, directory: Path, bootstrap_servers: str) -> None:
        self.port, self.log = ports.free_port(), directory / "monitor.log"
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
            "STREAMS_MONITOR_INTERVAL_S": "1",
            "STREAMS_MONITOR_WINDOW_S": "30",
            "STREAMS_MONITOR_WORKERS": f"http://127.0.0.1:{self.port}",
            "STREAMS_LOG_FORMAT": "json",
        }
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streams", "monitor", "--web-port", str(self.port)],
                env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        wait_until(lambda: self.get("/healthz")[0] == 200, "the monitor answers", timeout_s=60)

    def get(self, path: str) -> tuple[int, str, float]:
        began = time.monotonic()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode(), time.monotonic() - began
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), time.monotonic() - began
        except OSError:
            return 0, "", time.monotonic() - began

    def stop(self, number: signal.Signals = signal.SIGTERM, *, within_s: float = 20) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within_s)


@pytest.fixture(params=["refused", "silent"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    """No broker is there; or one that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if request.param == "silent" else ports.free_port()
        running = Process(tmp_path, f"127.0.0.1:{port}")
        yield running
        running.process.kill()
        running.process.wait()


def test_it_lives_is_not_ready_and_every_scrape_is_answered_at_once(process: Process) -> None:
    assert process.get("/healthz")[:2] == (200, "ok\n")
    status, why, _ = process.get("/readyz")
    assert (503, "the first round is not done yet\n") == (status, why) or "no Kafka broker answers" in why
    # While the first round and the first count of dead letters wait for a broker, and after they have failed.
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        status, text, took_s = process.get("/metrics")
        assert (200, True) == (status, took_s < 1.0), took_s
        assert "streams_monitor_rounds_total 0\n" in text
        assert "streams_dead_letters" not in text, "nobody knows how many there are"
        time.sleep(0.5)
    wait_until(lambda: "no Kafka broker answers" in process.get("/readyz")[1], "it says why", timeout_s=20)
    assert 200 == process.get("/healthz")[0]
    assert 503 == process.get("/api/overview")[0]
    assert {"error": True} == {"error": json.loads(process.get("/api/overview")[1])["error"]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_when_it_is_told_to(process: Process, number: signal.Signals) -> None:
    began = time.monotonic()

    assert 0 == process.stop(number)
    assert time.monotonic() - began < 15
    assert "Traceback" not in process.log.read_text()
