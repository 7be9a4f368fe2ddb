"""A marked secret and a marked personal value are walked through every program: none of its outputs shows either.

Outputs: logs and what is printed, pages and APIs, `/metrics`, dead letters as shown, reports of ingest, and what an
endpoint that refuses rows makes a sink say.
"""

import http.server
import json
import os
import re
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Producer

from logistics.flows.gps import GPS
from streams.local import ports
from streams.local.stack import Stack
from streams.settings import Settings
from tests.integration.forked import ForkedProcess, run_forked
from tests.integration.guides import ROOT
from tests.integration.kafka_helpers import admin_of, committed_records, delete_topics
from tests.integration.test_rejects import Encoder
from tests.integration.workers import SETTINGS, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600, func_only=True)]

PREFIX: Final = "walk."
KEY: Final = "anna-marked-7"
LATITUDE: Final = 12.345678
"""Of events that are good."""
WRONG: Final = 991.234567
"""Of events that are not."""
MARKED: Final = (KEY, str(LATITUDE), str(WRONG), KEY.encode().hex())
SECRETS: Final = {
    "SCHEMA_REGISTRY_USERNAME": "walker",
    "SCHEMA_REGISTRY_PASSWORD": "marked-secret-of-the-registry",
    "STREAMS_ADMIN_TOKEN": "marked-secret-of-the-administrator",
    "STREAMS_REVIEW_TOKEN_READ": "marked-secret-of-readers",
    "STREAMS_REVIEW_TOKEN_REPLAY": "marked-secret-of-stewards",
    "STREAMS_REVIEW_TOKEN_REVEAL": "marked-secret-of-revealers",
    "STREAMS_POSTGRES_URL": "postgresql://walker:marked-secret-of-the-database@127.0.0.1:1/none",
    "STREAMS_HTTP_SINK_TOKEN": "marked-secret-of-the-endpoint",
    "STREAMS_MQTT_PASSWORD": "marked-secret-of-the-mqtt-broker",
    "STREAMS_PROMETHEUS_URL": "http://walker:marked-secret-of-the-history@127.0.0.1:1/",
    "STREAMS_PROMETHEUS_TOKEN": "marked-secret-of-prometheus",
    "STREAMS_NOTIFY_WEBHOOK_URL": "http://127.0.0.1:1/marked-secret-of-the-webhook",
    "STREAMS_NOTIFY_WEBHOOK_TOKEN": "marked-secret-of-the-receiver",
    "STREAMS_NOTIFY_SLACK_URL": "http://127.0.0.1:1/marked-secret-of-slack",
    "STREAMS_NOTIFY_SMTP_URL": "smtp://walker:marked-secret-of-the-mail-server@127.0.0.1:1",
    "STREAMS_NOTIFY_EMAIL_FROM": "streams@example.org",
    "STREAMS_NOTIFY_EMAIL_TO": "oncall@example.org",
}
"""Each is in force, or at least given to every process."""
HARD: Final = {
    "KAFKA_SASL_PASSWORD", "KAFKA_SSL_KEY_PASSWORD", "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET",
    "SCHEMA_REGISTRY_SSL_KEY_PASSWORD", "SCHEMA_REGISTRY_TOKEN",
}  # fmt: skip
"""Settings refuse these here: they contradict a stack without TLS and SASL. `test_secured.py` walks with passwords."""
APP: Final = """
from logistics.flows.gps import positions
from logistics.folds.vehicle_state import VehicleState
from streams import Flow, http

flow = Flow(
    "gps",
    positions.to("gps.positions.v1.clean")
    .fold(VehicleState(), to="vehicles.state.v1")
    .to(http("{endpoint}", name="hook", linger_ms=50)),
)
"""


