"""A ground for trying rights: topics of a secured stack under a prefix of its own, principals with chosen rights."""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from logistics.flows.gps import GPS
from streams.acls.rights import Grant, Right
from streams.acls.roles import Role, principal_of, rights_of
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.deadletters.letter.envelope import envelope_headers
from streams.kafka import acls, clients
from streams.kafka.topics import apply_topics
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.schemas.registration import register_schemas
from streams.settings import Settings, load_settings
from tests.integration.forked import run_forked

APP: Final = "logistics.flows.gps"
_CONNECTION: Final = ("KAFKA_", "SCHEMA_REGISTRY_")
SETTLE_S: Final = 20.0


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
        deadline = time.monotonic() + SETTLE_S
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


def prepare(stack: Stack) -> None:
    """Register the schemas."""
    register_schemas(Catalog.load(), Registry(settings_of(stack, "admin"), timeout_s=60.0))
