"""The worker under measurement, started as a user starts it."""

import socket
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from loadtest.subject import Subject
from streams.settings import Settings

PROCESSING: Final = "streams_processing_seconds"


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def worker(
    settings: Settings,
    pipeline: str,
    data_dir: Path,
    web_port: int,
    log: Path,
    environment: Mapping[str, str],
    additions: Sequence[str] = (),
) -> Subject:
    """A worker of one flow, with further `environment`; what it prints goes to `log`.

    It is `streams worker`, or with `additions`, options of `loadtest.worker_process`, that program.
    """
    program = ["-m", "loadtest.worker_process"] if additions else ["-m", "streams", "worker"]
    common = ["--pipeline", pipeline, "--data-dir", str(data_dir), "--web-port", str(web_port)]
    return Subject(
        "streams worker",
        [*program, *common, *additions],
        log,
        environment={
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "SCHEMA_REGISTRY_URL": settings.schema_registry_url,
            **environment,
        },
        ready_url=f"http://127.0.0.1:{web_port}/readyz",
    )


def operator_seconds(web_port: int) -> dict[str, float]:
    """Seconds that a worker has spent in each operator so far, from its metrics; dearest first."""
    with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/metrics", timeout=5) as response:
        text = response.read().decode()
    spent: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in {f"{PROCESSING}_sum", f"{PROCESSING}_total"} and "operator" in sample.labels:
                spent[sample.labels["operator"]] += sample.value
    return dict(sorted(spent.items(), key=lambda item: -item[1]))