def marks_in(text: str) -> list[str]:
    """What a text shows that it must not."""
    return [mark for mark in (*MARKED, *re.findall(r"marked-secret-[a-z-]+", text)) if mark in text]


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Refuses rows, and quotes them in its answer, token and all."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        answer = b"cannot take " + body + str(self.headers["Authorization"]).encode()
        self.send_response(422)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class Walk:
    """A set of topics with a worker, a gateway, a sink and a monitor; what each of them shows."""

    def __init__(self, stack: Stack, folder: Path, endpoint: str) -> None:
        self.stack, self.folder = stack, folder
        (folder / "walk.py").write_text(APP.replace("{endpoint}", endpoint), encoding="utf-8")
        schemas = folder / "schemas"
        shutil.copytree(ROOT / "schemas", schemas)
        marked = 'personal = ["device_id", "latitude", "longitude"]'
        subjects = ("gps.positions.v1-value", "vehicles.state.v1-value")
        (schemas / "subjects.toml").write_text("".join(f'["{one}"]\n{marked}\n' for one in subjects))
        self.environment: Mapping[str, str] = {
            **os.environ, **stack.environment(), **SETTINGS, **SECRETS,
            "PYTHONPATH": os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", ""))),
            "STREAMS_APP": "walk",
            "STREAMS_SCHEMAS_DIR": str(schemas),
            "STREAMS_TOPIC_PREFIX": PREFIX,
            "STREAMS_GATEWAY_DIR": str(folder),
            "STREAMS_DATA_DIR": str(folder / "data"),
            "STREAMS_QUARANTINE_REJECTS": "3",
            "STREAMS_MONITOR_INTERVAL_S": "1",
            "STREAMS_MONITOR_WINDOW_S": "30",
        }  # fmt: skip
        self.shown: dict[str, str] = {}
        """By program and output."""
        self.flow = GPS.with_prefix(PREFIX)

    def run(self, *arguments: str, also: int = 0) -> str:
        """A command; what it printed. `also`: another exit status that is right."""
        done = run_forked([*arguments], self.environment, directory=self.folder)
        assert done.returncode in {0, also}, done.stderr
        self.shown[" ".join(arguments)] = done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def process(self, *arguments: str) -> Iterator[int]:
        """A process with a web server, once that answers: its port. What it has logged is noted at its end."""
        port, log = ports.free_port(), self.folder / f"{arguments[0]}.log"
        whole = [*arguments, "--web-port", str(port)]
        process = ForkedProcess(whole, self.environment, stdout=log, directory=self.folder)
        try:
            wait_until(lambda: get(port, "/healthz")[0] == 200 or process.poll() is not None, f"{arguments[0]} answers")
            assert process.poll() is None, log.read_text()
            yield port
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)
            self.shown[f"log of {arguments[0]}"] = log.read_text(encoding="utf-8", errors="replace")

    def look(self, program: str, port: int, *paths: str) -> None:
        """Note what paths answer."""
        for path in paths:
            status, text = get(port, path)
            assert status, f"{program} {path}"
            self.shown[f"{program} {path} ({status})"] = text

    def send(self) -> None:
        """Good, late, repeated and wrong events of the key; one in a wrong partition."""
        encoder = Encoder(self.stack)
        now_ms = int(time.time() * 1_000)
        good = encoder.framed(device_id=KEY, latitude=LATITUDE, event_time=now_ms)
        records: list[tuple[bytes | None, bytes]] = [
            (KEY.encode(), good),
            (KEY.encode(), good),
            (KEY.encode(), encoder.framed(device_id=KEY, latitude=LATITUDE, event_time=now_ms + 30_000)),
            (KEY.encode(), encoder.framed(device_id=KEY, latitude=LATITUDE, event_time=now_ms - 60_000)),
            (b"another", good),
            (KEY.encode(), good[:20]),
            (KEY.encode(), KEY.encode()),
            *((KEY.encode(), encoder.framed(device_id=KEY, latitude=WRONG, event_time=now_ms)) for _ in range(4)),
        ]
        producer = Producer({"bootstrap.servers": self.stack.bootstrap_servers, "partitioner": "murmur2_random"})
        for key, value in records:
            producer.produce(self.flow.source, value, key)
        for partition in range(3):
            producer.produce(
                self.flow.source, encoder.framed(device_id=KEY, latitude=LATITUDE, event_time=now_ms + 31_000),
                KEY.encode(), partition=partition,
            )  # fmt: skip
        assert producer.flush(30) == 0


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@pytest.fixture
def walk(stack: Stack, tmp_path: Path) -> Iterator[Walk]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        made = Walk(stack, tmp_path, f"http://127.0.0.1:{server.server_port}/rows")
        made.run("topics", "apply", "--partitions", "3")
        made.run("schemas", "register", also=100)
        yield made
        server.shutdown()
        thread.join()
    client = admin_of(stack)
    delete_topics(client, {name for name in client.list_topics(timeout=10).topics if name.startswith(PREFIX)})


