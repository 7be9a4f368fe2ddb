"""What each role does, on a ground of its own: its programs are run, and what they say of a right that they lack."""

import http
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, TopicPartition

from streams.acls.roles import Role
from streams.deadletters.letter.audit import Actor
from streams.engine.forget import ForgetRequest, OpenRequests
from streams.errors import StreamsError
from streams.grow.log import GrowthWriter
from streams.growth.layout import Growth, Layout
from streams.growth.record import GrowthRecord
from streams.growth.stages import Phase
from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.changelog import KafkaChangelog
from streams.local import ports
from streams.resilience.retry import Retrier, quietly
from streams.worker.forget_asking import send_request
from tests.integration.forked import ForkedProcess, run_forked
from tests.pull.rest import POSITIONS_SOURCE, Positions, serving
from tests.rights_ground import SETTLE_S, WORKED, Ground, Said, failed, settings_of

HEADER: Final = "event_id,device_id,sequence,event_time,latitude,longitude"
_WORKER_S: Final = 60.0
_ROUNDS_S: Final = 3.0
"""How long a monitor looks once it is ready."""
_REFUSES_S: Final = 5.0
"""How long a gateway that answers may refuse events before that counts."""


def ci_works(ground: Ground) -> Said:
    """The topics are not there yet: they are created."""
    return ground.run(Role.CI, "topics", "apply", "--partitions", 1)


def gateway_works(ground: Ground) -> Said:
    """A file of one event."""
    path = ground.directory / f"{ground.prefix}csv"
    path.write_text(f"{HEADER}\ne-{uuid.uuid4().hex},car,1,2026-11-01T00:00:00Z,52.5,13.4\n")
    said = ground.run(Role.GATEWAY, "ingest", "file", path, "--topic", ground.flow.source)
    if not said.works or said.words:
        return said
    said = gateway_takes(ground)
    return said if not said.works else pulled(ground)


def gateway_takes(ground: Ground) -> Said:
    """An event by HTTP, and one that becomes a dead letter."""
    number = uuid.uuid4().hex
    row = {"event_id": f"h-{number}", "device_id": "car", "event_time": "2026-11-01T00:00:00Z", "longitude": 13.4}
    body = "\n".join(json.dumps({**row, "latitude": latitude}) for latitude in (52.5, 91.0)).encode()
    port, log = ports.free_port(), ground.directory / f"gateway-{number[:8]}.log"
    process = ForkedProcess(["gateway", "--web-port", str(port)], ground.environment(Role.GATEWAY), stdout=log)
    source = ground.flow.source.removeprefix(ground.prefix)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/events/{source}", body, {"Content-Type": "application/x-ndjson"}
    )
    refused_s = 0.0
    try:
        deadline = time.monotonic() + _WORKER_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own
                    said = answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                said = error.code, error.read().decode()
            except OSError:
                time.sleep(0.2)
                continue
            if said[0] == http.HTTPStatus.UNPROCESSABLE_ENTITY and "dead_letter" in said[1]:
                return WORKED
            # Right after its start it may not know yet whether its sources take events.
            refused_s = refused_s or time.monotonic()
            if time.monotonic() - refused_s > _REFUSES_S and (words := said_by(log)):
                return failed(f"{words}; HTTP {said[0]} {said[1]}")
            time.sleep(0.5)
    finally:
        process.kill()
        process.wait(30)
    return failed(said_by(log) or log.read_text(encoding="utf-8").strip()[-500:])


def pulled(ground: Ground) -> Said:
    """A REST source of one event, read to its end."""
    row = {
        "event_id": f"p-{uuid.uuid4().hex}", "device_id": "car", "event_time": "2026-11-01T00:00:00Z", "latitude": 52.5,
        "longitude": 13.4,
    }  # fmt: skip
    with serving(Positions([row])) as url:
        declared = POSITIONS_SOURCE.format(source=ground.flow.source, url=url)
        (ground.directory / "api.toml").write_text(declared, encoding="utf-8")
        return ground.run(Role.GATEWAY, "pull", "api", "--once", "--dir", ground.directory)


