"""`streams monitor` and a real Prometheus as processes of their own, for tests and for the on-call run."""

import http
import json
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.local import ports
from streams.local.stack import Stack
from tests.integration.forked import ForkedProcess
from tests.integration.workers import Worker, wait_until

ROOT = Path(__file__).parents[2]


@dataclass
class Monitor:
    """`streams monitor` as a process of its own."""

    process: ForkedProcess
    port: int
    worker: Worker
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310 - our own
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def json(self, path: str) -> Any:
        status, text = self.get(path)
        assert 200 == status, text
        return json.loads(text)


@contextmanager
def monitor_over(
    stack: Stack, worker: Worker, directory: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Monitor]:
    port, log = ports.free_port(), directory / "monitor.log"
    environment = {
        "STREAMS_MONITOR_INTERVAL_S": "1",
        "STREAMS_MONITOR_WINDOW_S": "30",
        "STREAMS_MONITOR_WORKERS": f"http://127.0.0.1:{worker.port}",
        "STREAMS_LOG_FORMAT": "json",
        **(settings or {}),
    }
    values = {**os.environ, **stack.environment(), **environment}
    process = ForkedProcess(["monitor", "--web-port", str(port)], values, stdout=log)
    monitor = Monitor(process, port, worker, log)
    try:
        wait_until(lambda: monitor.get("/readyz")[0] == 200, "the monitor is ready", timeout_s=60)
        yield monitor
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)


@contextmanager
def prometheus_over(monitor: Monitor, directory: Path, *, evaluation_s: int = 1) -> Iterator[str]:
    """A real Prometheus with our rules, scraping this monitor and its worker every second."""
    (directory / "rules").mkdir()
    for rules in (ROOT / "deploy/prometheus/rules").glob("*.yml"):
        # Those that add up minutes go by their own clock.
        (directory / "rules" / rules.name).write_text(
            rules.read_text().replace("interval: 1m\n", f"interval: {evaluation_s}s\n")
        )
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    text = text.replace("scrape_interval: 5s", "scrape_interval: 1s").replace(
        "interval: 10s", f"interval: {evaluation_s}s"
    )
    targets = f'static_configs: [{{targets: ["127.0.0.1:{monitor.worker.port}"]}}]'
    text = re.sub(r"dns_sd_configs:.*?port: 6066", targets, text, flags=re.DOTALL)
    (directory / "prometheus.yml").write_text(text.replace("monitor:8080", f"127.0.0.1:{monitor.port}"))
    port = ports.free_port()
    process = subprocess.Popen(
        ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", "--enable-feature=expand-external-labels"],
        stdout=subprocess.DEVNULL, stderr=(directory / "prometheus.log").open("wb"),
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def asked(prometheus: str, query: str) -> list[Any]:
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own
            found: list[Any] = json.load(answer)["data"]["result"]
            return found
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:  # it is still starting
            return []
        raise AssertionError(f"{query}: {error.read().decode()}") from None
    except OSError:
        return []
