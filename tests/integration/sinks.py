"""Sinks as processes of their own: topics and records for them, and an oracle that reads topics and targets."""

import io
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import fastavro
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from streams.local import ports
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from tests.integration.forked import ForkedProcess
from tests.integration.guides import ROOT, environment_of, run
from tests.integration.kafka_helpers import committed_records, delete_topics, settings_of
from tests.integration.workers import wait_until

PREFIX: Final = "yard."
STATES: Final = f"{PREFIX}vehicles.state.v1"
MINUTES: Final = f"{PREFIX}vehicles.minutes.v1"
PARTITIONS: Final = 3
APP: Final = """
from logistics.flows.gps import positions
from logistics.folds.vehicle_minute import VehicleMinute
from logistics.folds.vehicle_state import VehicleState
from streams import Flow, delta, http, postgres

flow = Flow(
    "gps",
    positions.to("gps.positions.v1.clean")
    .fold(VehicleState(), to="vehicles.state.v1")
    .to(postgres("vehicles", name="vehicles", linger_ms=50))
    .to(delta("vehicles", name="lake-vehicles", linger_ms=200))
    .to(http("{endpoint}", name="hook", linger_ms=50, rows_max=50))
    .window(VehicleMinute(), size="1m", grace="30s", to="vehicles.minutes.v1")
    .to(postgres("minutes", name="minutes", linger_ms=50))
    .to(delta("minutes", name="lake", day_of="window_start", linger_ms=200))
    .to(http("{endpoint}", name="posts", linger_ms=50)),
)
"""
JUNK: Final = b"\0\0\0\0\1 junk"
"""No row: of another schema, and cut off."""
_PLAIN: Final[dict[str, Any]] = {}