def steward_works(ground: Ground) -> Said:
    """Dead letters are listed, replayed, discarded."""
    ground.letter(time.time_ns() % 1_000_000_000)
    steps = (
        ("dlq", "list"),
        ("dlq", "replay", "--all", "--why", "a test", "--wait", "0"),
        ("dlq", "discard", "--all", "--why", "a test"),
    )
    for step in steps:
        if step[1] == "discard":
            ground.letter(time.time_ns() % 1_000_000_000)
        said = ground.run(Role.STEWARD, *step)
        if not said.works or said.words:
            return said
    return asked(ground)


def asked(ground: Ground) -> Said:
    """Workers are asked to forget a key that nobody has. The rest of `streams forget` is the role `worker`'s."""
    settings = settings_of(ground.stack, Role.STEWARD)
    request = ForgetRequest(uuid.uuid4().hex, b"nobody", (), Actor("me", "a test", "run"))
    try:
        send_request(settings, clients.admin(settings, {}), ground.flow, request)
    except StreamsError as error:
        return failed(str(error))
    return WORKED


def monitor_works(ground: Ground) -> Said:
    """A verdict on the flow's group, and a count of its dead letters."""
    group = ground.flow.group
    consumer = clients.consumer(ground.admin, {"group.id": group})
    _, end = consumer.get_watermark_offsets(TopicPartition(ground.flow.source, 0), 10)
    consumer.commit(offsets=[TopicPartition(ground.flow.source, 0, end)], asynchronous=False)
    consumer.close()
    said = ground.run(Role.MONITOR, "lag", "--group", group, "--for", 0.2)
    if said.words or not said.works:
        return said
    said = ground.run(Role.MONITOR, "dlq", "list")
    return said if said.words or not said.works else watched(ground)


def watched(ground: Ground) -> Said:
    """A monitor that is asked whether it is ready, and reads records for some rounds."""
    number = uuid.uuid4().hex[:8]
    port, log = ports.free_port(), ground.directory / f"monitor-{number}.log"
    environment = ground.environment(Role.MONITOR) | {"STREAMS_MONITOR_INTERVAL_S": "0.5"}
    process = ForkedProcess(["monitor", "--web-port", str(port)], environment, stdout=log)
    ready_s = 0.0
    try:
        deadline = time.monotonic() + _WORKER_S
        while time.monotonic() < deadline and process.poll() is None:
            if ready_s and (said_by(log) or time.monotonic() - ready_s > _ROUNDS_S):
                return failed(said_by(log)) if said_by(log) else WORKED
            ground.send(ground.flow.source, b"x")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10):
                    ready_s = ready_s or time.monotonic()
            except OSError:
                pass
            time.sleep(0.3)
    finally:
        process.kill()
        process.wait(30)
    return failed(said_by(log) or log.read_text(encoding="utf-8").strip()[-500:])


