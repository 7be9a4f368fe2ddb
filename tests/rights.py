"""What each role does, and what is said when one of its rights is missing: on a secured stack, with a flow of its own.

A ground is a topic prefix: topics, groups and ids of one try touch no other. `python -m tests.rights` (`make
rights-matrix`) takes each right of each role away once and writes the table of `docs/security.md`.
"""

import argparse
import http
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException, Producer, TopicPartition

from logistics.flows.gps import GPS
from streams.acls.rights import Grant, Kind, Operation, Right
from streams.acls.roles import Role, principal_of, rights_of
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.deadletters.letter.audit import Actor
from streams.deadletters.letter.envelope import envelope_headers
from streams.engine.forget import ForgetRequest
from streams.errors import StreamsError
from streams.grow.log import GrowthWriter
from streams.growth.layout import Growth, Layout
from streams.growth.record import GrowthRecord
from streams.growth.stages import Phase
from streams.kafka import acls, clients
from streams.kafka.admin import described
from streams.kafka.topics import apply_topics
from streams.local import ports
from streams.local.stack import Stack, recorded_stack, running_stack
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.schemas.registration import register_schemas
from streams.settings import Settings, load_settings
from streams.worker.forget_asking import send_request
from tests.integration.forked import ForkedProcess, run_forked
from tests.pull.rest import Positions, serving

APP: Final = "logistics.flows.gps"
HEADER: Final = "event_id,device_id,sequence,event_time,latitude,longitude"
_CONNECTION: Final = ("KAFKA_", "SCHEMA_REGISTRY_")
_SETTLE_S: Final = 20.0
_WORKER_S: Final = 60.0
_REFUSES_S: Final = 5.0
"""How long a gateway that answers may refuse events before that counts."""


@dataclass(frozen=True)
class Said:
    """How a role's work ended."""

    works: bool
    words: str
    """What it said, where it did not work, or did with something left out."""


WORKED: Final = Said(works=True, words="")


def failed(words: str) -> Said:
    """What was said instead of doing the work."""
    return Said(works=False, words=words)


class Ground:
    """A set of topics under a prefix of its own, and principals whose rights are chosen."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.stack, self.directory = stack, directory
        self.prefix = f"rights-{uuid.uuid4().hex[:8]}."
        self.flow = GPS.with_prefix(self.prefix)
        self.admin = settings_of(stack, "admin")
        self.client = clients.admin(self.admin, {})

    def environment(self, role: str) -> dict[str, str]:
        """Variables with which the principal of a role works on this ground."""
        found = self.stack.environment(role)
        return {
            **_elsewhere(), **found, "STREAMS_TOPIC_PREFIX": self.prefix, "STREAMS_APP": APP,
            "STREAMS_LOG_FORMAT": "json",
        }  # fmt: skip

    def make(self) -> "Ground":
        """Its topics, with a partition each."""
        apply_topics(self.client, [self.flow], partitions=1)
        return self

    def rights(self, role: Role) -> tuple[Right, ...]:
        """What the role needs here."""
        return rights_of([role], [self.flow])

    def give(self, role: Role, rights: Sequence[Right]) -> None:
        """Have the role's principal have these rights, and no others; they are in force on return."""
        principal = principal_of(role)
        before = [one for one in acls.grants(self.client) if one.principal == principal]
        acls.take(self.client, before)
        acls.grant(self.client, principal, rights)
        wanted = {Grant(principal, right) for right in rights}
        deadline = time.monotonic() + _SETTLE_S
        while {one for one in acls.grants(self.client) if one.principal == principal} != wanted:
            assert time.monotonic() < deadline, "rights are not in force"
            time.sleep(0.1)
        time.sleep(0.2)

    def run(self, role: Role, *arguments: object) -> Said:
        """A command, run by the role's principal."""
        try:
            done = run_forked([*map(str, arguments)], self.environment(role))
        except subprocess.TimeoutExpired as error:
            return Said(works=False, words=f"not ended after {error.timeout:.0f} s: {' '.join(map(str, error.cmd))}")
        said = " ".join((done.stderr + done.stdout).split())
        return Said(done.returncode == 0, done.stderr.strip() if done.returncode == 0 else said)

    def letter(self, number: int) -> None:
        """Put a dead letter into the flow's topic, as a worker writes it."""
        reject = Reject(-1, Reason.INVALID, "latitude is outside [-90, 90]", None)
        now_ms = time.time_ns() // 1_000_000
        dead = DeadLetter(reject, 0, number, now_ms, b"car", b"not a value", None)
        headers: Any = envelope_headers(dead, source=self.flow.source, group=self.flow.group, now_ms=now_ms)
        self.send(self.flow.dlq, b"not a value", headers)

    def send(self, topic: str, value: bytes, headers: Any = None) -> None:
        """Send a record, as the administrator."""
        producer: Producer = clients.producer(self.admin, {})
        producer.produce(topic, value, b"car", headers=headers)
        assert producer.flush(30) == 0


