import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from streams.errors import StreamsError
from streams.local import ports
from streams.local.kafka import Kafka
from streams.local.stack import Stack, recorded_stack, running_stack
from tests.integration.forked import run_forked

pytestmark = pytest.mark.kafka


def streams(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_forked(arguments, os.environ, timeout_s=150)


def up(stack: Stack) -> "subprocess.CompletedProcess[str]":
    ports_given = ["--kafka-port", str(stack.kafka.port), "--registry-port", str(stack.registry.port)]
    return streams("local", "up", "--dir", str(stack.directory), *ports_given)


def status(stack: Stack) -> tuple[int, dict[str, dict[str, object]]]:
    done = streams("local", "status", "--dir", str(stack.directory), "--format", "json")
    return done.returncode, json.loads(done.stdout)


def processes_of(directory: Path) -> list[psutil.Process]:
    """Every process whose working directory is this one, whatever a pid file says."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == directory:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that the command line started, on ports of its own, in a directory with a difficult name."""
    directory = tmp_path_factory.mktemp("own") / "local; stack, ümlaut"
    kafka_port = ports.free_port()
    described = Stack(directory, kafka_port, ports.free_port(kafka_port))
    try:
        done = up(described)
        assert done.returncode == 0, done.stderr
        yield described
    finally:
        streams("local", "down", "--dir", str(directory))


def test_up_prints_where_clients_connect_to_and_status_agrees(started: Stack) -> None:
    returncode, found = status(started)

    assert returncode == 0
    assert ("running", started.bootstrap_servers) == (found["kafka"]["state"], found["kafka"]["address"])
    assert ("running", started.registry_url) == (found["registry"]["state"], found["registry"]["address"])


def test_up_again_starts_nothing_and_is_quick(started: Stack) -> None:
    pids = (started.kafka_pid, started.registry_pid)
    before = time.monotonic()

    done = up(started)

    assert done.returncode == 0
    assert "already run" in done.stdout
    assert time.monotonic() - before < 5
    assert pids == (started.kafka_pid, started.registry_pid)


def test_up_on_other_ports_says_that_the_stack_already_runs(started: Stack) -> None:
    done = streams("local", "up", "--dir", str(started.directory), "--kafka-port", "1", "--registry-port", "2")

    assert done.returncode == 1
    assert f"already runs, with --kafka-port {started.kafka.port}; stop it first" in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_server_listens_on_loopback_only(started: Stack) -> None:
    for pid in (started.kafka_pid, started.registry_pid):
        listening = [c for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]

        assert len(listening) == 2
        assert {"127.0.0.1"} == {connection.laddr.ip.removeprefix("::ffff:") for connection in listening}


def test_two_stacks_run_side_by_side(started: Stack, stack: Stack) -> None:
    topic = f"only-here-{uuid.uuid4()}"

    create_topic(started, topic)

    assert topic in topics(started)
    assert topic not in topics(stack)


def test_a_crashed_kafka_shows_in_status_and_up_starts_only_that(started: Stack) -> None:
    registry_pid, kafka_pid = started.registry_pid, started.kafka_pid
    assert kafka_pid is not None
    kafka = psutil.Process(kafka_pid)
    kafka.kill()
    kafka.wait(timeout=10)

    returncode, found = status(started)

    assert returncode == 100
    assert (found["kafka"]["state"], found["registry"]["state"]) == ("crashed", "running")
    assert str(started.kafka.process.log) == found["kafka"]["log"]

    assert up(started).returncode == 0
    assert (status(started)[0], status(started)[1]["kafka"]["state"]) == (0, "running")
    assert registry_pid == started.registry_pid


def test_a_kafka_that_hangs_is_unhealthy(started: Stack) -> None:
    assert started.kafka_pid is not None
    os.kill(started.kafka_pid, signal.SIGSTOP)
    try:
        returncode, found = status(started)
    finally:
        os.kill(started.kafka_pid, signal.SIGCONT)

    assert (returncode, found["kafka"]["state"]) == (100, "unhealthy")


def test_topics_and_schemas_survive_down_and_up(started: Stack) -> None:
    name = f"durable-{uuid.uuid4()}"
    create_topic(started, name)
    registry = SchemaRegistryClient({"url": started.registry_url})
    schema_id = registry.register_schema(name, Schema('{"type": "string"}', "AVRO"))

    down = streams("local", "down", "--dir", str(started.directory))

    assert (down.returncode, processes_of(started.directory)) == (0, [])
    returncode, found = status(started)
    assert (returncode, found["kafka"]["state"], found["registry"]["state"]) == (100, "stopped", "stopped")
    assert "Nothing runs" in streams("local", "down", "--dir", str(started.directory)).stdout

    assert up(started).returncode == 0
    assert name in topics(started)
    assert schema_id == SchemaRegistryClient({"url": started.registry_url}).get_latest_version(name).schema_id


@pytest.mark.parametrize("flag", ["--kafka-port", "--registry-port"])
def test_a_port_taken_by_another_program_is_named_with_its_flag(tmp_path: Path, flag: str) -> None:
    chosen = {"--kafka-port": str(ports.free_port()), "--registry-port": str(ports.free_port())}
    with socket.create_server(("127.0.0.1", 0)) as server:
        chosen[flag] = str(server.getsockname()[1])
        done = streams("local", "up", "--dir", str(tmp_path), *[word for pair in chosen.items() for word in pair])

    assert done.returncode == 1
    assert (
        f"streams: port {chosen[flag]} on 127.0.0.1 is taken by another program: give another {flag}\n" == done.stderr
    )
    assert processes_of(tmp_path) == []


def test_ports_that_another_stack_took_after_they_were_looked_at_are_no_success(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of two stacks that are started at one time: the other's servers answer on the ports that ours cannot have."""
    second = Stack(tmp_path, stack.kafka.port, stack.registry.port)
    monkeypatch.setattr(ports, "is_free", lambda _: True)

    with pytest.raises(StreamsError, match=r"port \d+ on 127\.0\.0\.1 was taken by another program meanwhile: give an"):
        second.start()

    assert processes_of(tmp_path) == []
    assert [one.state for one in recorded_stack(tmp_path).status()] == ["stopped", "stopped"]
    assert ["running", "running"] == [one.state for one in stack.status()]


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_up_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-m", "streams", "local", "up", "--dir", str(tmp_path)]
    with subprocess.Popen([*command, "--kafka-port", "0", "--registry-port", "0"], stderr=subprocess.PIPE) as running:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "registry.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes_of(tmp_path) != []
        running.send_signal(how)
        _, printed = running.communicate(timeout=60)

    assert running.returncode == 130
    assert b"Traceback" not in printed
    assert processes_of(tmp_path) == []


def test_a_broker_that_cannot_start_is_told_with_its_reason_and_log_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=somebody-elses\n")

    with pytest.raises(StreamsError, match=r"Kafka stopped while starting: .*node.id.* \(log: .*kafka.log\)"):
        Stack(tmp_path).start()

    assert processes_of(tmp_path) == []
    assert [one.state for one in recorded_stack(tmp_path).status()] == ["stopped", "stopped"]


@pytest.mark.slow  # in short: test_outages restarts the broker under load, and stops and starts the registry
def test_a_stack_object_restarts_and_stops_its_servers(stack: Stack) -> None:
    topic, kafka_pid = f"restarted-{uuid.uuid4()}", stack.kafka_pid
    create_topic(stack, topic)

    stack.restart_kafka(signal.SIGKILL)
    assert kafka_pid != stack.kafka_pid
    assert topic in topics(stack)

    stack.stop_registry()
    assert not stack.registry.answers()
    assert stack.registry_pid is None
    stack.start_registry()
    assert stack.registry.answers()


def test_a_stack_in_use_is_not_taken_over(stack: Stack) -> None:
    with pytest.raises(StreamsError, match="already runs"), running_stack(stack.directory):
        pass

    assert stack.kafka.answers()


def test_a_recycled_pid_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "kafka.json").write_text(json.dumps({"pid": stranger.pid, "token": "f" * 32}))

        assert Kafka(tmp_path, 1).process.has_crashed
        assert recorded_stack(tmp_path).stop() == []
        assert stranger.poll() is None
        stranger.kill()


def create_topic(stack: Stack, name: str) -> None:
    """Until it is there: a broker that has just been frozen or restarted may let a request run out."""
    deadline = time.monotonic() + 120
    while name not in topics(stack):
        client = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
        future = client.create_topics([NewTopic(name)], request_timeout=10, operation_timeout=10)[name]
        with contextlib.suppress(KafkaException, TimeoutError):
            future.result(timeout=15)
        assert time.monotonic() < deadline, f"topic {name} could not be created"


def topics(stack: Stack) -> set[str]:
    return set(AdminClient({"bootstrap.servers": stack.bootstrap_servers}).list_topics(timeout=30).topics)