def test_every_secret_of_the_settings_is_one_that_is_walked() -> None:
    secret = {name.upper() for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret - HARD == set(SECRETS) - {
        "SCHEMA_REGISTRY_USERNAME",
        "STREAMS_NOTIFY_EMAIL_FROM",
        "STREAMS_NOTIFY_EMAIL_TO",
    }


@pytest.mark.slow
def test_no_output_of_any_program_shows_a_secret_or_a_personal_value(walk: Walk) -> None:
    with ExitStack() as running:
        worker = running.enter_context(walk.process("worker"))
        monitor = running.enter_context(walk.process("monitor"))
        gateway = running.enter_context(walk.process("gateway"))
        sink = running.enter_context(walk.process("sink", "hook"))
        walk.send()
        wait_until(lambda: len(committed_records(walk.stack, walk.flow.dlq)) >= 7, "there are dead letters")
        through_the_gateway(walk, gateway)
        ingest(walk)
        wait_until(lambda: committed_records(walk.stack, walk.flow.table_topics[0]), "there are rows")
        wait_until(lambda: committed_records(walk.stack, f"{PREFIX}sinks.hook.dlq"), "the endpoint has refused rows")
        time.sleep(2.0)
        walk.look("worker", worker, "/metrics", "/healthz", "/readyz")
        walk.look("gateway", gateway, "/", "/metrics", "/readyz", "/openapi.json")
        walk.look("sink", sink, "/", "/metrics", "/healthz", "/readyz")
        group = f"/api/groups/{walk.flow.group}"
        walk.look(
            "monitor",
            monitor,
            "/",
            "/metrics",
            "/healthz",
            "/readyz",
            "/api/overview",
            group,
            "/v3/kafka",
        )
        review(walk, monitor)
        commands(walk)
    assert len(walk.shown) > 30
    marked = {name: marks for name, text in walk.shown.items() if (marks := marks_in(text))}
    found = [f"{name} shows {marks}:\n{around(walk.shown[name], marks)}" for name, marks in marked.items()]
    assert not found, "\n\n".join(found)


def around(text: str, marks: list[str]) -> str:
    at = text.index(marks[0])
    return text[max(0, at - 300) : at + 200]


def through_the_gateway(walk: Walk, port: int) -> None:
    """What a sender is answered is its own; the log and the letters are not."""
    row = {"event_id": "g-1", "device_id": KEY, "sequence": 1, "event_time": 1, "latitude": WRONG, "longitude": 1.0}
    for body in (json.dumps(row), json.dumps(row | {"latitude": f"no {KEY}"}), f'{{"device_id": "{KEY}", ', KEY):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/events/{walk.flow.source}", body.encode(), {"Content-Type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=10)  # noqa: S310 - our own


def ingest(walk: Walk) -> None:
    path = walk.folder / "rows.csv"
    rows = (
        f"i-1,{KEY},1,2026-01-01T00:00:00Z,no {KEY},13.4",
        f"i-2,{KEY},1,2026-01-01T00:00:00Z,{WRONG},13.4",
        f"i-3,{KEY},1,{KEY},52.5,13.4",
        f"i-4,{KEY},1",
    )
    path.write_text("\n".join(("event_id,device_id,sequence,event_time,latitude,longitude", *rows)))
    for output in ("text", "json"):
        walk.run("ingest", "file", str(path), "--topic", walk.flow.source, "--format", output, also=100)


def review(walk: Walk, port: int) -> None:
    """The page of dead letters: the list, a letter, what would be replayed."""
    token = {"Authorization": f"Bearer {SECRETS['STREAMS_REVIEW_TOKEN_REPLAY']}"}
    letters = json.loads(walk.run("dlq", "list", "--format", "json"))
    ids = re.findall(r'"id": "([0-9a-f]{24})"', json.dumps(letters))
    assert ids
    for path in ("/dead-letters/", f"/dead-letters/letters/{ids[0]}", "/dead-letters/replay", "/dead-letters/discard"):
        status, text = get(port, path, **token)
        assert status == 200, (path, status, text[:500])
        walk.shown[f"page {path}"] = text
    walk.shown["page without a token"] = get(port, "/dead-letters/")[1]
    for each in dict.fromkeys(ids):
        walk.run("dlq", "show", each)
        walk.run("dlq", "show", each, "--format", "json")


def commands(walk: Walk) -> None:
    """What is printed of flows, groups and settings; what fails with a value in its hands."""
    for arguments in (
        ("dlq", "list"), ("dlq", "list", "--group-by", "device"), ("dlq", "replay", "--all", "--dry-run"),
        ("settings",), ("topics", "list"), ("flows", "list"), ("schemas", "list"), ("acls", "show"),
    ):  # fmt: skip
        walk.run(*arguments, also=100)
    walk.run("lag", "--group", walk.flow.group, "--for", "0.5", also=100)
    repair = walk.folder / "repair.py"
    repair.write_text("def repair(letter):\n    raise ValueError(letter.key.decode() + str(letter.value))\n")
    walk.run("dlq", "replay", "--all", "--why", "a test", "--transform", "repair:repair", "--dry-run", also=1)