def sink_works(ground: Ground) -> Said:
    """Each output is read in a group, and the offset committed."""
    settings = settings_of(ground.stack, Role.SINK)
    for topic in ground.flow.outputs:
        ground.send(topic, b"x")
        consumer = clients.consumer(
            settings, {"group.id": f"{ground.flow.group}.sink", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([topic])
        deadline = time.monotonic() + SETTLE_S
        try:
            while True:
                message = consumer.poll(0.5)
                if message is not None and message.error() is not None:
                    return failed(f"{topic}: {described(KafkaException(message.error()))}")
                if message is not None:
                    consumer.commit(message=message, asynchronous=False)
                    break
                if time.monotonic() > deadline:
                    return failed(f"{topic}: nothing was read")
        except KafkaException as error:
            return failed(f"{topic}: {described(error)}")
        finally:
            consumer.close()
    return WORKED


def worker_works(ground: Ground) -> Said:
    """An event, a late one, a reject and a replayed letter are worked off, state is restored, a key is forgotten."""
    number = time.time_ns() % 1_000_000_000
    ground.letter(number)
    replayed = run_forked(["dlq", "replay", "--all", "--why", "a test", "--wait", "0"], ground.environment("admin"))
    assert replayed.returncode == 0, replayed.stderr
    request = ForgetRequest(uuid.uuid4().hex, b"nobody", (), Actor("me", "a test", "run"))
    send_request(ground.admin, ground.client, ground.flow, request)
    with worker(ground) as (process, log):
        deadline = time.monotonic() + _WORKER_S
        while time.monotonic() < deadline:
            words = said_by(log)
            if words:
                return failed(words)
            if process.poll() is not None:
                return failed(log.read_text(encoding="utf-8").strip().splitlines()[-1])
            if is_committed(ground) and is_carried_out(ground, request):
                return WORKED
            time.sleep(0.3)
    return failed("nothing was committed: " + log.read_text(encoding="utf-8")[-500:])


@contextmanager
def worker(ground: Ground) -> Iterator[tuple[ForkedProcess, Path]]:
    """A worker with an empty data directory, run by its role."""
    name = uuid.uuid4().hex[:8]
    log = ground.directory / f"worker-{name}.log"
    arguments = ["worker", "--data-dir", str(ground.directory / name), "--web-port", "0"]
    process = ForkedProcess(arguments, ground.environment(Role.WORKER), stdout=log)
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def said_by(log: Path) -> str:
    """The first line of a worker's log that tells of a right that it lacks."""
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        if "lack" in line and not line.startswith("{"):
            return line
        if "lack" in line:
            found = json.loads(line)
            return ": ".join(str(found[name]) for name in ("event", "right", "error", "cause") if name in found)
    return ""


def is_committed(ground: Ground) -> bool:
    """Whether the flow's group stands at the end of the source."""
    consumer = clients.consumer(ground.admin, {"group.id": ground.flow.group})
    try:
        (at,) = consumer.committed([TopicPartition(ground.flow.source, 0)], 10)
        _, end = consumer.get_watermark_offsets(TopicPartition(ground.flow.source, 0), 10)
        return bool(at.offset >= end - 1 > 0)
    finally:
        consumer.close()


def is_carried_out(ground: Ground, request: ForgetRequest) -> bool:
    """Whether a worker has written that the key is forgotten."""
    flow = ground.flow
    changelog = KafkaChangelog(ground.admin, group=flow.group, source=flow.source, retrier=Retrier(say=quietly))
    try:
        return request.id not in {one.id for one in OpenRequests(flow, changelog).read()}
    finally:
        changelog.close()


def operator_works(ground: Ground) -> Said:
    """A growth that somebody has planned is looked at and given up: both ask and write all that a growth does."""
    growth = Growth(Layout(1, 1), Layout(2, 2))
    writer = GrowthWriter(ground.admin, source=ground.flow.source, topic=ground.flow.growth)
    try:
        writer.open()
        writer.write(GrowthRecord(growth, Phase.PLANNED))
    finally:
        writer.close()
    planned = ground.run(Role.OPERATOR, "topics", "grow", ground.flow.source, "--partitions", 2, "--dry-run")
    if not planned.works or planned.words:
        return planned
    return ground.run(Role.OPERATOR, "topics", "grow", ground.flow.source, "--abandon")


def auditor_works(ground: Ground) -> Said:
    """What the flow has written is compared with its source; what is found is no matter."""
    said = ground.run(Role.AUDITOR, "reconcile", "--flow", ground.flow.name)
    return WORKED if "was judged" in said.words or "were judged" in said.words else said


WORKS: Final[dict[Role, Callable[[Ground], Said]]] = {
    Role.CI: ci_works,
    Role.GATEWAY: gateway_works,
    Role.STEWARD: steward_works,
    Role.MONITOR: monitor_works,
    Role.SINK: sink_works,
    Role.WORKER: worker_works,
    Role.OPERATOR: operator_works,
    Role.AUDITOR: auditor_works,
}
