"""An MQTT broker, `streams bridge mqtt` as a process of its own, and a publisher that knows what the broker has."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from logistics.flows.gps import GPS
from streams.local import ports
from streams.local.stack import Stack
from tests.integration.forked import ForkedProcess
from tests.integration.gateways import RunningGateway
from tests.integration.workers import wait_until
from tests.left_out import mosquitto


class Mosquitto:
    """An MQTT broker that keeps its sessions on disk, at the same port whenever it is started."""

    def __init__(self, directory: Path, *, users: dict[str, str] | None = None) -> None:
        self.port = ports.free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        lines = [f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {directory}/",
                 "max_queued_messages 100000", "user root"]  # fmt: skip
        if users is None:
            lines.append("allow_anonymous true")
        else:
            lines += ["allow_anonymous false", f"password_file {directory / 'passwords'}"]
            (directory / "passwords").write_text("".join(f"{name}:{value}\n" for name, value in users.items()))
            self._hash_passwords()
        (directory / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def _hash_passwords(self) -> None:
        file = self._directory / "passwords"
        subprocess.run(["mosquitto_passwd", "-U", str(file)], check=True, timeout=30)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; returns when it answers."""
        program = mosquitto()
        assert program is not None
        with (self._directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self._directory / "mosquitto.conf")], stdout=log, stderr=log
            )
        wait_until(lambda: ports.is_open(self.port), "the MQTT broker answers")

    def stop(self) -> None:
        """End it; what it keeps is written before."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
            self._process = None


class RunningBridge(RunningGateway):
    """A bridge, started and stopped as often as one likes, with the same session every time."""

    def __init__(
        self,
        stack: Stack,
        directory: Path,
        broker: Mosquitto,
        *,
        options: Sequence[str] = (),
        bootstrap_servers: str | None = None,
        **environment: str,
    ) -> None:
        super().__init__(stack, directory, bootstrap_servers=bootstrap_servers)
        self._environment |= environment
        url = f"mqtt://127.0.0.1:{broker.port}"
        self._arguments = ["bridge", "mqtt", url, "--source", GPS.source, "--client-id", "bridge-a", *options]

    def begin(self) -> None:
        """Start it, ready or not."""
        arguments = [*self._arguments, "--web-port", str(self.port)]
        self._process = ForkedProcess(arguments, self._environment, stdout=self.log)

    def start(self) -> None:
        """Start it, and return when messages come."""
        self.begin()
        wait_until(self.is_ready, "the bridge is ready")

    def why_not(self) -> str:
        """What `/readyz` says."""
        try:
            return self.ask("GET", "/readyz")[1].decode()
        except OSError:
            return ""


class Publisher:
    """Publishes positions with QoS 1 until it is told to stop; knows which of them the MQTT broker has."""

    def __init__(self, broker: Mosquitto, *, per_second: float = 500.0) -> None:
        self.published: set[str] = set()
        """Ids of events that the broker has acknowledged."""
        self._pause_s = 1 / per_second
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="publisher", clean_session=False)
        self._client.max_inflight_messages_set(100)
        self._client.on_publish = self._has
        self._client.connect("127.0.0.1", broker.port)
        self._ids: dict[int, str] = {}
        """Of messages that are not acknowledged yet, by the client's message id. Only the thread of `_run` uses it."""
        self._acknowledged: SimpleQueue[int] = SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._client.loop_start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), f"the broker did not acknowledge {len(self._ids)} messages"
        self._client.disconnect()
        self._client.loop_stop()

    def _has(self, _: Any, __: Any, mid: int, ___: Any, ____: Any) -> None:
        # No lock here: paho holds its own while it calls this, and `publish` takes that one too.
        self._acknowledged.put(mid)

    def _run(self) -> None:
        number = 0
        while self._ids or not self._stop.is_set():
            if not self._stop.is_set():
                row = position(number)
                told = self._client.publish(f"fleet/{row['device_id']}", json.dumps(row), qos=1)
                self._ids[told.mid] = str(row["event_id"])
                number += 1
            while not self._acknowledged.empty():
                self.published.add(self._ids.pop(self._acknowledged.get()))
            time.sleep(self._pause_s)


def position(number: int) -> dict[str, Any]:
    """A position, the same for the same number."""
    return {
        "event_id": f"mqtt-{number}",
        "device_id": f"van-{number % 10}",
        "sequence": number,
        "event_time": 1_767_225_600_000 + number * 1_000,
        "latitude": 50.0,
        "longitude": 10.0,
    }


def publish(broker: Mosquitto, topic: str, payload: bytes | str, *, qos: int = 1, retain: bool = False) -> None:
    """Publish one message; returns when the broker has it."""
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(20)
    client.disconnect()
    client.loop_stop()