_ENVIRONMENT: Final = threading.Lock()
"""Held by who changes the environment of this process: roles are tried side by side."""


def _elsewhere() -> dict[str, str]:
    """The environment of this process without what says how to connect."""
    with _ENVIRONMENT:
        return {name: value for name, value in os.environ.items() if not name.startswith(_CONNECTION)}


def settings_of(stack: Stack, role: str) -> Settings:
    """Settings with which a role connects."""
    with _ENVIRONMENT:
        kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_CONNECTION)}
        os.environ.update(stack.environment(role))
        try:
            return load_settings()
        finally:
            for name in stack.environment(role):
                os.environ.pop(name, None)
            os.environ.update(kept)


# --- what each role does ----------------------------------------------------------------------------------------------


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


PULLED: Final = """
source = "{source}"
url = "{url}/positions"
records = "/items"
[cursor.page]
parameter = "page"
next = "/next"
[fields]
event_id = {{ at = "/event_id" }}
device_id = {{ at = "/device_id" }}
event_time = {{ at = "/event_time" }}
latitude = {{ at = "/latitude" }}
longitude = {{ at = "/longitude" }}
"""


def pulled(ground: Ground) -> Said:
    """A REST source of one event, read to its end."""
    row = {
        "event_id": f"p-{uuid.uuid4().hex}", "device_id": "car", "event_time": "2026-11-01T00:00:00Z", "latitude": 52.5,
        "longitude": 13.4,
    }  # fmt: skip
    with serving(Positions([row])) as url:
        (ground.directory / "api.toml").write_text(PULLED.format(source=ground.flow.source, url=url), encoding="utf-8")
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
    consumer.commit(offsets=[TopicPartition(ground.flow.source, 0, 0)], asynchronous=False)
    consumer.close()
    said = ground.run(Role.MONITOR, "lag", "--group", group, "--for", 0.2)
    if said.words or not said.works:
        return said
    return ground.run(Role.MONITOR, "dlq", "list")