class Yard:
    """A project with sinks, its topics on the stack, and a producer for them."""

    def __init__(
        self, stack: Stack, folder: Path, *, postgres_url: str = "", endpoint: str = "http://127.0.0.1:1/"
    ) -> None:
        self.stack, self.folder = stack, folder
        (folder / "yard.py").write_text(APP.replace("{endpoint}", endpoint), encoding="utf-8")
        self.environment: Mapping[str, str] = {
            **environment_of(ROOT, stack),
            "STREAMS_APP": "yard",
            "STREAMS_SCHEMAS_DIR": str(ROOT / "schemas"),
            "STREAMS_DATA_DIR": str(folder / "data"),
            "STREAMS_DELTA_URL": str(folder / "lake"),
            "STREAMS_TOPIC_PREFIX": PREFIX,
            "STREAMS_POSTGRES_URL": postgres_url,
            "STREAMS_LOG_FORMAT": "json",
        }
        self.client = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
        self.remove_topics()
        run(folder, self.environment, f"streams topics apply --partitions {PARTITIONS}")
        self._ids = {topic: self._schema_id(topic) for topic in (STATES, MINUTES)}
        self._number = 0
        self.producer = self._new_producer()
        self.processes: list[Sink] = []

    def remove_topics(self) -> None:
        delete_topics(
            self.client, {name for name in self.client.list_topics(timeout=10).topics if name.startswith(PREFIX)}
        )

    def states(self, count: int, *, keys: int = 50, deleted: Sequence[str] = (), aborted: bool = False) -> None:
        """Rows of vehicles, in one transaction: `count` more, of `keys` keys."""
        records: list[tuple[bytes, bytes | None]] = []
        for _ in range(count):
            self._number += 1
            key = f"van-{self._number % keys}"
            records.append((key.encode(), self._encoded(STATES, {
                "device_id": key, "events": self._number, "first_event_time": 1_700_000_000_000,
                "last_event_time": 1_700_000_000_000 + self._number, "last_sequence": self._number, "latitude": 52.5,
                "longitude": 13.4 + self._number / 1e6, "odometer_km": 0.1 * self._number,
                "speed_mean_kmh": None if self._number % 3 else 31.5, "speed_max_kmh": 50.0, "stopped_since": None,
            })))  # fmt: skip
        records += [(key.encode(), None) for key in deleted]
        self._send(STATES, records, aborted=aborted)

    def minutes(self, count: int) -> None:
        records: list[tuple[bytes, bytes | None]] = []
        for _ in range(count):
            self._number += 1
            key = f"van-{self._number % 50}"
            start = 1_700_000_000_000 + self._number * 60_000
            records.append((key.encode(), self._encoded(MINUTES, {
                "device_id": key, "window_start": start, "window_end": start + 60_000, "revision": 0, "events": 3,
                "distance_km": 0.25, "speed_max_kmh": None,
            })))  # fmt: skip
        self._send(MINUTES, records)

    def raw(self, topic: str, key: bytes, value: bytes) -> None:
        self._send(topic, [(key, value)])

    def sink(self, name: str) -> "Sink":
        started = Sink(self, name)
        self.processes.append(started)
        return started

    @contextmanager
    def monitor(self, sink: "Sink") -> Iterator[int]:
        """A monitor that looks at a sink; its port."""
        port = ports.free_port()
        looked_at = {"STREAMS_MONITOR_SINKS": f"http://127.0.0.1:{sink.port}", "STREAMS_MONITOR_WORKERS": ","}
        environment = {**self.environment, **looked_at, "STREAMS_MONITOR_INTERVAL_S": "1"}
        log = self.folder / "monitor.log"
        process = ForkedProcess(["monitor", "--web-port", str(port)], environment, stdout=log, directory=self.folder)
        try:
            wait_until(lambda: asked(port, "/readyz")[0] == 200, "the monitor is ready", timeout_s=60)
            yield port
        finally:
            process.terminate()
            process.wait(20)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.remove_topics()

    def expected_states(self) -> list[tuple[str, int]]:
        """(device, events) of the last row of each key, by the topic."""
        found: dict[bytes, int] = {}
        for record in committed_records(self.stack, STATES, PARTITIONS):
            if not record.value:  # a deletion
                found.pop(record.key, None)
            elif record.value != JUNK:
                found[record.key] = decoded(STATES, record.value)["events"]
        return sorted((key.decode(), events) for key, events in found.items())

    def expected_minutes(self) -> list[int]:
        """Beginnings of the windows of all rows, by the topic; milliseconds."""
        rows = committed_records(self.stack, MINUTES, PARTITIONS)
        return sorted(decoded(MINUTES, row.value)["window_start"] for row in rows)

    def _send(self, topic: str, records: Sequence[tuple[bytes, bytes | None]], *, aborted: bool = False) -> None:
        self.producer.begin_transaction()
        for key, value in records:
            self.producer.produce(topic, value, key)
            self.producer.poll(0)
        self.producer.abort_transaction() if aborted else self.producer.commit_transaction()

    def renew_producer(self) -> None:
        """Have an unfinished transaction aborted, by a producer that goes on in its place."""
        self.producer.purge()
        self.producer = self._new_producer()

    def _new_producer(self) -> Producer:
        made = Producer({
            "bootstrap.servers": self.stack.bootstrap_servers, "transactional.id": "yard-tests",
            "partitioner": "murmur2_random",
        })  # fmt: skip
        made.init_transactions()
        return made

    def _schema_id(self, topic: str) -> int:
        latest = Catalog.load(ROOT / "schemas").latest(f"{topic.removeprefix(PREFIX)}-value")
        return Registry(settings_of(self.stack)).lookup(latest.subject, latest.text)

    def _encoded(self, topic: str, row: Mapping[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, _schema(topic), dict(row))
        return b"\0" + self._ids[topic].to_bytes(4, "big") + out.getvalue()


def minutes_in(url: str) -> list[int]:
    """Beginnings of the windows of all rows in a Delta table, as DuckDB reads it; none while there is no table."""
    try:
        minutes = DeltaTable(url).to_pyarrow_dataset()
    except TableNotFoundError:
        return []
    found = duckdb.execute("select epoch_ms(window_start) from minutes order by 1").fetchall()
    assert len(found) == minutes.count_rows()
    return [row[0] for row in found]


def asked(port: int, path: str) -> tuple[int, str]:
    """Status and text of an answer; 0 while nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Sink:
    """A process `streams sink NAME`."""

    def __init__(self, yard: Yard, name: str) -> None:
        self.port = ports.free_port()
        self.log = yard.folder / f"{name}-{len(yard.processes)}.log"
        arguments = ["sink", name, "--web-port", str(self.port)]
        self._process = ForkedProcess(arguments, yard.environment, stdout=self.log, directory=yard.folder)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> tuple[int, str]:
        """Status and text of `/readyz`; 0 while nothing answers."""
        return asked(self.port, "/readyz")

    def metric(self, name: str) -> float:
        """Sum of the samples of a metric."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def wait_ready(self) -> None:
        ended = self._process.poll
        wait_until(lambda: self.ready()[0] == 200 or ended() is not None, "the sink is ready", timeout_s=90)
        assert self._process.poll() is None, self.log.read_text()

    def kill(self) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(10)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)
        return self._process.wait(40)

    def wait(self) -> int:
        return self._process.wait(60)


def lag_of(yard: Yard, topic: str, group: str) -> int:
    """Records after the group's committed offsets; markers of transactions count."""
    from confluent_kafka import Consumer  # noqa: PLC0415 - a helper's only use of it

    consumer = Consumer({"bootstrap.servers": yard.stack.bootstrap_servers, "group.id": group})
    places = consumer.committed([TopicPartition(topic, number) for number in range(PARTITIONS)], 10)
    lag = sum(consumer.get_watermark_offsets(one, 10)[1] - max(one.offset, 0) for one in places)
    consumer.close()
    return lag


def decoded(topic: str, value: bytes) -> dict[str, Any]:
    found = fastavro.schemaless_reader(io.BytesIO(value[5:]), _schema(topic), None)
    assert isinstance(found, dict)
    return found


def _schema(topic: str) -> Any:
    if topic not in _PLAIN:
        text = Catalog.load(ROOT / "schemas").latest(f"{topic.removeprefix(PREFIX)}-value").text
        _PLAIN[topic] = fastavro.parse_schema(_without_units(json.loads(text)))
    return _PLAIN[topic]


def _without_units(kind: Any) -> Any:
    if isinstance(kind, list):
        return [_without_units(each) for each in kind]
    if isinstance(kind, dict):
        return {name: _without_units(each) for name, each in kind.items() if name != "logicalType"}
    return kind


def settle(condition: Any, what: str, *, timeout_s: float = 60.0) -> None:
    wait_until(condition, what, timeout_s=timeout_s)
    time.sleep(0.2)
