"""Kafka or the registry go away, or a worker is started wrongly: it waits and goes on, or says in one line why not."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Producer

from logistics.flows.gps import GPS
from streams.kafka.partitioner import partition_of
from streams.local import ports
from streams.local.stack import Stack
from streams.resilience.breaker import State
from tests.integration.forked import run_forked
from tests.integration.kafka_helpers import admin_of, delete_topics, run
from tests.integration.test_rejects import Encoder
from tests.integration.workers import (
    NEVER_IDLE,
    PARTITIONS,
    SETTINGS,
    Traffic,
    Worker,
    assert_exactly_once,
    end_of_run,
    fresh_world,
    read,
    rough_shape,
    wait_drained,
    wait_until,
    workers,
)

pytestmark = pytest.mark.kafka

SEED = int(os.environ.get("SEED", "1"))
AT_ONCE = {"STREAMS_LATENESS_MS": "0"}
"""Every event is due when it comes."""


@pytest.fixture
def worker(stack: Stack, tmp_path: Path) -> Iterator[Worker]:
    with workers(stack, tmp_path, "a") as (made,):
        yield made


# --- outages ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry_again(stack: Stack) -> Iterator[None]:
    yield
    stack.start_registry()


@pytest.mark.usefixtures("registry_again")
def test_while_the_registry_is_away_known_schemas_flow_and_unknown_ones_wait(stack: Stack, worker: Worker) -> None:
    fresh_world(stack)
    encoder = Encoder(stack)
    devices = [next(f"car-{n}" for n in range(1000) if partition_of(b"car-%d" % n, PARTITIONS) == p) for p in range(3)]
    expected: list[bytes] = []

    def send(device: str, version: int = 1) -> bytes:
        value = encoder.framed(version, device_id=device)
        produce(stack, device.encode(), value)
        return value

    def clean_becomes(values: list[bytes]) -> bool:
        return sorted(values) == sorted(message.value() or b"" for message in read(stack, GPS.clean))

    worker.start(AT_ONCE).wait_ready()
    expected += [send(device) for device in devices]
    wait_until(lambda: clean_becomes(expected), "known schemas flow")

    stack.stop_registry()
    waiting = [send(devices[0], version=2), send(devices[0])]
    wait_until(lambda: worker.readiness()[0] == 503, "the worker says that it waits")
    assert f"waiting for the schema registry: {GPS.source} [0]" in worker.readiness()[1]
    expected += [send(device) for device in devices[1:] * 2]
    wait_until(lambda: clean_becomes(expected), "partitions that wait for nothing flow")
    wait_until(lambda: worker.said("the schema registry does not answer"), "the log says why")
    breaker = 'streams_breaker_state{downstream="schema_registry"}'
    wait_until(lambda: worker.metric(breaker) == State.OPEN, "the registry is left alone")
    assert worker.said("circuit breaker")
    assert read(stack, GPS.dlq) == []
    assert worker.readiness()[0] == 503

    stack.start_registry()
    wait_until(lambda: clean_becomes(expected + waiting), "what waited flows")
    wait_until(lambda: worker.readiness()[0] == 200, "the worker is ready again")
    wait_until(lambda: worker.metric(breaker) == State.CLOSED, "the breaker is closed")
    assert waiting == [message.value() for message in read(stack, GPS.clean) if message.value() in waiting]
    assert read(stack, GPS.dlq) == []
    assert worker.terminate() == 0


@pytest.mark.parametrize("how", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_worker_goes_on_by_itself_when_kafka_restarts_under_load(
    stack: Stack, worker: Worker, how: signal.Signals
) -> None:
    probe = fresh_world(stack)
    with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=1_000) as traffic:
        worker.start(NEVER_IDLE).wait_ready()
        pid = worker.pid
        stack.restart_kafka(how)
        sent = traffic.sent
        wait_until(lambda: traffic.sent > sent + 2_000, "traffic goes on")
    wait_until(probe.all_is_committed, "the worker has caught up", timeout_s=120)
    assert worker.is_running
    assert worker.pid == pid
    assert "Traceback" not in worker.printed()
    end_of_run(worker)
    assert_exactly_once(stack, probe, worker, seed=SEED)


def test_a_deleted_dead_letter_topic_stops_the_cycle_until_it_is_there_again(stack: Stack, worker: Worker) -> None:
    probe = fresh_world(stack)
    encoder = Encoder(stack)
    worker.start().wait_ready()
    good = encoder.framed()
    produce(stack, b"car-7", good)
    wait_until(probe.all_is_committed, "the worker works")

    delete_topics(admin_of(stack), {GPS.dlq})
    bad = [b"not a position", b"nor is this"]
    for value in bad:
        produce(stack, b"car-7", value)
    after = encoder.framed()
    produce(stack, b"car-7", after)
    what_to_do = f"topics are missing ({GPS.dlq}): create them with `streams topics apply`"
    wait_until(lambda: worker.said(what_to_do), "the worker says that it cannot go on")
    assert worker.is_running
    assert not probe.all_is_committed()

    applied = run(stack, "topics", "apply")
    assert applied.returncode == 0, applied.stderr
    wait_drained(probe, worker, timeout_s=120)
    assert bad == [message.value() for message in read(stack, GPS.dlq)]
    assert [good, after] == [message.value() for message in read(stack, GPS.clean)]


# --- misuse -----------------------------------------------------------------------------------------------------------


def test_missing_topics_are_named_with_the_command_that_makes_them(stack: Stack, tmp_path: Path) -> None:
    fresh_world(stack)
    delete_topics(admin_of(stack), {GPS.journal, GPS.late})

    assert_one_line(
        start_wrongly(stack, tmp_path), 1, "topics are missing", GPS.journal, GPS.late, "streams topics apply"
    )


def test_an_unreachable_broker_is_told_with_its_address(stack: Stack, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{ports.free_port()}"

    done = start_wrongly(stack, tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": nowhere})

    assert_one_line(done, 1, f"no Kafka broker answers at {nowhere}", "streams local up", "KAFKA_BOOTSTRAP_SERVERS")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STREAMS_COMMIT_INTERVAL_MS", "soon"),
        ("STREAMS_COMMIT_INTERVAL_MS", "0"),
        ("STREAMS_LATENESS_MS", "-1"),
        ("STREAMS_IDLE_MS", "0.5"),
        ("STREAMS_DEDUP_HORIZON_MS", "999"),
        ("STREAMS_MEMORY_MB_MAX", "1"),
        ("STREAMS_RECORD_BYTES_MAX", "0"),
        ("STREAMS_LOG_FORMAT", "xml"),
        ("STREAMS_GROUP_PROTOCOL", "eager"),
        ("STREAMS_GROUP_STATIC", "perhaps"),
        ("STREAMS_STALL_S", "-1"),
        ("SCHEMA_REGISTRY_URL", "registry:8081"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SASL_PASSWORD_FILE", "/nowhere/password"),
    ],
)
def test_a_wrong_environment_value_is_told_by_name(stack: Stack, tmp_path: Path, variable: str, value: str) -> None:
    assert_one_line(start_wrongly(stack, tmp_path, {variable: value}), 2, variable)


@pytest.mark.parametrize("value", ["produced", "elsewhere:1", "hang:produced:soon"])
def test_a_wrong_failpoint_is_refused_before_anything_else(stack: Stack, tmp_path: Path, value: str) -> None:
    nowhere = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{ports.free_port()}"}
    assert_one_line(start_wrongly(stack, tmp_path, {**nowhere, "STREAMS_FAILPOINT": value}), 2, "STREAMS_FAILPOINT")


def test_an_unknown_pipeline_is_wrong_usage(stack: Stack, tmp_path: Path) -> None:
    assert_one_line(start_wrongly(stack, tmp_path, {}, "--pipeline", "tides"), 2, "tides", "gps")


def test_a_data_directory_is_for_one_worker(stack: Stack, worker: Worker, tmp_path: Path) -> None:
    fresh_world(stack)
    worker.start().wait_ready()

    done = start_wrongly(stack, tmp_path, {}, "--data-dir", str(worker.data_dir))

    assert_one_line(done, 1, str(worker.data_dir), f"process {worker.pid}", "--data-dir")
    assert worker.readiness()[0] == 200


def test_a_data_directory_that_cannot_be_written_is_told(stack: Stack, tmp_path: Path) -> None:
    fresh_world(stack)
    file = tmp_path / "file"
    file.write_text("in the way")

    done = start_wrongly(stack, tmp_path, {}, "--data-dir", str(file / "data"))

    assert_one_line(done, 1, str(file / "data"), "--data-dir")


def test_a_taken_web_port_is_told_with_its_flag(stack: Stack, tmp_path: Path) -> None:
    fresh_world(stack)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])

        done = start_wrongly(stack, tmp_path, {}, "--web-port", port)

    assert_one_line(done, 1, f"port {port}", "--web-port")


def start_wrongly(
    stack: Stack, directory: Path, environment: Mapping[str, str] | None = None, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a worker that cannot start, to its end."""
    given = ["--pipeline", "gps"] if "--pipeline" not in arguments else []
    own = ["--data-dir", str(directory / "own")] if "--data-dir" not in arguments else []
    values = {**os.environ, **stack.environment(), **SETTINGS, **(environment or {})}
    return run_forked(["worker", *given, *own, *arguments], values, timeout_s=60)


def assert_one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """It ended with this status; its last words are one line from us, with these words, and no traceback."""
    assert status == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("streams: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0]
    for word in words:
        assert word in lines[0], (word, lines[0])


# --- small things -----------------------------------------------------------------------------------------------------


def produce(stack: Stack, key: bytes, value: bytes) -> None:
    producer = Producer(
        {"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    producer.produce(GPS.source, value, key)
    assert producer.flush(30) == 0