def sink_works(ground: Ground) -> Said:
    """Each output is read in a group, and the offset committed."""
    settings = settings_of(ground.stack, Role.SINK)
    for topic in ground.flow.outputs:
        ground.send(topic, b"x")
        consumer = clients.consumer(
            settings, {"group.id": f"{ground.flow.group}.sink", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([topic])
        deadline = time.monotonic() + _SETTLE_S
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
    """An event, a late one, a reject and a replayed letter are worked off, and the state is restored once more."""
    number = time.time_ns() % 1_000_000_000
    ground.letter(number)
    replayed = run_forked(["dlq", "replay", "--all", "--why", "a test", "--wait", "0"], ground.environment("admin"))
    assert replayed.returncode == 0, replayed.stderr
    with worker(ground) as (process, log):
        deadline = time.monotonic() + _WORKER_S
        while time.monotonic() < deadline:
            words = said_by(log)
            if words:
                return failed(words)
            if process.poll() is not None:
                return failed(log.read_text(encoding="utf-8").strip().splitlines()[-1])
            if is_committed(ground):
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


def without(ground: Ground, role: Role, right: Right | None) -> Said:
    """What the role says without one right; None: with all of them."""
    ground.give(role, [one for one in ground.rights(role) if one != right])
    return WORKS[role](ground)


def names(said: Said, right: Right) -> bool:
    """Whether words name what the right is on."""
    name = right.name if right.kind is not Kind.GROUP else "group"
    kind = {Kind.TRANSACTIONAL_ID: "transactional id", Kind.GROUP: "group", Kind.TOPIC: name}.get(right.kind, name)
    return kind in said.words


def prepare(stack: Stack) -> None:
    """Register the schemas."""
    register_schemas(Catalog.load(), Registry(settings_of(stack, "admin"), timeout_s=60.0))


def operations(rights: Sequence[Right]) -> list[Right]:
    """One right of each kind and operation: the short form of a matrix."""
    seen: dict[tuple[Kind, Operation], Right] = {}
    for right in rights:
        seen.setdefault((right.kind, right.operation), right)
    return list(seen.values())


# --- the matrix -------------------------------------------------------------------------------------------------------

PAGE: Final = Path(__file__).parents[1] / "docs" / "security.md"
BEGIN: Final = "<!-- rights: begin (make rights-matrix) -->"
END: Final = "<!-- rights: end -->"
BEFORE: Final = "## What errors mean"
SECTION: Final = f"""### Each right taken away once

`make rights-matrix` does each role's work on a secured stack: with all of its rights, and once without each of them
(on the `gps` flow). It fails where the words do not name what the right is on. What was said:

{BEGIN}
{END}

"""
_WORDS_SHOWN: Final = 160
_CREATE: Final = (Role.CI, Role.STEWARD)
"""Roles that create topics: each try has a ground of its own."""


@dataclass(frozen=True)
class Row:
    """A role's work, once."""

    role: Role
    without: str
    """The right; empty: with all of them."""
    words: str
    is_right: bool
    """Whether it worked with all rights, or named the one that was missing."""

    def __str__(self) -> str:
        shown = self.words if len(self.words) <= _WORDS_SHOWN else f"{self.words[:_WORDS_SHOWN]}..."
        return f"| {self.role} | {self.without or 'all'} | {shown or 'works'} |"


def matrix(stack: Stack, directory: Path, roles: Sequence[Role], say: Callable[[Row], object]) -> list[Row]:
    """Each role's work with all of its rights, then without each of them; roles side by side, in their order."""
    with ThreadPoolExecutor(len(roles)) as threads:
        tried = [threads.submit(_rows_of, stack, directory, role, say) for role in roles]
        return [row for each in tried for row in each.result()]


def _rows_of(stack: Stack, directory: Path, role: Role, say: Callable[[Row], object]) -> list[Row]:
    rows: list[Row] = []
    shared = None if role in _CREATE else Ground(stack, directory).make()
    for right in (None, *(shared or Ground(stack, directory)).rights(role)):
        ground = shared or Ground(stack, directory)
        if role is Role.STEWARD:
            ground.make()
        mine = next((one for one in ground.rights(role) if right is not None and _same(one, right, ground)), None)
        said = without(ground, role, mine)
        words = said.words.replace(ground.prefix, "").replace("|", "/")
        is_right = said == WORKED if mine is None else names(said, mine)
        row = Row(role, "" if mine is None else _shown(mine, ground), words, is_right)
        say(row)
        rows.append(row)
    return rows


def _same(one: Right, other: Right, ground: Ground) -> bool:
    """Whether two rights are the same but for the prefix of their grounds."""
    return str(one).replace(ground.prefix, "") == re.sub(r"rights-[0-9a-f]{8}\.", "", str(other))


def _shown(right: Right, ground: Ground) -> str:
    return str(right).replace(ground.prefix, "")


def main() -> None:
    """Run the matrix on a stack of its own, or on one that runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--role", action="append", default=[], choices=list(Role), help="repeatable; default: all")
    parser.add_argument("--dir", type=Path, help="of a secured stack that runs; default: one of its own")
    parser.add_argument("--page", action="store_true", help="put the table into docs/security.md")
    options = parser.parse_args()
    with ExitStack() as ends:
        scratch = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="rights-")))
        running = options.dir and recorded_stack(options.dir)
        stack = running or ends.enter_context(running_stack(scratch / "stack", secure=True))
        prepare(stack)
        rows = matrix(stack, scratch, [Role(one) for one in options.role] or list(Role), _say)
    if options.page:
        text = PAGE.read_text(encoding="utf-8")
        if BEGIN not in text:
            text = text.replace(BEFORE, SECTION + BEFORE, 1)
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        table = "\n".join(("| role | without | what is said |", "|---|---|---|", *map(str, rows)))
        PAGE.write_text(f"{before}\n{table}\n{after}", encoding="utf-8")
    if wrong := [row for row in rows if not row.is_right]:
        sys.exit("\n".join(("what is missing is not named:", *map(str, wrong))))


def _say(row: Row) -> None:
    print(f"{'ok ' if row.is_right else 'BAD'} {row}", flush=True)  # noqa: T201 - it runs for minutes


if __name__ == "__main__":
    main()
